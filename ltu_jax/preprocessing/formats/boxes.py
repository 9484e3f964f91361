"""What kind of container a file is, by its structure, and whether it is all there."""

from ltu_jax.preprocessing.formats.sound import AudioError
from ltu_jax.preprocessing.formats.splice import Content

# First bytes -> FFmpeg's name of the format, for what libsndfile does not read.
_SIGNATURES = (
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", "asf"),
    (b"#!AMR", "amr"),
    (b"FLV\x01", "flv"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x0b\x77", "ac3"),
    (b"\x7f\xfe\x80\x01", "dts"),
    (b"MAC ", "ape"),
    (b"wvpk", "wv"),
    (b"TTA1", "tta"),
    (b"MPCK", "mpc8"),
    (b"MP+", "mpc"),
    (b"tBaK", "tak"),
    (b"caff", "caf"),
    (b"FORM", "aiff"),
    (b".snd", "au"),
    (b"riff\x2e\x91\xcf\x11", "w64"),
    (b"fLaC", "flac"),
)
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")
_ASF_FILE = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"
_TS = 188  # bytes of a packet of an MPEG transport stream
_SURE = 3  # frames or packets in a row that are no chance
_MOST_BOXES = 1_000_000
# Of these, a length that is stated is of the audio itself, not guessed from a bit rate.
STATES_LENGTH = ("aiff", "ape", "au", "caf", "mov", "tak", "tta", "w64", "wav", "wv")


def format_of(content: Content, offset: int) -> str | None:
    """FFmpeg's name of the format that begins at `offset`; None when it is none that is known."""
    head = content.at(offset, 16)
    if head[4:8] in _BOXES:
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return "eac3" if name == "ac3" and content.at(offset + 5, 1)[0:1] >= b"\x58" else name
    if all(content.at(offset + number * _TS, 1) == b"\x47" for number in range(_SURE)):
        return "mpegts"
    if _chained(content, offset, _adts):
        return "aac"
    if _chained(content, offset, _loas):
        return "loas"
    return None


def check_complete(content: Content, offset: int, format: str, *, name: str) -> None:
    """AudioError when the container states more bytes than there are."""
    if format == "mov":
        _check_boxes(content, offset, name=name)
    elif format == "matroska":
        _check_segments(content, offset, name=name)
    elif format == "avi":
        size = int.from_bytes(content.at(offset + 4, 4), "little")
        if size < 0x7FFF_0000:  # else it was written to a pipe
            _check_size(content, offset, 8 + size, name=name)
    elif format == "asf":
        place = offset + 30
        for _ in range(int.from_bytes(content.at(offset + 24, 4), "little") & 0xFF):
            head = content.at(place, 48)
            if head.startswith(_ASF_FILE):
                _check_size(content, offset, int.from_bytes(head[40:48], "little"), name=name)
            place += max(24, int.from_bytes(head[16:24], "little"))


def _check_size(content: Content, offset: int, size: int, *, name: str) -> None:
    if offset + size > content.size:
        raise AudioError(
            f"{name}: cut off: {content.size - offset} of {size} bytes are there; "
            "copy or download it again"
        )


def _chained(content: Content, offset: int, length_of) -> bool:
    for number in range(_SURE):
        length = length_of(content.at(offset, 7))
        if length is None:
            return number > 0 and offset == content.size
        offset += length
    return True


def _adts(head: bytes) -> int | None:
    """Bytes of a frame of AAC with an ADTS header."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return None
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length >= 7 else None


def _loas(head: bytes) -> int | None:
    """Bytes of a frame of AAC in LATM with a LOAS header."""
    if len(head) < 3 or head[0] != 0x56 or head[1] & 0xE0 != 0xE0:
        return None
    return 3 + ((head[1] & 0x1F) << 8 | head[2])


def _check_boxes(content: Content, offset: int, *, name: str) -> None:
    kinds = set()
    for _ in range(_MOST_BOXES):
        head = content.at(offset, 16)
        if len(head) < 8 or not all(32 <= byte < 127 or byte == 0xA9 for byte in head[4:8]):
            break
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        kinds.add(head[4:8])
        if size == 0:
            break  # to the end of the file
        if size < 8:
            raise AudioError(
                f"{name}: damaged: its part {head[4:8].decode('latin-1')!r} at byte {offset} "
                f"states {size} bytes; copy or download it again"
            )
        if offset + size > content.size:
            raise AudioError(
                f"{name}: cut off: its part {head[4:8].decode('latin-1')!r} has "
                f"{content.size - offset} of {size} bytes; copy or download it again"
            )
        offset += size
    if b"mdat" in kinds and not kinds & {b"moov", b"moof"}:
        raise AudioError(
            f"{name}: cut off, or a recording that was not closed: its index ('moov') is missing; "
            "copy or record it again"
        )


def _check_segments(content: Content, offset: int, *, name: str) -> None:
    segments = 0
    while len(head := content.at(offset, 12)) > 4:
        ident, size, width = head[:4], *_vint(head[4:])
        if width == 0 or ident not in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\xec"):
            return
        segments += ident == b"\x18\x53\x80\x67"
        if size is None:
            return  # as long as the file
        if offset + 4 + width + size > content.size:
            raise AudioError(
                f"{name}: cut off: {content.size - offset - 4 - width} of {size} bytes are there; "
                "copy or download it again"
            )
        offset += 4 + width + size
        if segments and content.at(offset, 4) == b"\x1a\x45\xdf\xa3":
            raise AudioError(
                f"{name}: goes on with another file at byte {offset} of {content.size} (files "
                "joined together?); cut it there into two files"
            )


def _vint(data: bytes) -> tuple[int | None, int]:
    """A number of variable length of EBML and its bytes; None for "unknown"."""
    width = 9 - data[0].bit_length() if data and data[0] else 0
    if width == 0 or len(data) < width:
        return None, 0
    value = int.from_bytes(data[:width], "big") & (1 << 7 * width) - 1
    return (None if value == (1 << 7 * width) - 1 else value), width
