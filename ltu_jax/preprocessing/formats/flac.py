"""FLAC: whether its last frame lies where the stated length ends."""

from typing import NamedTuple

from ltu_jax.preprocessing.formats.splice import Content

_LARGEST = 1 << 17  # bytes of a frame looked at, where the header does not state the largest
# Codes of a frame's header (RFC 9639, section 9.1) -> samples, Hz and bits; 0 is the stream's own.
_BLOCKS = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)},
           **{code: 256 << code - 8 for code in range(8, 16)}}  # fmt: skip
_RATES = dict(enumerate((88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100,
                         48_000, 96_000), start=1))  # fmt: skip
_BITS = {1: 8, 2: 12, 4: 16, 5: 20, 6: 24, 7: 32}
_CRC8 = []
for _value in range(256):
    for _ in range(8):
        _value = _value << 1 ^ (0x107 if _value & 0x80 else 0)
    _CRC8.append(_value & 0xFF)


class _Stream(NamedTuple):
    """What STREAMINFO says of all frames."""

    blocksize: int  # the largest
    rate: int
    channels: int
    bits: int


def length_is_unsure(content: Content, start: int, end: int) -> bool:
    """Return whether the header states no length, or one that frames at the end lie behind."""
    head = content.at(start, 42)
    packed = int.from_bytes(head[18:26], "big")
    total = packed & (1 << 36) - 1
    if total == 0:
        return True
    stream = _Stream(
        blocksize=int.from_bytes(head[10:12], "big"),
        rate=packed >> 44,
        channels=(packed >> 41 & 7) + 1,
        bits=(packed >> 36 & 31) + 1,
    )
    largest = int.from_bytes(head[15:18], "big")
    begin = max(start + 42, end - min(largest or _LARGEST, _LARGEST) - 16)
    tail = content.at(begin, _LARGEST + 16)[: end - begin]
    place = len(tail)
    while (place := tail.rfind(b"\xff", 0, place)) >= 0:
        first = _first_sample(tail[place : place + 16], stream=stream)
        if first is not None:
            return first >= total
    return False


def _first_sample(head: bytes, *, stream: _Stream) -> int | None:
    """Return the number of a frame's first sample; None where no frame of this stream begins.

    Its 8 bits of CRC alone would take one in 256 of what only looks like a header for one.
    """
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    block, rate, channels, bits = head[2] >> 4, head[2] & 15, head[3] >> 4, head[3] >> 1 & 7
    if block == 0 or rate == 15 or bits == 3 or channels > 10:
        return None
    if (channels + 1 if channels < 8 else 2) != stream.channels:
        return None
    if bits and _BITS[bits] != stream.bits:
        return None
    ones = 8 - (~head[4] & 0xFF).bit_length()
    if ones == 1 or ones > 7:
        return None
    place = 5 + max(ones - 1, 0)
    number = head[4] & (0x7F >> ones)
    for byte in head[5:place]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    samples, place = _spelt_out(head, place, code=block, widths={6: 1, 7: 2})
    hertz, place = _spelt_out(head, place, code=rate, widths={12: 1, 13: 2, 14: 2})
    if _BLOCKS.get(block, samples + 1) > stream.blocksize:
        return None
    if rate and _RATES.get(rate, hertz * {12: 1000, 14: 10}.get(rate, 1)) != stream.rate:
        return None
    crc = 0
    for byte in head[:place]:
        crc = _CRC8[crc ^ byte]
    if len(head) <= place or crc != head[place]:
        return None
    return number if head[1] & 1 else number * stream.blocksize


def _spelt_out(head: bytes, place: int, *, code: int, widths: dict[int, int]) -> tuple[int, int]:
    """Return a number that stands behind the header where its code says so, and the next place."""
    width = widths.get(code, 0)
    return int.from_bytes(head[place : place + width], "big"), place + width
