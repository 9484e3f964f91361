"""Ogg by its pages: the links of a chained file, and how many streams each has."""

from dataclasses import dataclass

from ltu_jax.preprocessing.formats.sound import AudioError
from ltu_jax.preprocessing.formats.splice import Content

_BEGIN, _HEAD = 2, 27


@dataclass
class Link:
    """One of the files that lie behind one another in a chained file."""

    start: int
    end: int
    streams: int = 1


def links(content: Content, start: int, end: int, *, name: str) -> list[Link]:
    """The links from `start` to `end`; what is not made of pages belongs to the last one.

    Raises:
        AudioError: the last page is cut off.
    """
    chain: list[Link] = []
    offset, beginning = start, False
    while offset < end:
        head = content.at(offset, _HEAD + 255)
        if len(head) < _HEAD or head[:4] != b"OggS":
            break
        size = _HEAD + head[26] + sum(head[_HEAD : _HEAD + head[26]])
        if offset + size > end:
            raise AudioError(
                f"{name}: damaged or cut off (its last page has {end - offset} of {size} bytes); "
                "copy or download it again"
            )
        if head[5] & _BEGIN:
            if chain and beginning:
                chain[-1].streams += 1
            else:
                chain.append(Link(offset, end))
                if len(chain) > 1:
                    chain[-2].end = offset
        beginning = bool(head[5] & _BEGIN)
        offset += size
    return chain or [Link(start, end)]
