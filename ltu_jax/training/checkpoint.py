"""Checkpoints that describe themselves: adapter, optimiser state, and one metadata.json.

    RUN/checkpoints/<step>/adapter/    Orbax: all adapter parameters, trained in this stage or not
                           optimizer/  Orbax: optimiser state and step
                           metadata.json  model, config, base weights by path and hash, file hashes
                           metadata.json.sha256  hash of that file, written last

Everything is written under a temporary name, flushed to disk and renamed as the last act, so a
folder with a number for a name was complete once. Orbax alone does not notice a flipped bit in
array data; `training/integrity.py` notices any.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ltu_jax.core.distributed import barrier, is_main, together
from ltu_jax.core.errors import shorten
from ltu_jax.core.trees import Params
from ltu_jax.training.integrity import (
    METADATA,
    CheckpointError,
    Damaged,
    check_files,
    flush,
    read_sealed,
    seal,
)
from ltu_jax.training.state import TrainState, state_shardings

FOLDER = "checkpoints"
KINDS = ("ltu-as-checkpoint", "tagger-checkpoint")
UNFINISHED = ".tmp-"  # how names begin that do not count
_LOOKS, _PAUSE = 10, 0.05  # when half of a checkpoint is deleted; seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """The right to write in a run folder: `check` raises once it is another's (`core/lock.py`).

    `poll` raises only if that is known already, and costs nothing. `name` is part of temporary
    names, so that two that both believe in theirs never mix files.
    """

    check: Callable[[], None] = lambda: None
    poll: Callable[[], None] = lambda: None
    name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """How often to save (in steps; 0 = only at the end) and how many checkpoints to keep.

    `allow_other_inputs`: go on though base weights, tokenizer or records are other ones than the
    checkpoint was made with.
    """

    every: int
    keep: int
    allow_other_inputs: bool


def save(
    run_dir: str | os.PathLike,
    *,
    state: TrainState,
    adapter: Params,
    metadata: Mapping[str, Any],
    keep: int,
    turn: Turn = Turn(),
) -> Path:
    """Write RUN/checkpoints/<step>, then delete all but the newest `keep`; returns its folder.

    `metadata` is what the caller knows (kind, stage, model, base, config, ...); format, step,
    parameter shapes and file hashes are added here. All processes must call it.

    Raises:
        LockedError: `turn` is over; nothing is left of this save, and nothing else is touched.
        CheckpointError: it could not be written.
    """
    optimizer = {"opt_state": state.opt_state, "step": state.step}
    trees = {"adapter": dict(adapter), "optimizer": optimizer}
    return _write(
        run_dir, step=int(state.step), trees=trees, metadata=metadata, keep=keep, turn=turn
    )


def save_adapter(
    run_dir: str | os.PathLike, *, adapter: Params, metadata: Mapping[str, Any]
) -> Path:
    """Write RUN/checkpoints/0 without optimiser state: a model to start from, not to resume."""
    return _write(run_dir, step=0, trees={"adapter": dict(adapter)}, metadata=metadata, keep=1)


def _write(
    run_dir: str | os.PathLike,
    *,
    step: int,
    trees: Mapping[str, Any],
    metadata: Mapping[str, Any],
    keep: int,
    turn: Turn = Turn(),
) -> Path:
    folder = Path(run_dir).resolve() / FOLDER
    own = f"{step}-{turn.name}" if turn.name else str(step)
    final, temporary = folder / str(step), folder / f"{UNFINISHED}{own}"
    what = f"step {step} cannot be saved"
    with _removed_after(temporary):
        with together(what), _told(final, turn):
            if is_main():
                turn.check()
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                _require_room(temporary, trees)
        with _quiet(), ocp.PyTreeCheckpointer() as writer:
            for name, tree in trees.items():
                writer.save(temporary / name, tree)
        barrier(f"checkpoint-{step}-written")
        with together(what), _told(final, turn):
            if is_main():
                shapes = {path: list(leaf.shape) for path, leaf in sorted(trees["adapter"].items())}
                seal(temporary, {**metadata, "step": step, "parameters": shapes})
                turn.check()
                _commit(temporary, final)
                for old in steps_in(run_dir)[:-keep]:
                    _remove(folder / str(old))
    return final


def _require_room(folder: Path, trees: Mapping[str, Any]) -> None:
    # Asked before, because TensorStore reports a full disk with thousands of lines on stderr.
    size, disk = sum(leaf.nbytes for leaf in jax.tree.leaves(trees)), shutil.disk_usage(folder)
    if disk.total and disk.free < size:  # some network disks do not tell (0)
        text = f"{size:,} bytes are needed and {disk.free:,} are free"
        raise OSError(errno.ENOSPC, text, str(folder))


def _commit(temporary: Path, final: Path) -> None:
    """Give a sealed folder its name; from here on it survives a crash of the machine."""
    if final.exists():
        _remove(final)
    os.rename(temporary, final)
    flush(final.parent)


def _remove(folder: Path) -> None:
    # Renamed first, so that a kill in between leaves nothing that looks like a checkpoint.
    gone = folder.with_name(f"{UNFINISHED}old-{folder.name}")
    shutil.rmtree(gone, ignore_errors=True)
    os.rename(folder, gone)
    shutil.rmtree(gone)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Orbax from printing the stack of an error that it raises as well."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _removed_after(temporary: Path) -> Iterator[None]:
    """Leave no half of a checkpoint that could not be written: its room may be needed."""
    try:
        yield
    finally:
        if is_main():
            _delete(temporary)


def _delete(temporary: Path) -> None:
    for _ in range(_LOOKS):  # TensorStore's threads may still be creating files in it
        if not temporary.exists():
            return
        shutil.rmtree(temporary, ignore_errors=True)
        time.sleep(_PAUSE)


@contextlib.contextmanager
def _told(final: Path, turn: Turn) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        turn.check()  # another may have cleared away what is missing now
        raise not_written(final, error) from error


def not_written(final: Path, error: BaseException) -> CheckpointError:
    """What to say when a checkpoint could not be written."""
    kept = [step for step in steps_in(final.parent.parent) if step != int(final.name)]
    reason = " ".join(str(error).split())
    if len(reason) > 400:  # TensorStore begins with what it did and ends with the cause
        reason = f"{reason[:150]} ... {reason[-250:]}"
    return CheckpointError(
        f"{final} could not be written: {reason}. The newest checkpoint is "
        f"{f'that of step {kept[-1]}' if kept else 'none'}; make room or repair the disk, and the "
        "same command goes on from there"
    )


def steps_in(run_dir: str | os.PathLike) -> list[int]:
    """Steps of the checkpoints of a run, ascending; whether they are good is not looked at."""
    folder = Path(run_dir) / FOLDER
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return sorted(int(name) for name in names if name.isdecimal())


def resolve(path: str | os.PathLike) -> Path:
    """The checkpoint folder that `path` means: itself, or the newest one of a run.

    Raises:
        CheckpointError: neither; the message says what was looked for.
    """
    path = Path(path).absolute()  # as Orbax demands
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
    """The checkpoint folder and its metadata; `verify` compares every file with its hash.

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
    """Hex SHA-256 that names a checkpoint's numbers: its files' hashes and its bases'."""
    bases = {name: entry["sha256"] for name, entry in metadata["base"].items()}
    text = json.dumps([metadata["files"], bases], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def load_adapter(path: str | os.PathLike, *, verify: bool = True) -> tuple[dict[str, Any], Params]:
    """Metadata and the adapter parameters as numpy arrays, of a checkpoint or of a run's newest."""
    folder, metadata = read_metadata(path, verify=verify)
    as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in metadata["parameters"]}
    # A checkpointer would wait for the other processes, which may have met an error before.
    reader = ocp.PyTreeCheckpointHandler()
    try:
        arguments = ocp.args.PyTreeRestore(restore_args=as_numpy)
        params = reader.restore(folder / "adapter", args=arguments)
    finally:
        reader.close()
    return metadata, {path: np.asarray(leaf) for path, leaf in params.items()}


def restore(
    path: str | os.PathLike, *, like: TrainState, mesh: jax.sharding.Mesh, verify: bool = True
) -> tuple[TrainState, dict[str, Any]]:
    """The state saved at `path`, shaped and laid out as `like`, and the metadata.

    Raises:
        CheckpointError: the checkpoint has other parameters or other sizes than `like`.
    """
    folder, metadata = read_metadata(path, verify=verify)
    check_sizes(metadata["parameters"], like.trainable, where=folder)
    if not (folder / "optimizer").is_dir():
        raise CheckpointError(
            f"{folder} was converted and has no optimiser state, so it cannot be resumed; start "
            f"from it in a run of its own: --config.init_from={folder.parent.parent} "
            "--config.run_dir=NEW"
        )
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        like,
        state_shardings(like, mesh=mesh),
    )
    everything = _restore(
        folder / "optimizer", {"opt_state": abstract.opt_state, "step": abstract.step}
    )
    wanted = dict(abstract.trainable)
    # Orbax restores whole trees: frozen adapter leaves are read and dropped.
    frozen = {
        name: jax.ShapeDtypeStruct(tuple(shape), np.float32, sharding=abstract.step.sharding)
        for name, shape in metadata["parameters"].items()
        if name not in wanted
    }
    adapter = _restore(folder / "adapter", {**wanted, **frozen})
    trainable = {name: adapter[name] for name in wanted}
    state = TrainState(
        step=everything["step"], trainable=trainable, opt_state=everything["opt_state"]
    )
    return state, metadata


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


def _restore(path: Path, item: Any) -> Any:
    arguments = ocp.checkpoint_utils.construct_restore_args(item)
    with ocp.PyTreeCheckpointer() as reader:
        return reader.restore(path, args=ocp.args.PyTreeRestore(item=item, restore_args=arguments))
