"""Folders of published datasets: which split, where a file may lie, what a folder holds."""

from collections.abc import Sequence
from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.readers.tables import need


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
