"""Texts that are nearly the same, by MinHash: of pairs of three words, how many do two texts share?

Sixty-four hashes of a text's word triples are its signature; the share of equal ones estimates the
share of triples that two texts have in common. Texts with four equal hashes in a row of sixteen
are compared: of texts that share 80 %, 99.98 % are.
"""

import hashlib
import re
import zlib
from collections.abc import Iterator

import numpy as np

HASHES = 64
_BANDS = 16
_TRIPLE = 3
_NEIGHBOURS = 16  # earlier texts of a bucket that a text is compared with, beside its first
_AT_ONCE = 1 << 16  # comparisons
_WORD = re.compile(r"\w+")


def _constants(name: str) -> np.ndarray:
    digests = (hashlib.sha256(f"{name} {number}".encode()).digest() for number in range(HASHES))
    return np.array([int.from_bytes(digest[:8]) for digest in digests], np.uint64)


_FACTORS, _SUMMANDS = _constants("factor") | np.uint64(1), _constants("summand")


def normal(text: str) -> str:
    """Return the words of a text in lower case: what makes two texts the same."""
    return " ".join(_WORD.findall(text.lower()))


def signature(text: str) -> np.ndarray:
    """Return the signature of a text, uint32 [HASHES]."""
    words = _WORD.findall(text.lower())
    count = max(1, len(words) - _TRIPLE + 1)
    triples = {" ".join(words[place : place + _TRIPLE]) for place in range(count)}
    hashes = np.array([zlib.crc32(triple.encode()) for triple in sorted(triples)], np.uint64)
    mixed = hashes[:, None] * _FACTORS + _SUMMANDS  # modulo 2^64
    return (mixed >> np.uint64(32)).min(0).astype(np.uint32)


def near_duplicates(signatures: np.ndarray, *, threshold: float) -> np.ndarray:
    """Return which texts are nearly an earlier one that is itself kept, bool [texts].

    Args:
        signatures: of the texts, uint32 [texts, HASHES], in the order in which they are kept.
        threshold: share of equal hashes from which texts are nearly the same.
    """
    earlier: dict[int, list[int]] = {}
    for first, second in _candidates(signatures):
        for start in range(0, len(first), _AT_ONCE):
            one, other = first[start : start + _AT_ONCE], second[start : start + _AT_ONCE]
            near = (signatures[one] == signatures[other]).mean(1) >= threshold
            for early, late in zip(one[near].tolist(), other[near].tolist(), strict=True):
                earlier.setdefault(late, []).append(early)
    dropped = np.zeros(len(signatures), bool)
    for late in sorted(earlier):
        dropped[late] = not all(dropped[early] for early in earlier[late])
    return dropped


def _candidates(signatures: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield texts with an equal band, as arrays of earlier and of later ones."""
    width = HASHES // _BANDS
    for band in range(_BANDS):
        rows = np.ascontiguousarray(signatures[:, band * width : (band + 1) * width])
        keys = rows.view(f"V{4 * width}").ravel()
        _, keys = np.unique(keys, return_inverse=True)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else keys
        sizes = np.diff(np.r_[starts, len(keys)])
        firsts = np.repeat(starts, sizes)
        far = np.arange(len(keys)) - firsts > _NEIGHBOURS
        yield order[firsts[far]], order[far]
        for distance in range(1, _NEIGHBOURS + 1):
            same = np.flatnonzero(keys[distance:] == keys[:-distance])
            if not len(same):
                break
            yield order[same], order[same + distance]
