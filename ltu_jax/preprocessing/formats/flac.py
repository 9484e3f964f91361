"""FLAC: whether its last frame lies where the stated length ends."""

from ltu_jax.preprocessing.formats.splice import Content

_LARGEST = 1 << 17  # bytes of a frame looked at, where the header does not state the largest
_BLOCKS = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)},
           **{code: 256 << code - 8 for code in range(8, 16)}}  # fmt: skip
_CRC8 = []
for _value in range(256):
    for _ in range(8):
        _value = _value << 1 ^ (0x107 if _value & 0x80 else 0)
    _CRC8.append(_value & 0xFF)


def length_is_unsure(content: Content, start: int, end: int) -> bool:
    """Whether the header states no length, or one that frames at the end lie behind."""
    head = content.at(start, 42)
    total = int.from_bytes(head[21:26], "big") & (1 << 36) - 1
    if total == 0:
        return True
    blocksize, largest = int.from_bytes(head[10:12], "big"), int.from_bytes(head[15:18], "big")
    tail = content.at(max(start + 42, end - min(largest or _LARGEST, _LARGEST) - 16), _LARGEST + 16)
    tail = tail[: end - max(start + 42, end - min(largest or _LARGEST, _LARGEST) - 16)]
    place = len(tail)
    while (place := tail.rfind(b"\xff", 0, place)) >= 0:
        first = _first_sample(tail[place : place + 16], blocksize=blocksize)
        if first is not None:
            return first >= total
    return False


def _first_sample(head: bytes, *, blocksize: int) -> int | None:
    """The number of a frame's first sample; None when no frame begins here (its CRC tells)."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    block, rate = head[2] >> 4, head[2] & 15
    if block == 0 or rate == 15 or head[3] >> 4 > 10:
        return None
    ones = 8 - (~head[4] & 0xFF).bit_length()
    if ones == 1 or ones > 7:
        return None
    more = max(ones - 1, 0)
    number = head[4] & (0x7F >> ones)
    for byte in head[5 : 5 + more]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    place = 5 + more + {6: 1, 7: 2}.get(block, 0) + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    crc = 0
    for byte in head[:place]:
        crc = _CRC8[crc ^ byte]
    if len(head) <= place or crc != head[place]:
        return None
    return number if head[1] & 1 else number * blocksize
