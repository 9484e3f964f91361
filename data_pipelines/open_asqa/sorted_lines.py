"""Lines under names, sorted by name in bounded memory: runs are sorted, written and merged."""

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path

_RUN = 64 << 20  # characters of lines that are sorted in memory
_MARK = "\t"


def in_order(lines: Iterable[tuple[str, str]], folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, line) by name, those of one name in the order in which they came.

    Args:
        lines: names without tabs or line feeds, and lines without line feeds.
        folder: an empty folder for runs.
    """
    runs: list[Path] = []
    waiting: list[tuple[str, str]] = []
    held = 0
    for name, line in lines:
        waiting.append((name, line))
        held += len(name) + len(line)
        if held >= _RUN:
            runs.append(_written(waiting, folder / f"{len(runs):06d}"))
            waiting, held = [], 0
    waiting.sort(key=_name)
    # merge keeps the order of the runs for equal names.
    yield from heapq.merge(*map(_read, runs), waiting, key=_name)


def _name(entry: tuple[str, str]) -> str:
    return entry[0]


def _written(lines: list[tuple[str, str]], path: Path) -> Path:
    lines.sort(key=_name)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{name}{_MARK}{line}\n" for name, line in lines)
    return path


def _read(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            name, _, rest = line.rstrip("\n").partition(_MARK)
            yield name, rest
