"""Lines of text dealt out to numbered files, through a buffer of fixed size.

Memory does not depend on how many lines there are, and one file is open at a time.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

_BUFFER = 32 << 20  # characters of lines held before they go to their files


def deal_out(lines: Iterable[tuple[int, str]], folder: Path) -> None:
    """Write each line, given with a number, to the file of that number; a line feed ends it.

    The order of the lines is kept in each file; `folder` must not exist.
    """
    folder.mkdir()
    waiting: dict[int, list[str]] = {}
    held = 0

    def flush() -> None:
        for number, texts in waiting.items():
            with (folder / str(number)).open("a", encoding="utf-8", newline="\n") as file:
                file.writelines(texts)
        waiting.clear()

    for number, text in lines:
        waiting.setdefault(number, []).append(text)
        held += len(text)
        if held >= _BUFFER:
            flush()
            held = 0
    flush()


def read_lines(path: Path) -> Iterator[str]:
    """Read the lines of a file one by one, without their line feeds; none where there is no file.

    A carriage return ends no line.
    """
    if path.exists():
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n")
