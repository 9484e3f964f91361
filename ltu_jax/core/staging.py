"""Work under a temporary name beside its place, which takes the place whole or not at all.

    DIR/.tmp-NAME-<host, name>-<random>/new      what is being written
                                        /old/NAME what stood there, while the two change places

The process that works in such a folder holds a lock on it, which goes with the process. So the
next one knows what a killed one left: it puts an `old` back whose place is empty, and deletes the
rest. A folder that is locked, or another host's, is let alone.
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
_LONGEST = 60  # bytes of the name that are shown
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h


@contextlib.contextmanager
def staging(place: Path) -> Iterator[Path]:
    """Yield an empty folder beside `place` to work in; it is gone afterwards, whatever happens."""
    place.parent.mkdir(parents=True, exist_ok=True)
    clear(place.parent, name=place.name)
    folder, lock = _make(place)
    try:
        yield folder
    finally:
        _end(folder)
        os.close(lock)


def clear(parent: Path, *, name: str | None = None) -> None:
    """Tidy up after killed processes of this host: in all of `parent`, or for one name in it."""
    own = _host() + ("[0-9a-f]{8}" if name is None else _digest(name))
    pattern = re.compile(rf"\.tmp-.*-{own}-[0-9a-f]{{8}}", re.DOTALL)
    try:
        left = [entry.name for entry in os.scandir(parent) if pattern.fullmatch(entry.name)]
    except OSError:  # it is not there, or may not be listed: then nothing can be put back either
        return
    for one in left:
        with contextlib.suppress(OSError):
            lock = _lock(parent / one, fresh=False)
            if lock is not None:
                try:
                    _end(parent / one)
                finally:
                    os.close(lock)


def swap(new: Path, place: Path) -> None:
    """Let the folder `new`, which lies in a staging folder, take the place of what is there.

    Where the system can exchange two names, one of the two is under `place` at every moment.
    Elsewhere the old one is for a moment in the staging folder alone, from where it is put back.
    """
    if not os.path.lexists(place):
        os.rename(new, place)
    elif not _exchange(new, place):
        old = new.parent / OLD
        old.mkdir()
        os.rename(place, old / place.name)
        os.rename(new, place)


def _make(place: Path) -> tuple[Path, int | None]:
    """A staging folder and its lock, held by this process."""
    shown = os.fsencode(place.name)[:_LONGEST].decode(errors="ignore")
    while True:
        name = f".tmp-{shown}-{_host()}{_digest(place.name)}-{secrets.token_hex(4)}"
        folder = place.parent / name
        folder.mkdir()
        with contextlib.suppress(FileNotFoundError):  # another one cleared it before it was locked
            lock = _lock(folder, fresh=True)
            if lock is not None:
                return folder, lock


def _lock(folder: Path, *, fresh: bool) -> int | None:
    """The open lock of a folder; None where another process has it or the folder is gone.

    On a disk without locks whoever made a folder (`fresh`) has it, and nobody else ever.
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
    """Delete a staging folder, after what stood in its place was put back, if nothing is there."""
    with contextlib.suppress(FileNotFoundError):
        for kept in (folder / OLD).iterdir():
            if not os.path.lexists(folder.parent / kept.name):
                os.rename(kept, folder.parent / kept.name)
    shutil.rmtree(folder, ignore_errors=True)


def _exchange(one: Path, two: Path) -> bool:
    """Let two names change their contents in one act; False where that cannot be done."""
    if sys.platform != "linux":
        return False
    call = getattr(ctypes.CDLL(None), "renameat2", None)
    if call is None:
        return False
    names = (os.fsencode(one), os.fsencode(two))
    return call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0


def _host() -> str:
    return _digest(socket.gethostname())


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]
