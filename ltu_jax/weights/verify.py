"""`convert verify`: whether a folder is as `convert` or training wrote it.

A weights directory and a checkpoint name the SHA-256 of their files. An export is in a foreign
format that has no place for them, so they lie beside it in SHA256SUMS, as sha256sum writes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ltu_jax.checkpoint import recovery
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_file, sha256_file
from ltu_jax.weights import store, usable
from ltu_jax.weights.files import shards
from ltu_jax.weights.makers import SUMS
from ltu_jax.weights.tensors import WeightsError, finite, require_floats

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True, kw_only=True)
class FolderCheck:
    """What was found of one folder; `problem` is empty where it is good."""

    folder: Path
    files: int
    size: int
    problem: str
    checkpoint: bool = False


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of every file of an exported folder beside them."""
    names = sorted(file.name for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    lines = "".join(f"{sha256_file(folder / name)}  {name}\n" for name in names)
    with atomic_file(folder / SUMS) as file:
        file.write_text(lines, encoding="utf-8")


def verify(path: Path) -> list[FolderCheck]:
    """Check a weights directory, an exported folder, or the checkpoints of runs; nothing changes.

    Raises:
        UserError: none of them.
    """
    if path.is_dir() and store.is_weights_dir(path):
        return [_verdict(path, _weights_problem(path))]
    if path.is_dir() and (path / SUMS).is_file():
        return [_verdict(path, _sums_problem(path))]
    if path.is_dir() and any(_weight_files(path)):
        return [_verdict(path, _reading_problem(path))]
    return [FolderCheck(**vars(one), checkpoint=True) for one in recovery.survey(path)]


def _weight_files(path: Path) -> Iterator[Path]:
    return (file for file in sorted(path.iterdir()) if file.suffix in _WEIGHTS and file.is_file())


def _verdict(path: Path, problem: str) -> FolderCheck:
    files = [file for file in path.iterdir() if file.is_file()]
    return FolderCheck(
        folder=path,
        files=len(files),
        size=sum(file.stat().st_size for file in files),
        problem=problem,
    )


def _weights_problem(path: Path) -> str:
    try:
        store.load_weights(path, verify=False)
        for name, digest in store.read_header(path)["sha256"].items():
            shards.check_sha256(path / name, expected=digest)  # read, though the hash be known
        usable.check(path, name=str(path))
    except UserError as error:
        return str(error)
    return ""


def _sums_problem(path: Path) -> str:
    for number, line in enumerate((path / SUMS).read_text(encoding="utf-8").splitlines(), 1):
        digest, _, name = line.partition("  ")
        # a plain name: anything else could read outside the folder
        if not name or Path(name).name != name:
            return f"line {number} of {path / SUMS} is not a hash and a file of this folder"
        if not (path / name).is_file():
            return f"{path / name} is missing"
        if (found := sha256_file(path / name)) != digest:
            return f"{path / name} was changed: its sha256 is {found}, {SUMS} says {digest}"
    return ""


def _reading_problem(path: Path) -> str:
    """Read every tensor of a folder without hashes, and require numbers."""
    try:
        for file in _weight_files(path):
            tensors = shards.read_file(file)
            require_floats(tensors, what=str(file))
            for name, tensor in tensors.items():
                for _ in finite(tensor, name, what=str(file)).parts():
                    pass
        if any((path / name).is_file() for pair in shards.PAIRS for name in pair):
            shards.read_checkpoint(path)  # an index and its shards
    except WeightsError as error:
        return str(error)
    return ""
