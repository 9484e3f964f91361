"""Tags in front of and behind the audio: ID3v1, ID3v2, APEv2, Lyrics3."""

from ltu_jax.preprocessing.formats.splice import Content

_APE, _ID3V1, _LYRICS = b"APETAGEX", b"TAG", b"LYRICSBEGIN"


def length_at(content: Content, offset: int) -> int:
    """Bytes of the tag that begins at `offset`, by its own size; 0 where none does."""
    head = content.at(offset, 32)
    if head[:3] == b"ID3" and len(head) >= 10 and head[3] < 0xFF and max(head[6:10]) < 0x80:
        return 10 + _synchsafe(head[6:10]) + (10 if head[5] & 0x10 else 0)
    if head[:8] == _APE and len(head) == 32 and head[23] & 0x20:  # a header, not a footer
        return 32 + int.from_bytes(head[12:16], "little")
    if head[:3] == _ID3V1 and content.size - offset >= 128:
        return 128
    return 0


def skip(content: Content, offset: int) -> int:
    """The place behind all tags that begin at `offset`."""
    while length := length_at(content, offset):
        offset += length
    return offset


def begin_of_trailers(content: Content, *, start: int) -> int:
    """Where the tags at the end of the file begin: its size, where there are none."""
    end = content.size
    while length := _length_before(content, end):
        if end - length < start:
            break
        end -= length
    return end


def _length_before(content: Content, end: int) -> int:
    """Bytes of the tag that ends at `end`; 0 where none does."""
    if end >= 128 and content.at(end - 128, 3) == _ID3V1:
        extended = end >= 355 and content.at(end - 355, 4) == b"TAG+"
        return 355 if extended else 128
    foot = content.at(max(end - 32, 0), min(32, end))
    if foot[:8] == _APE and len(foot) == 32 and not foot[23] & 0x20:
        return int.from_bytes(foot[12:16], "little") + (32 if foot[23] & 0x80 else 0)
    if foot[-9:] == b"LYRICS200" and foot[-15:-9].isdigit():
        return int(foot[-15:-9]) + 15
    if foot[-9:] == b"LYRICSEND":
        text = content.at(max(end - 5120, 0), min(5120, end))
        return len(text) - text.rindex(_LYRICS) if _LYRICS in text else 0
    if foot[-10:-7] == b"3DI" and max(foot[-4:]) < 0x80:
        return 20 + _synchsafe(foot[-4:])
    return 0


def _synchsafe(digits: bytes) -> int:
    value = 0
    for digit in digits:
        value = value << 7 | digit
    return value
