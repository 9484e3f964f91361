"""Tables for the terminal: texts to the left, numbers to the right with commas."""

from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return the rows under their heads, in columns as wide as need be."""
    texts = [[_text(value) for value in row] for row in rows]
    wide = [max(map(len, column)) for column in zip(heads, *texts, strict=True)]
    numbers = [
        all(isinstance(value, int | float) or value in ("", "-") for value in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(heads)
    return "\n".join(
        "  ".join(
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, wide, numbers, strict=True)
        ).rstrip()
        for row in [heads, *texts]
    )


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
