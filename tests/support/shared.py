"""A folder of this run of the suite, for what is made once: by one worker, for all."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_FOLDER = "LTU_JAX_TESTS_FOLDER"  # workers and subprocesses find it in their environment

_owner: int | None = None


def folder() -> Path:
    """Return the folder, made by the first process that asks."""
    global _owner
    if _FOLDER not in os.environ:
        os.environ[_FOLDER] = tempfile.mkdtemp(prefix="ltu-jax-tests-")
        _owner = os.getpid()
    return Path(os.environ[_FOLDER])


def remove_folder() -> None:
    """Remove the folder if this process made it."""
    if _owner == os.getpid():
        shutil.rmtree(os.environ.pop(_FOLDER), ignore_errors=True)


def built_once(name: str, build: Callable[[Path], object]) -> Path:
    """Return the subfolder `name`, which the first worker that asks builds. Read only: copy it."""
    place = folder() / name
    with (folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            building = place.with_name(f"{name}.building")
            shutil.rmtree(building, ignore_errors=True)  # of an attempt that failed
            building.mkdir()
            build(building)
            building.rename(place)
    return place
