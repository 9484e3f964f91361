"""Write batches of skipped steps to RUN/bad_batches/step-<step>.npz, and read them again.

A file holds the global batch as the step got it and one JSON text of facts. Reading trusts
nothing: no pickle, no compression, no header that claims more than the file has.
"""

import dataclasses
import json
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ltu_jax.core import staging
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_file
from ltu_jax.core.paths import as_path, is_remote, modified

FOLDER = "bad_batches"
_FACTS, _ARRAYS = "facts", "arrays"
_MOST_BYTES = 8 << 30
_MOST_ARRAYS = 32
_KINDS = "biuf"
# What zipfile, numpy and json raise for bytes that are not theirs; encryption is a RuntimeError.
_ERRORS = (zipfile.BadZipFile, ValueError, TypeError, KeyError, EOFError, OSError, RuntimeError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadStep:
    """The facts of a skipped step; `rows` names the rows of its global batch."""

    stage: str
    step: int
    reason: str
    loss: float
    grad_norm: float
    rows: tuple[str, ...]


def path_of(run_dir: str | os.PathLike, step: int) -> Path:
    """Return the file for the batch of a step."""
    return as_path(run_dir) / FOLDER / f"step-{step:08d}.npz"


def save_batch(
    run_dir: str | os.PathLike, batch: Mapping[str, np.ndarray], *, facts: BadStep, keep: int
) -> Path:
    """Write a global batch, then delete all but the newest `keep`; returns its file."""
    path = path_of(run_dir, facts.step)
    # JSON has no nan and no inf.
    numbers = {name: repr(getattr(facts, name)) for name in ("loss", "grad_norm")}
    text = json.dumps({**dataclasses.asdict(facts), **numbers, _ARRAYS: sorted(batch)})
    if not is_remote(path):
        staging.clear(path.parent)  # what a killed run left of another step
    with atomic_file(path) as temporary:
        np.savez(temporary, **{_FACTS: np.frombuffer(text.encode(), np.uint8)}, **batch)
    others = sorted(path.parent.glob("step-*.npz"), key=modified)
    for old in [other for other in others if other != path][: max(0, len(others) - keep)]:
        old.unlink()
    return path


def read_batch(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], BadStep]:
    """Read the arrays and the facts of a file of `save_batch`.

    Raises:
        UserError: not such a file, or one that was changed.
    """
    path = as_path(path)
    if not path.is_file():
        raise UserError(f"--replay: there is no file {path}; give one of RUN/{FOLDER}")
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            arrays = {info.filename: _array(archive, info) for info in _members(archive)}
        facts = json.loads(arrays.pop(f"{_FACTS}.npy").tobytes().decode())
        arrays = {name.removesuffix(".npy"): array for name, array in arrays.items()}
        if not isinstance(facts, dict) or facts.pop(_ARRAYS) != sorted(arrays):
            raise ValueError(f"it holds {', '.join(sorted(arrays)) or 'nothing'}")
        facts = BadStep(
            **{
                **facts,
                "step": int(facts["step"]),
                "loss": float(facts["loss"]),
                "grad_norm": float(facts["grad_norm"]),
                "rows": tuple(map(str, facts["rows"])),
            }
        )
    except _ERRORS as error:
        raise UserError(
            f"{path} is not a batch of a skipped step ({error}); give a file of RUN/{FOLDER}"
        ) from error
    return arrays, facts


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > _MOST_ARRAYS or sum(info.file_size for info in members) > _MOST_BYTES:
        raise ValueError(f"more than {_MOST_ARRAYS} arrays or {_MOST_BYTES:,} bytes")
    if len({info.filename for info in members}) < len(members):
        raise ValueError("an array twice")
    return members


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"{info.filename} is compressed")
    with archive.open(info) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{info.filename} is of another format")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.kind not in _KINDS or fortran or not shape:
            raise ValueError(f"{info.filename} holds {shape} of {dtype}")
        size = math.prod(shape) * dtype.itemsize
        if size != info.file_size - file.tell():  # before anything of that size is allocated
            raise ValueError(f"{info.filename} claims {shape} of {dtype}")
        return np.frombuffer(file.read(), dtype).reshape(shape)


def not_finite(batch: Mapping[str, np.ndarray]) -> list[str]:
    """Name the arrays of a batch that have entries which are not finite, and their rows."""
    names = []
    for name, array in batch.items():
        wrong = ~np.isfinite(array).reshape(len(array), -1)
        if wrong.any():
            rows = ", ".join(map(str, np.flatnonzero(wrong.any(axis=1))))
            names.append(f"{name}: {int(wrong.sum())} entries in rows {rows}")
    return names
