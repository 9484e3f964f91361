"""Paths that people give: local ones, and those of Google Cloud Storage where a thing allows them.

`Path("gs://bucket/x")` is a local folder named "gs:", so no such text may become a `pathlib.Path`:
`as_path` makes the right kind of it, and `local_only` refuses what cannot be remote. Buckets are
read and written by etils' `epath` over gcsfs; arrays by TensorStore. No listing is cached: other
processes write there too.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ltu_jax.core.errors import UserError

_BUCKET = "gs://"
_AT_ONCE = 32  # requests
FSTAB = Path("/etc/fstab")  # what is mounted when a machine starts
MOUNTS = Path("/proc/self/mounts")  # what is mounted now, on Linux
J, T = TypeVar("J"), TypeVar("T")
# The second form is what pathlib makes of an address.
_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*(?=://)|gs|s3|az|hdfs|https?):/+(?P<rest>.*)", re.DOTALL
)


def is_remote(path: str | os.PathLike) -> bool:
    """Tell whether a path is of a bucket."""
    return os.fspath(path).startswith(_BUCKET)


def as_path(path: str | os.PathLike, *, option: str = "") -> Path:
    """Return a path that a person gave: a `pathlib.Path`, or an `epath.Path` of a bucket.

    Args:
        path: local, or gs://BUCKET/NAME.
        option: what messages call it.

    Raises:
        UserError: an address of another scheme, one without a bucket, one that pathlib has already
            spoiled; or gcsfs is not installed.
    """
    text = os.fspath(path)
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return Path(path)
    subject = f"{option} {text}".strip()
    if match["scheme"] != "gs":
        raise UserError(
            f"{subject} is neither a local path nor gs://BUCKET/NAME; give one of these"
        )
    if not is_remote(text):
        raise UserError(f"{subject} lost a slash in pathlib: give the text {_address(text)!r}")
    if not match["rest"].strip("/"):
        raise UserError(f"{subject} names no bucket; give gs://BUCKET/NAME")
    return _bucket_path(text, subject=subject)


def argument(text: str) -> Path:
    """Return the path in an option of a command that may be of a bucket (`type` of argparse)."""
    try:
        return as_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _bucket_path(text: str, *, subject: str) -> Any:
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(
            f"{subject} needs gcsfs, which is not installed: pip install 'ltu_jax[gcs]'"
        )
    import fsspec
    from etils import epath

    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    return epath.Path(text)


def local_only(path: str | os.PathLike, *, option: str) -> Path:
    """Return a local path.

    Raises:
        UserError: an address; the message calls it `option`.
    """
    match = _ADDRESS.fullmatch(os.fspath(path))
    if match is not None:
        raise UserError(
            f"{option} {_address(os.fspath(path))} cannot be remote: copy it to a local disk "
            "(`gcloud storage cp -r`), or mount the bucket (gcsfuse), and give that path"
        )
    return Path(path)


def local_arguments(given: argparse.Namespace) -> argparse.Namespace:
    """Return parsed arguments, all of whose `pathlib.Path`s are local.

    Raises:
        UserError: names the option that has an address.
    """
    for name, value in vars(given).items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, Path):
                local_only(item, option=f"--{name.replace('_', '-')}")
    return given


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    return f"{match['scheme']}://{match['rest'].lstrip('/')}" if match else text


def user_cache() -> Path:
    """Return the folder of this user for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ltu_jax"


def private_folder(path: Path) -> Path | None:
    """Make a folder of mode 0700; None where it cannot be made, or is another user's."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError:
        return None
    return path if path.stat().st_uid == os.getuid() else None


# --- what local folders and buckets do differently ------------------------------------------------


def absolute(path: str | os.PathLike) -> Path:
    """Return the path behind all links, or the address of a bucket as it is."""
    path = as_path(path)
    return path if is_remote(path) else path.resolve()


def files_below(folder: Path) -> list[Path]:
    """List all files below a folder, sorted; none where there is no such folder."""
    if is_remote(folder):
        return [as_path(f"{_BUCKET}{name}") for name in sorted(_client().find(str(folder)))]
    return sorted(path for path in folder.rglob("*") if path.is_file())


def remove_tree(folder: Path) -> None:
    """Delete a folder and all that is in it; a folder that is not there is no error."""
    if not is_remote(folder):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        return
    if names := _client().find(str(folder)):
        _client().rm(names)


def copy_object(source: Path, target: Path) -> None:
    """Copy one object of a bucket within Google Cloud Storage, over what is at `target`."""
    _client().cp_file(str(source), str(target))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectFacts:
    """What a bucket says of an object: an object of one generation has one content for ever."""

    size: int
    generation: str
    crc32c: str


def objects_at(address: Path) -> dict[str, ObjectFacts]:
    """Return the objects below an address of a bucket by relative name; "" is one of its name."""
    root = str(address).removeprefix(_BUCKET).rstrip("/")
    return {
        name.removeprefix(root).removeprefix("/"): ObjectFacts(
            size=int(told["size"]), generation=str(told["generation"]), crc32c=told["crc32c"]
        )
        for name, told in sorted(_client().find(root, detail=True).items())
        if not name.endswith("/")  # what browsers make for a folder
    }


def require_bucket(path: Path) -> None:
    """Require that the bucket of a path is there and may be listed; local paths are not looked at.

    An object store calls everything absent that is in a bucket which is gone or forbidden, so a run
    there would begin anew.

    Raises:
        UserError: names the bucket and what its server said.
    """
    if not is_remote(path):
        return
    bucket = str(path).removeprefix(_BUCKET).partition("/")[0]
    try:
        _client().ls(bucket)
    except Exception as error:  # gcsfs and aiohttp raise errors of many types
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path} cannot be reached: the bucket {bucket} does not exist, may not be listed, or "
            f"does not answer ({reason}); check its name, `gcloud auth application-default login` "
            "(on a TPU VM: its service account and scopes), and the network"
        ) from error


def unmounted(path: str | os.PathLike) -> Path | None:
    """Return a place above a path that has a disk by `FSTAB` and none is mounted at; else None."""
    if is_remote(path):
        return None
    missing = _places(FSTAB) - _places(MOUNTS)
    above = (absolute(path), *absolute(path).parents)
    return next((one for one in above if str(one) in missing and not os.path.ismount(one)), None)


def _places(table: Path) -> set[str]:
    """Return the mount points of a table of the system; none where there is no such table."""
    try:
        lines = table.read_text(errors="replace").splitlines()
    except OSError:
        return set()
    fields = [line.split() for line in lines if not line.lstrip().startswith("#")]
    return {line[1].replace(r"\040", " ") for line in fields if len(line) > 2}


def _client() -> Any:
    import fsspec

    return fsspec.filesystem("gcs")


def upload(file: Path, target: Path) -> None:
    """Copy a local file to an object of a bucket, which appears whole or not at all."""
    _client().put_file(str(file), str(target))


def size_of(path: Path) -> int:
    """Return the size of a file in bytes."""
    status = path.stat()
    return status.length if is_remote(path) else status.st_size


def modified(path: Path) -> float:
    """Return when a file was written last, in seconds."""
    status = path.stat()
    return status.mtime if is_remote(path) else status.st_mtime


def move_tree(folder: Path, target: Path) -> None:
    """Give a folder another name; in a bucket by a copy, which a kill may leave half done."""
    if not is_remote(folder):
        os.rename(folder, target)
        return
    for path in files_below(folder):
        copy_object(path, target / path.relative_to(folder))
    remove_tree(folder)


def failures(path: str | os.PathLike) -> tuple[type[Exception], ...]:
    """Return the kinds of errors with which reading or writing a path can fail."""
    if not is_remote(path):
        return (OSError,)
    import aiohttp
    from gcsfs.retry import HttpError

    return (OSError, HttpError, aiohttp.ClientError)


def reason(error: BaseException) -> str:
    """Say why a path could not be read or written."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:300]


def read_range(path: Path, *, start: int = 0, size: int | None = None) -> bytes:
    """Read bytes of a file, to its end without `size`; fewer where it ends before. One request."""
    if is_remote(path):
        return _client().cat_file(str(path), start, None if size is None else start + size)
    with path.open("rb") as file:
        file.seek(start)
        return file.read(-1 if size is None else size)


def sizes_in(folder: Path) -> dict[str, int]:
    """Return the sizes of the files in a folder by name; {} where there is no such folder."""
    if not is_remote(folder):
        files = folder.iterdir() if folder.is_dir() else ()
        return {path.name: path.stat().st_size for path in files if path.is_file()}
    try:
        entries = _client().ls(str(folder), detail=True)
    except FileNotFoundError:
        require_bucket(folder)
        return {}
    return {
        entry["name"].rpartition("/")[2]: entry["size"]
        for entry in entries
        if entry["type"] == "file"
    }


def in_turn(jobs: Sequence[J], do: Callable[[J], T], *, remote: str | os.PathLike) -> list[T]:
    """Do all jobs and return their results in order; many at once where `remote` is in a bucket.

    A bucket answers each request after some hundredths of a second, whatever else it does.
    """
    if not is_remote(remote):
        return [do(job) for job in jobs]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(do, jobs))
