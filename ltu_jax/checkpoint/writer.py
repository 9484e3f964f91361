"""Write checkpoints: everything under a temporary name, flushed to disk, renamed as the last act.

So a folder with a number for a name was complete once. A bucket cannot rename: there the files are
copied within the store, the seal as the last, and a folder without a seal is no checkpoint. Orbax
alone does not notice a flipped bit in array data; `checkpoint/integrity.py` notices any.
"""

import contextlib
import dataclasses
import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from ltu_jax.checkpoint.format import FOLDER, UNFINISHED, State, steps_in
from ltu_jax.checkpoint.integrity import SEAL, CheckpointError, flush, seal
from ltu_jax.core.distributed import barrier, is_main, together
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import absolute, copy_object, failures, files_below, is_remote, remove_tree
from ltu_jax.core.trees import Params

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


def save(
    run_dir: str | os.PathLike,
    *,
    state: State,
    adapter: Params,
    metadata: Mapping[str, Any],
    keep: int,
    turn: Turn = Turn(),
) -> Path:
    """Write RUN/checkpoints/<step>, delete all but the newest `keep`, and return its folder.

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
    folder = absolute(run_dir) / FOLDER
    own = f"{step}-{turn.name}" if turn.name else str(step)
    final, temporary = folder / str(step), folder / f"{UNFINISHED}{own}"
    problem = f"step {step} cannot be saved"
    with _removed_after(temporary):
        with together(problem), _explained(final, turn):
            if is_main():
                turn.check()
                _clear(temporary)
                if not is_remote(temporary):
                    temporary.mkdir(parents=True)
                    _require_room(temporary, trees)
        with _explained(final, turn), _quiet(), ocp.PyTreeCheckpointer() as writer:
            for name, tree in trees.items():
                writer.save(temporary / name, tree)
        barrier(f"checkpoint-{step}-written")
        with together(problem), _explained(final, turn):
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
    if is_remote(temporary):
        files = [path for path in files_below(temporary) if path != temporary / SEAL]
        for path in [*files, temporary / SEAL]:
            copy_object(path, final / path.relative_to(temporary))
        return
    os.rename(temporary, final)
    flush(final.parent)


def _remove(folder: Path) -> None:
    # A kill in between leaves nothing that looks like a checkpoint.
    if is_remote(folder):
        (folder / SEAL).unlink(missing_ok=True)
        remove_tree(folder)
        return
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
        if not _clear(temporary):
            return
        time.sleep(_PAUSE)


def _clear(temporary: Path) -> bool:
    """Delete a temporary folder as far as that goes; False where there is none."""
    there = False
    with contextlib.suppress(*failures(temporary)):  # the next start tidies
        there = temporary.exists()
        if is_remote(temporary):
            remove_tree(temporary)
        else:
            shutil.rmtree(temporary, ignore_errors=True)
    return there


@contextlib.contextmanager
def _explained(final: Path, turn: Turn) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Orbax, TensorStore and gcsfs raise errors of many types
        turn.check()  # another may have cleared away what is missing now
        raise not_written(final, error) from error


def not_written(final: Path, error: BaseException) -> CheckpointError:
    """Return the error of a checkpoint that could not be written."""
    try:
        others = [step for step in steps_in(final.parent.parent) if step != int(final.name)]
        newest = f"that of step {others[-1]}" if others else "none"
    except failures(final):  # what failed the save fails this too
        newest = "not known"
    except UserError as cause:  # the bucket is gone, which the error of a write does not say
        newest, error = "not known", cause
    reason = " ".join(str(error).split())
    if len(reason) > 400:  # TensorStore begins with what it did and ends with the cause
        reason = f"{reason[:150]} ... {reason[-250:]}"
    return CheckpointError(
        f"{final} could not be written: {reason}. The newest checkpoint is "
        f"{newest}; make room or repair the disk (of a bucket: the access to it), and the same "
        "command goes on from there"
    )
