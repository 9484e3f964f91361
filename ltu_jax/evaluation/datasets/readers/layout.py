"""Folders of published datasets: which split, where a file may lie, what a folder holds."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.readers.tables import need

_NAMED = 5  # names that a message spells out before it counts the rest


def check_split(split: str, splits: Sequence[str], *, dataset: str) -> None:
    """`UserError` when the dataset has no such split."""
    if split not in splits:
        raise UserError(f"{dataset} has no split {split!r}: use one of {', '.join(splits)}")


def find(data: Path, places: Sequence[str], *, what: str) -> Path:
    """The first of `places` under `data` that exists; `UserError` with all of them if none does."""
    need(data, what=what)
    for place in places:
        if (data / place).exists():
            return data / place
    raise UserError(f"{data} has no {' or '.join(places)}: give {what}")


def visible(folder: Path) -> list[Path]:
    """What a folder holds, by name, without the `._` files that macOS leaves in archives."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: it should be one")
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
