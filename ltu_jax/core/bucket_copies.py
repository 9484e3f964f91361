"""Files of this machine that are copied from a bucket, and to one.

What lies in a bucket and is read in pieces, or by libraries that read files, is copied once:

    CACHE/buckets/<address>/<generations>/NAME      a file, or a folder of files
    CACHE/buckets/<address>/.part-<generations>     what a killed copying has finished

An object of one generation never changes, so a copy is named by the generations and CRC-32Cs of its
objects, which each opening asks the bucket for; a bucket that does not answer is an error. One
process copies while others wait, and a copy of older generations goes when nobody reads it.

A folder that a command makes is written here and then copied there: first the marker that says
whose it is, then numbers, then settings, config.json last, without which no reader takes a folder.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from ltu_jax.core import paths
from ltu_jax.core.errors import UserError, shorten

_PIECE, _AHEAD = 16 << 20, 8  # bytes of a request; how many are under way
_BIG = 2 << 30  # bytes; copying more shows a bar
_held: dict[Path, int] = {}  # locks of the copies that this process reads, to its end


def local_copy(
    address: str | os.PathLike,
    *,
    option: str,
    choice: str = "all",
    wanted: Callable[[Sequence[str]], Sequence[str]] = lambda names: names,
) -> Path:
    """Return the path of a copy of an object, or of the objects below an address.

    Args:
        address: gs://BUCKET/NAME.
        option: what messages call it.
        choice: names what `wanted` chooses; copies of one choice take each other's place.
        wanted: chooses among the relative names of the objects.

    Raises:
        UserError: nothing is there, the bucket does not answer, or the disk has no room.
    """
    address = paths.as_path(address, option=option)
    try:
        return _local_copy(address, option=option, choice=choice, wanted=wanted)
    except paths.failures(address) as error:
        paths.require_bucket(address)
        raise UserError(
            f"{option} {address} could not be copied: {paths.reason(error)}; start the same "
            "command again and it goes on"
        ) from error


def _local_copy(
    address: Path,
    *,
    option: str,
    choice: str,
    wanted: Callable[[Sequence[str]], Sequence[str]],
) -> Path:
    there = paths.objects_at(address)
    if not there:
        paths.require_bucket(address)
        raise UserError(f"{option} {address} does not exist; check the name")
    names = [""] if "" in there else sorted(wanted(sorted(there)))
    if not names:
        raise UserError(
            f"{option} {address} has none of the files that are read, only "
            f"{shorten(sorted(there))}; give the folder that has them"
        )
    chosen = {name: there[name] for name in names}
    home = paths.user_cache() / "buckets" / _short(f"{choice} {address}")
    told = {name: [one.generation, one.crc32c] for name, one in chosen.items()}
    place = home / _short(json.dumps(told))
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home):
        if not place.is_dir():
            _make(address, chosen, place=place)
        _hold(place)
        for older in home.iterdir():
            if older != place and older.is_dir():
                _remove_unread(older)
    return place / address.name


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _hold(place: Path) -> None:
    """Mark a copy as read, until this process ends."""
    if place not in _held:
        _held[place] = os.open(place, os.O_RDONLY)
        fcntl.flock(_held[place], fcntl.LOCK_SH)


def _remove_unread(place: Path) -> None:
    lock = os.open(place, os.O_RDONLY)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(lock)


def _make(address: Path, chosen: Mapping[str, paths.ObjectFacts], *, place: Path) -> None:
    """Copy objects into a folder that takes the name `place` when all of them are there."""
    part = place.parent / f".part-{place.name}"
    files = {name: part / address.name / name for name in chosen}
    lacking = [name for name, file in files.items() if not file.is_file()]
    size = sum(chosen[name].size for name in lacking)
    part.mkdir(exist_ok=True)
    if (free := shutil.disk_usage(part).free) < size:
        raise UserError(
            f"{address}: {size / 1e9:.2f} GB are to be copied to {place.parent}, where "
            f"{free / 1e9:.2f} GB are free; make room, or set XDG_CACHE_HOME to another disk"
        )
    bar = tqdm(
        desc=f"copying {address}", total=size, unit="B", unit_scale=True, disable=size < _BIG
    )
    with bar, ThreadPoolExecutor(_AHEAD) as pool:
        for name in lacking:
            source = address / name if name else address
            files[name].parent.mkdir(parents=True, exist_ok=True)
            _copy(source, files[name], facts=chosen[name], pool=pool, bar=bar)
    part.rename(place)


def _copy(
    source: Path, file: Path, *, facts: paths.ObjectFacts, pool: ThreadPoolExecutor, bar: tqdm
) -> None:
    """Copy an object in pieces, some of them ahead; the file takes its name when it is whole."""
    import google_crc32c  # of gcsfs

    digest = google_crc32c.Checksum()
    waiting: deque = deque()
    unfinished = file.with_name(f"{file.name}.part")

    def take() -> None:
        piece = waiting.popleft().result()
        opened.write(piece)
        digest.update(piece)
        bar.update(len(piece))

    with unfinished.open("wb") as opened:
        for start in range(0, facts.size, _PIECE):
            size = min(_PIECE, facts.size - start)
            waiting.append(pool.submit(paths.read_range, source, start=start, size=size))
            if len(waiting) == _AHEAD:
                take()
        while waiting:
            take()
        opened.flush()
        os.fsync(opened.fileno())  # a copy is believed for ever
    if base64.b64encode(digest.digest()).decode() != facts.crc32c:
        unfinished.unlink()
        raise UserError(
            f"{source} was changed while it was copied, or arrived damaged (its CRC-32C is not "
            f"{facts.crc32c}); start the same command again"
        )
    unfinished.rename(file)


def publish(folder: Path, address: Path, *, marker: str) -> None:
    """Copy the files of a folder to an address, over an older output of the same command.

    A reader finds the old ones, no config.json, or the new ones. What a killed copying has brought
    there already stays.

    Args:
        folder: on this machine.
        address: gs://BUCKET/NAME; objects below it that `folder` has not are deleted.
        marker: the file that says whose output it is.

    Raises:
        UserError: a file could not be written, or arrived damaged.
    """
    files = {file.relative_to(folder).as_posix(): file for file in paths.files_below(folder)}
    order = sorted(files, key=lambda name: (name != marker, *_settings_last(name)))
    digests = {name: _crc32c(file) for name, file in files.items()}
    try:
        there = paths.objects_at(address)
        new = [name for name in order if _differs(there.get(name), digests[name])]
        stale = {name for name in there if name not in files}
        if new:  # nobody may take what is half old for whole
            stale |= {name for name in there if _settings_last(name)[0] and name != marker}
        for name in sorted(stale, key=_settings_last, reverse=True):
            (address / name).unlink()
        for name in [name for name in order if name in new or name in stale]:
            paths.upload(files[name], address / name)
        there = paths.objects_at(address)
    except paths.failures(address) as error:
        raise UserError(
            f"{address} could not be written: {paths.reason(error)}; start the same command again"
        ) from error
    damaged = [name for name in order if _differs(there.get(name), digests[name])]
    if damaged:
        raise UserError(
            f"{address / damaged[0]} is not what was written there (its CRC-32C differs, or "
            "another process writes to the same place); start the same command again"
        )


def _settings_last(name: str) -> tuple[bool, bool, str]:
    return name.endswith(".json"), name == "config.json", name


def _differs(there: paths.ObjectFacts | None, crc32c: str) -> bool:
    return there is None or there.crc32c != crc32c


def _crc32c(file: Path) -> str:
    import google_crc32c

    digest = google_crc32c.Checksum()
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE):
            digest.update(piece)
    return base64.b64encode(digest.digest()).decode()
