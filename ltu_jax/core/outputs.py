"""Decide what a command may replace at `--out`: outputs of the same command, and nothing else.

A folder that a command makes as a whole holds the marker `.ltu_jax_output.json`: the command and
the files it wrote. Single files, and folders of versions before the marker, are recognised by their
content (`Maker.before`).
"""

import contextlib
import dataclasses
import fnmatch
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from ltu_jax.core import staging
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.paths import (
    as_path,
    is_remote,
    local_only,
    objects_at,
    require_bucket,
    size_of,
)

MARKER = ".ltu_jax_output.json"
_FORMAT = 1
_LARGEST = 64 << 20  # bytes of a marker or a JSON output that are read
_HEAD = 1 << 16  # bytes in which a text output says what it is
_NAMED = 3  # names in a message
_JUNK = (".DS_Store", "Thumbs.db", "desktop.ini", ".nfs*")  # what no person put there


def _unknown(path: Path) -> None:
    del path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Maker:
    """A command that makes one kind of output.

    Attributes:
        name: the command in words, as the marker has it.
        folder: whether the output is a folder.
        before: recognises an output without a marker: returns its files (relative), None for
            anything else. For a file: anything but None.
        later: patterns of files that we ourselves add to the folder afterwards.
    """

    name: str
    folder: bool = True
    before: Callable[[Path], Collection[str] | None] = _unknown
    later: tuple[str, ...] = ()


def claim(
    out: str | os.PathLike,
    maker: Maker,
    *,
    inputs: Iterable[str | os.PathLike | None] = (),
    option: str = "--out",
) -> Path:
    """Return the place of `out`, links followed, after a check that `maker` may write it.

    Args:
        out: a person's argument.
        maker: the kind of output.
        inputs: files and folders that the command reads; None for an option that was not given.
        option: the name of `out` in messages.

    Raises:
        UserError: the place holds something that is not of this maker, is an input or around one,
            or cannot be written.
    """
    place = follow(out, option=option)
    subject = f"{option} {out}"
    if is_remote(place):
        _claim_remote(place, maker, inputs=inputs, subject=subject)
        return place
    _check_parents(place, subject=subject)
    staging.clear(place.parent, name=place.name)
    if not os.path.lexists(place):
        return place
    protect(place, inputs, subject=subject)
    if not maker.folder:
        if place.is_dir():
            raise UserError(f"{subject} exists and is a directory; name a file")
        if not place.is_file():
            raise UserError(f"{subject} is a device or a pipe; name a file")
        if place.stat().st_size and maker.before(place) is None:
            raise UserError(f"{subject} is there already and was not written by {_advice(maker)}")
        return place
    if not place.is_dir():
        raise UserError(f"{subject} exists and is a file; name a directory")
    _check_folder(place, maker, subject=subject)
    return place


def join(
    out: str | os.PathLike,
    maker: Maker,
    *,
    names: Iterable[str],
    inputs: Iterable[str | os.PathLike | None] = (),
    option: str = "--out",
) -> Path:
    """Return the folder of `out`, after a check that `maker` may write into it beside other files.

    Args:
        out: a person's argument.
        maker: the kind of output.
        names: patterns of the files that it writes, changes or deletes in the folder itself.
        inputs: what the command reads; `out` may be around them, but none of them.
        option: the name of `out` in messages.

    Raises:
        UserError: `out` is no folder, an input, or has files of those names that are not of this
            maker.
    """
    place, names = follow(out, option=option), tuple(names)
    subject = f"{option} {out}"
    if is_remote(place):
        require_bucket(place)
        there = [entry.name for entry in place.iterdir()] if place.is_dir() else []
        taken = [name for name in there if _matches(name, names)]
        same = any(str(given).rstrip("/") == str(place) for given in inputs if given is not None)
    elif not os.path.lexists(place):
        _check_parents(place, subject=subject)
        return place
    elif not place.is_dir():
        raise UserError(f"{subject} exists and is a file; name a directory")
    else:
        taken = [name for name in _files(place, top=names) if not _is_junk(name)]
        same = any(path.exists() and os.path.samefile(path, place) for path in _given(inputs))
    if same:
        raise UserError(f"{subject} is read by this command itself; give another {option}")
    made_by = _marked(place)
    if made_by is not None and made_by[0] == maker.name:
        return place
    if taken and maker.before(place) is None:
        raise UserError(
            f"{subject} holds {_listed(taken)}, which would be changed and was not written by "
            f"{_advice(maker)}"
        )
    return place


def protect(place: Path, inputs: Iterable[str | os.PathLike | None], *, subject: str) -> None:
    """Require that the existing `place` is no input, around none, and not around this process.

    Files are compared, not names: links and other spellings make no difference.

    Raises:
        UserError: names the input.
    """
    there = os.stat(place)
    for given in _given(inputs):
        if any(_is(path, there) for path in _around(given)):
            relation = "is" if _is(given, there) else "is a folder around"
            raise UserError(
                f"{subject} {relation} the input {given}, which would be lost; give another place"
            )
    if any(_is(path, there) for path in _around(Path.cwd())):
        raise UserError(
            f"{subject} is the folder that this command was started in, or around it, and would be "
            "replaced as a whole; give the name of a folder of its own"
        )


def signature(maker: Maker, files: Iterable[str] = ()) -> dict[str, object]:
    """Return the content of a folder's marker; `files` of a folder that is replaced as a whole."""
    return {"ltu_jax_output": _FORMAT, "made_by": maker.name, "files": sorted(files)}


def files_below(folder: Path) -> list[str]:
    """List the relative names of all files and links below a folder."""
    return list(_files(folder))


def follow(out: str | os.PathLike, *, option: str = "--out") -> Path:
    """Return the absolute path of `out`, behind every link.

    Raises:
        UserError: it leads in a circle, or is no name of a file.
    """
    if is_remote(out):
        return as_path(out, option=option)
    try:
        place = local_only(out, option=option).resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(place)
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links; a NUL; too long
        raise UserError(f"{option} {str(out)!r} leads nowhere ({error}); give a path") from None
    return place


def json_with(*keys: str) -> Callable[[Path], Collection[str] | None]:
    """Return a `Maker.before` that recognises a JSON object with all of `keys`."""

    def before(path: Path) -> Collection[str] | None:
        value = _json(path)
        return () if isinstance(value, dict) and all(key in value for key in keys) else None

    return before


def text_with(*parts: str) -> Callable[[Path], Collection[str] | None]:
    """Return a `Maker.before` that recognises a text with all of `parts` near its beginning."""

    def before(path: Path) -> Collection[str] | None:
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD)
        except OSError:
            return None
        return () if all(part.encode() in head for part in parts) else None

    return before


def _claim_remote(
    place: Path, maker: Maker, *, inputs: Iterable[str | os.PathLike | None], subject: str
) -> None:
    """Require that nothing is at an address, or a folder that `maker` made."""
    require_bucket(place)
    there = objects_at(place)
    if not there:
        return
    for given in map(os.fspath, filter(None, inputs)):
        if is_remote(given) and f"{given}/".startswith(f"{place}/"):
            raise UserError(
                f"{subject} is the input {given} or around it, which would be lost; give another "
                "place"
            )
    if not maker.folder or "" in there:
        raise UserError(f"{subject} is there already; delete it, or give another name")
    _check_owner(place, [name for name in there if not _is_junk(name)], maker, subject=subject)


def _check_parents(place: Path, *, subject: str) -> None:
    parent = next(path for path in place.parents if os.path.lexists(path))
    if not parent.is_dir():
        raise UserError(f"{subject} cannot be made: {parent} is a file; give another place")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{subject} cannot be made: {parent} may not be written to")


def _check_folder(place: Path, maker: Maker, *, subject: str) -> None:
    there = [name for name in _files(place) if not _is_junk(name)]
    if os.path.ismount(place):
        raise UserError(
            f"{subject} is a mounted disk, which cannot be replaced; name a folder in it"
        )
    if there:
        _check_owner(place, there, maker, subject=subject)


def _check_owner(place: Path, there: list[str], maker: Maker, *, subject: str) -> None:
    """Require that `maker` made all the files of a folder."""
    marked = _marked(place)
    if marked is not None:
        made_by, files = marked
        if made_by != maker.name:
            raise UserError(f"{subject} was made by {made_by}, not by {_advice(maker)}")
    else:
        files = maker.before(place)
        if files is None:
            raise UserError(f"{subject} holds {_listed(there)}, not made by {_advice(maker)}")
    known = {MARKER, *files}
    added = [name for name in there if name not in known and not _matches(name, maker.later)]
    if added:
        raise UserError(
            f"{subject} was made by {maker.name}, but holds {_listed(added)} besides, which would "
            "be lost: move that away, or give another place"
        )


def _advice(maker: Maker) -> str:
    return f"{maker.name}: nothing was changed; move or delete it, or give another place"


def _listed(names: list[str]) -> str:
    return shorten([repr(name) for name in names], most=_NAMED)


def _marked(place: Path) -> tuple[str, list[str]] | None:
    """Read maker and files of a folder's marker; None without a marker."""
    marker = _json(place / MARKER)
    if not isinstance(marker, dict) or marker.get("ltu_jax_output") != _FORMAT:
        return None
    made_by, files = marker.get("made_by"), marker.get("files", [])
    whole = isinstance(made_by, str) and isinstance(files, list)
    return (made_by, [name for name in files if isinstance(name, str)]) if whole else None


def _json(path: Path) -> object:
    try:
        if not path.is_file() or size_of(path) > _LARGEST:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _files(folder: Path, *, top: tuple[str, ...] | None = None) -> Iterator[str]:
    """Yield relative names of all files and links below a folder, of entries that match `top`."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if top is not None and not _matches(entry.name, top):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from (f"{entry.name}/{name}" for name in _files(Path(entry.path)))
            elif top is None or entry.is_symlink() or entry.stat().st_size:
                yield entry.name


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_junk(name: str) -> bool:
    return _matches(name.rpartition("/")[2], _JUNK)


def _given(inputs: Iterable[str | os.PathLike | None]) -> Iterator[Path]:
    return (Path(path) for path in inputs if path is not None and not is_remote(path))


def _around(path: Path) -> list[Path]:
    """Return a path and the folders around it, as it is spelled and behind its links."""
    spelled, resolved = Path(os.path.abspath(path)), []
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        resolved = [path.resolve(), *path.resolve().parents]
    return list(dict.fromkeys([spelled, *spelled.parents, *resolved]))


def _is(path: Path, there: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), there)
    except (OSError, ValueError):
        return False
