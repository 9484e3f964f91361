"""Find the checkpoints of a run, and read their metadata.

RUN/checkpoints/<step>/adapter/    Orbax: all adapter parameters, trained in this stage or not
                       optimizer/  Orbax: optimiser state and step
                       metadata.json  model, config, base weights by path and hash, file hashes
                       metadata.json.sha256  hash of that file, written last
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ltu_jax.checkpoint.integrity import (
    METADATA,
    SEAL,
    CheckpointError,
    Damaged,
    check_files,
    read_sealed,
)
from ltu_jax.core.axes import Array
from ltu_jax.core.errors import shorten
from ltu_jax.core.paths import as_path, is_remote, require_bucket
from ltu_jax.core.trees import Params

FOLDER = "checkpoints"
KINDS = ("ltu-as-checkpoint", "tagger-checkpoint")
UNFINISHED = ".tmp-"  # how names begin that do not count


class State(Protocol):
    """The state of training: the trainer's `TrainState`, of arrays or of their shapes."""

    step: Array
    trainable: Params
    opt_state: Any


def steps_in(run_dir: str | os.PathLike) -> list[int]:
    """Return the steps of a run's checkpoints, ascending, whether they are good or damaged.

    In a bucket, where a folder takes its name file by file, one without its seal is no checkpoint.

    Raises:
        UserError: the bucket is gone.
    """
    folder = as_path(run_dir) / FOLDER
    if not folder.is_dir():
        require_bucket(folder)
        return []
    numbered = [entry for entry in folder.iterdir() if entry.name.isdecimal()]
    complete = _sealed if is_remote(folder) else Path.is_dir
    return sorted(int(entry.name) for entry in numbered if complete(entry))


def _sealed(folder: Path) -> bool:
    return (folder / SEAL).exists()


def resolve(path: str | os.PathLike) -> Path:
    """Return the checkpoint folder that `path` means: itself, or the newest one of a run.

    Raises:
        CheckpointError: neither; the message says what was looked for.
    """
    path = as_path(path)
    path = path if is_remote(path) else path.absolute()  # as Orbax demands
    numbered = path.parent.name == FOLDER and path.name.isdecimal()
    if (path / METADATA).is_file() or (numbered and path.is_dir()):
        return path
    folder = path if path.name == FOLDER else path / FOLDER
    steps = steps_in(folder.parent)
    if not steps:
        state = "has no" if path.exists() else "does not exist, so there is no"
        raise CheckpointError(
            f"{path} {state} {METADATA} and no {FOLDER}/<step>/{METADATA}: give a run folder or "
            "one of its checkpoints (runs are made by `python -m ltu_jax.train`)"
        )
    return folder / str(steps[-1])


def read_metadata(path: str | os.PathLike, *, verify: bool = True) -> tuple[Path, dict[str, Any]]:
    """Read the metadata of the checkpoint that `path` means; returns its folder too.

    `verify` compares every file with its hash.

    Raises:
        Damaged: files are missing or changed; they are named.
        CheckpointError: not a checkpoint, or written by another format.
    """
    folder = resolve(path)
    try:
        metadata = read_sealed(folder)
        if verify:
            check_files(folder, metadata)
    except Damaged as error:
        raise Damaged(
            f"{error}; training sets it aside and goes on from the one before it; "
            f"`python -m ltu_jax.convert verify {folder.parent}` names the good ones"
        ) from error
    if metadata.get("kind") not in KINDS:
        raise CheckpointError(
            f"{folder / METADATA}: kind {metadata.get('kind')!r} is none of {', '.join(KINDS)}"
        )
    return folder, metadata


def identity(metadata: Mapping[str, Any]) -> str:
    """Return a hex SHA-256 over the hashes of a checkpoint's files and of its base weights."""
    bases = {name: entry["sha256"] for name, entry in metadata["base"].items()}
    text = json.dumps([metadata["files"], bases], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_sizes(
    saved: Mapping[str, list[int]], expected: Mapping[str, Any], *, where: str | os.PathLike
) -> None:
    """Compare saved shapes with those of `expected`, whose paths must all be there.

    Raises:
        CheckpointError: names missing and differing parameters with both shapes.
    """
    missing = [path for path in expected if path not in saved]
    if missing:
        raise CheckpointError(
            f"{where} lacks {len(missing)} parameters of this model: {shorten(missing)}; "
            "it is of another stage or of another model config"
        )
    differing = [
        f"{path} is {tuple(saved[path])} there and {tuple(leaf.shape)} here"
        for path, leaf in expected.items()
        if tuple(saved[path]) != tuple(leaf.shape)
    ]
    if differing:
        raise CheckpointError(
            f"{where} is of another size: {shorten(differing)}; "
            "use the config it was trained with (its metadata.json has it) or another checkpoint"
        )
