"""Whether an MP3 file is one unbroken chain of frames.

libmpg123, with which libsndfile reads MP3s, skips what it cannot read and plays silence for it
without an error. A chain with a break in it is therefore refused before it is decoded; damage
inside a frame that leaves its header whole cannot be told from sound (frames carry no checksum).
"""

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS = {
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1, layer 3
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
}
_SIDE = {(3, 3): 17, (3, 0): 32}  # bytes of side information by (version, mono?); else 9 or 17
_SCRAP = 128  # bytes behind the last frame that are no matter
_TRAILERS = (b"TAG", b"APETAGEX", b"ID3", b"LYRICSBEGIN")


def problem(content: bytes) -> str | None:
    """What to say about a broken MP3; None about any other file."""
    place = first_break(content)
    if place is None:
        return None
    return (
        f"damaged MP3: its frames break off at byte {place} of {len(content)}, where a decoder "
        "would play silence; copy it again, or repair it with ffmpeg"
    )


def first_break(content: bytes) -> int | None:
    """The offset at which the chain of frames breaks; None when it does not, or is no layer 3.

    What follows the last frame may be tags, zeros, or a scrap.
    """
    offset = _behind_id3(content)
    while content[offset : offset + 1] == b"\0":  # padding of a tag
        offset += 1
    first = frame_length(content, offset)
    if first is None:
        return None
    kind = content[offset + 1] & 0xFE, content[offset + 2] & 0x0C  # all but the checksum's bit
    while offset + 4 <= len(content):
        length = frame_length(content, offset)
        same = (content[offset + 1] & 0xFE, content[offset + 2] & 0x0C) == kind
        if length is None or not same:
            rest = content[offset:]
            ends = rest.startswith(_TRAILERS) or len(rest.strip(b"\0")) <= _SCRAP
            return None if ends else offset
        if not _side_fits(content, offset, length):
            return offset
        offset += length
    return None


def frame_length(content: bytes, offset: int) -> int | None:
    """Bytes of the layer 3 frame that begins at `offset`; None when none does."""
    head = content[offset : offset + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, kbits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or kbits in (0, 15) or rate == 3:
        return None
    samples = 144 if version == 3 else 72
    bits = _KBITS[3 if version == 3 else 2][kbits - 1] * 1000
    return samples * bits // _RATES[version][rate] + (head[2] >> 1 & 1)


def _side_fits(content: bytes, offset: int, length: int) -> bool:
    """Whether the frame has room for its side information."""
    version, mono = content[offset + 1] >> 3 & 3, content[offset + 3] >> 6
    side = _SIDE.get((version, 3 if mono == 3 else 0), 9 if mono == 3 else 17)
    return length >= 4 + side


def _behind_id3(content: bytes) -> int:
    """Where the audio begins behind ID3v2 tags."""
    offset = 0
    while content[offset : offset + 3] == b"ID3" and len(content) >= offset + 10:
        size = 0
        for byte in content[offset + 6 : offset + 10]:
            size = size << 7 | byte & 0x7F
        offset += 10 + size
    return offset
