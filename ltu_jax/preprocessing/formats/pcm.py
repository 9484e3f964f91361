"""AIFF and AU by their headers: whether samples lie behind those that the header states."""

from ltu_jax.preprocessing.formats import tags
from ltu_jax.preprocessing.formats.sound import LOST_SECONDS, AudioError
from ltu_jax.preprocessing.formats.splice import Content

_UNKNOWN = (1 << 32) - 1
_MOST_CHUNKS = 10_000
_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}  # of a sample, by encoding


def check_all_stated(content: Content, start: int, *, name: str) -> None:
    """AudioError naming both lengths when a header states less than there is."""
    head = content.at(start, 24)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        _check_aiff(content, start, name=name)
    elif head[:4] == b".snd" and len(head) == 24:
        offset, size, encoding, rate, channels = (
            int.from_bytes(head[at : at + 4], "big") for at in range(4, 24, 4)
        )
        block = channels * _AU_BYTES.get(encoding, 0)
        if block and rate and size != _UNKNOWN:
            there = content.size - start - offset
            _compare(size // block, there // block, rate=rate, name=name)


def _check_aiff(content: Content, start: int, *, name: str) -> None:
    offset, frames, block, rate, begin = start + 12, 0, 0, 0.0, None
    for _ in range(_MOST_CHUNKS):
        offset = tags.skip(content, offset)
        head = content.at(offset, 34)
        if len(head) < 8 or not all(32 <= byte < 127 for byte in head[:4]):
            break
        size = int.from_bytes(head[4:8], "big")
        if head[:4] == b"COMM":
            channels, bits = (int.from_bytes(head[at : at + 2], "big") for at in (8, 14))
            frames = int.from_bytes(head[10:14], "big")
            exponent, mantissa = (
                int.from_bytes(part, "big") for part in (head[16:18], head[18:26])
            )
            rate = mantissa * 2.0 ** min(exponent - 16_383 - 63, 0)
            kind = head[26:30] if size >= 22 else b"NONE"
            known = kind in (b"NONE", b"sowt", b"twos", b"fl32", b"FL32", b"fl64", b"in24", b"in32")
            block = channels * -(-bits // 8) if known else 0
        elif head[:4] == b"SSND":
            begin = offset + 16 + int.from_bytes(head[8:12], "big")
        if offset + 8 + size > content.size:
            return  # cut off, as libsndfile finds
        offset += 8 + size + size % 2
    behind = content.size - offset
    if begin is None or not block or not rate or content.zeros(max(offset, 0)) >= behind > 0:
        return
    # What lies behind the last chunk, which no chunk claims, may be samples.
    if behind > 0:
        _compare(frames, (content.size - begin) // block, rate=rate, name=name)


def _compare(stated: int, there: int, *, rate: float, name: str) -> None:
    if there - stated > LOST_SECONDS * rate:
        raise AudioError(
            f"{name}: its header states {stated / rate:.2f} s of {there / rate:.2f} s (a recorder "
            "that died?); open it as raw samples in an audio editor and export it again"
        )
