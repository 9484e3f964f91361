"""Find the newest checkpoint of a run whose files are those that were written.

Damaged ones are not deleted: `<step>` becomes `<step>.damaged-<n>`, which nothing reads again.
"""

import dataclasses
import os
from pathlib import Path

from ltu_jax.checkpoint.format import FOLDER, UNFINISHED, steps_in
from ltu_jax.checkpoint.integrity import (
    METADATA,
    SEAL,
    CheckpointError,
    Damaged,
    check_files,
    read_sealed,
)
from ltu_jax.core.distributed import AgreedError, barrier, is_main, tell, together
from ltu_jax.core.paths import (
    absolute,
    as_path,
    failures,
    files_below,
    is_remote,
    move_tree,
    reason,
    remove_tree,
    size_of,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepCheck:
    """The result of checking one checkpoint; `problem` is empty where it is good."""

    folder: Path
    files: int
    size: int
    problem: str


def newest_good(run_dir: str | os.PathLike) -> int | None:
    """Return the newest step of a run whose every file is as it was saved; None without any.

    Damaged ones that are newer are set aside, and stderr says so and how many steps that costs.
    All processes must call it; what one of them finds damaged is so for all.

    Raises:
        CheckpointError: all are damaged (they are set aside, so the next start is a new one), one
            cannot be read or not be renamed, or half of one cannot be deleted.
    """
    folder = absolute(run_dir) / FOLDER
    steps = steps_in(run_dir)
    with together(f"{folder} cannot be tidied"):
        if is_main():
            _tidy(folder)
    for step in reversed(steps):
        problem = _problem(folder / str(step))
        if not problem:
            if step != steps[-1]:
                tell(f"going on from step {step}: {steps[-1] - step} steps are lost")
            return step
        _set_aside(folder / str(step), problem=problem)
    if steps:
        raise AgreedError(
            f"{folder}: no good checkpoint is left, {steps[-1]} steps are lost; the damaged ones "
            f"were set aside ({', '.join(f'{step}.damaged-*' for step in steps)}). The same "
            "command now begins anew"
        )
    return None


def _tidy(folder: Path) -> None:
    """Delete what a process left that was killed while it saved."""
    for left in _unfinished(folder):
        try:
            remove_tree(left)
        except failures(folder) as error:
            raise CheckpointError(
                f"{left}, half of a checkpoint, cannot be deleted ({reason(error)}); repair the "
                "disk or delete it"
            ) from error


def _unfinished(folder: Path) -> list[Path]:
    """List what no complete save has left; in a bucket also numbers without a seal."""
    if not folder.is_dir():
        return []
    complete = set(map(str, steps_in(folder.parent)))
    return [
        entry
        for entry in folder.iterdir()
        if entry.name.startswith(UNFINISHED)
        or (is_remote(folder) and entry.name.isdecimal() and entry.name not in complete)
    ]


def _problem(folder: Path) -> str:
    """Return the damage that any process finds in a checkpoint; "" where none does."""
    mine = ""
    with together(f"{folder} cannot be checked"):
        try:
            check_files(folder, read_sealed(folder))
        except Damaged as error:
            mine = str(error)
    try:
        with together(f"{folder} is damaged"):
            if mine:
                raise Damaged(mine)
    except (Damaged, AgreedError) as error:
        return str(error)
    return ""


def _set_aside(folder: Path, *, problem: str) -> None:
    barrier(f"set-aside-{folder.name}")  # nobody reads it any more
    with together(f"{folder} cannot be set aside"):
        if is_main():
            count = sum(1 for _ in folder.parent.glob(f"{folder.name}.damaged-*"))
            aside = folder.with_name(f"{folder.name}.damaged-{count + 1}")
            try:
                if is_remote(folder):
                    (folder / SEAL).unlink(missing_ok=True)  # half of it is no checkpoint
                move_tree(folder, aside)
            except failures(folder) as error:
                raise CheckpointError(
                    f"{problem}; it cannot be renamed to {aside.name} ({reason(error)}): move it "
                    "away"
                ) from error
            tell(f"{problem}; set aside as {aside.name}")


def survey(path: str | os.PathLike) -> list[StepCheck]:
    """Check every file of a checkpoint, of all checkpoints of a run, or of all runs in a folder.

    Nothing is changed.

    Raises:
        CheckpointError: there is none, or one cannot be read.
    """
    path = as_path(path)
    path = path if is_remote(path) else path.absolute()
    folders = _checkpoints(path)
    if not folders:
        folders = [folder for run in _folders(path) for folder in _checkpoints(run)]
    if not folders:
        raise CheckpointError(
            f"{path} has no {FOLDER}/<step>: give a run, a folder of runs, or one checkpoint"
        )
    return [_check(folder) for folder in folders]


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []


def _checkpoints(path: Path) -> list[Path]:
    if (path / METADATA).is_file() or (path.parent.name == FOLDER and path.is_dir()):
        return [path]
    run = path.parent if path.name == FOLDER else path
    return [run / FOLDER / str(step) for step in steps_in(run)]


def _check(folder: Path) -> StepCheck:
    problem = ""
    try:
        check_files(folder, read_sealed(folder))
    except Damaged as error:
        problem = str(error)
    sizes = [size_of(file) for file in files_below(folder)]
    return StepCheck(folder=folder, files=len(sizes), size=sum(sizes), problem=problem)
