"""Write under a temporary name beside a place, then take the place whole or not at all.

    DIR/.tmp-NAME-<host, name>-<random>/new      the output that is being written
                                        /old/NAME the old one, while the two change places

The writing process holds a lock on this folder, which goes with the process. The next process thus
knows what a killed one left: it puts an `old` back if its place is empty, and deletes the rest.
Folders that are locked, or another host's, are let alone.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

NEW, OLD = "new", "old"
_LONGEST = 60  # bytes of the name that a temporary name has
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h


@contextlib.contextmanager
def staging(place: Path) -> Iterator[Path]:
    """Yield an empty folder beside `place` to work in; delete it afterwards, whatever happens."""
    place.parent.mkdir(parents=True, exist_ok=True)
    clear(place.parent, name=place.name)
    folder, lock = _make(place)
    try:
        yield folder
    finally:
        _end(folder)
        os.close(lock)


def clear(parent: Path, *, name: str | None = None) -> None:
    """Delete what killed processes of this host left in `parent`, of all names or of one."""
    own = _host() + ("[0-9a-f]{8}" if name is None else _digest(name))
    pattern = re.compile(rf"\.tmp-.*-{own}-[0-9a-f]{{8}}", re.DOTALL)
    try:
        left = [entry.name for entry in os.scandir(parent) if pattern.fullmatch(entry.name)]
    except OSError:  # it is not there, or may not be listed: then nothing can be put back either
        return
    for leftover in left:
        with contextlib.suppress(OSError):
            lock = _lock(parent / leftover, fresh=False)
            if lock is not None:
                try:
                    _end(parent / leftover)
                finally:
                    os.close(lock)


def swap(new: Path, place: Path) -> None:
    """Move the folder `new`, of a staging folder, to `place`, and what is there out of the way.

    Where the system can exchange two names, one of the two is at `place` at every moment.
    Elsewhere the old one is in the staging folder alone for a moment, from where it is put back.
    """
    if not os.path.lexists(place):
        os.rename(new, place)
    elif not _exchange(new, place):
        old = new.parent / OLD
        old.mkdir()
        os.rename(place, old / place.name)
        os.rename(new, place)


def _make(place: Path) -> tuple[Path, int | None]:
    """Make a staging folder and take its lock."""
    start = os.fsencode(place.name)[:_LONGEST].decode(errors="ignore")
    while True:
        name = f".tmp-{start}-{_host()}{_digest(place.name)}-{secrets.token_hex(4)}"
        folder = place.parent / name
        folder.mkdir()
        with contextlib.suppress(FileNotFoundError):  # another one cleared it before it was locked
            lock = _lock(folder, fresh=True)
            if lock is not None:
                return folder, lock


def _lock(folder: Path, *, fresh: bool) -> int | None:
    """Open and lock a folder; None where another process has it or the folder is gone.

    On a disk without locks the maker of a folder (`fresh`) has the lock, and nobody else ever.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:
        if fresh:
            return lock
        os.close(lock)
        return None
    if os.path.exists(folder):  # not deleted by the one that had the lock before
        return lock
    os.close(lock)
    return None


def _end(folder: Path) -> None:
    """Put the old output back if its place is empty, then delete the staging folder."""
    with contextlib.suppress(FileNotFoundError):
        for old in (folder / OLD).iterdir():
            if not os.path.lexists(folder.parent / old.name):
                os.rename(old, folder.parent / old.name)
    shutil.rmtree(folder, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one act; False where that cannot be done."""
    if sys.platform != "linux":
        return False
    call = getattr(ctypes.CDLL(None), "renameat2", None)
    if call is None:
        return False
    names = (os.fsencode(first), os.fsencode(second))
    return call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0


def _host() -> str:
    return _digest(socket.gethostname())


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]
