"""Files out of package archives, read without installing anything: .deb, wheels, sdists.

A Debian archive is `ar` around `data.tar.xz`. Members are asked for by their exact names and handed
over as streams; links, devices and whatever else an archive holds are passed over, and no name of
an archive becomes a path.
"""

import contextlib
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from ltu_jax.sources.packages import PackageError

_AR = b"!<arch>\n"
_HEADER = 60  # bytes before each file of an `ar` archive
_END = b"`\n"  # of such a header
# What damaged archives raise.
BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError)


def read_members(archive: Path, names: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
    """Yield (name, stream) of those members that are there, in the order of the archive.

    A stream is valid until the next one is asked for.

    Raises:
        PackageError: the archive is of another kind, or damaged.
    """
    wanted = frozenset(names)
    try:
        with contextlib.ExitStack() as stack:
            if archive.suffix == ".deb":
                data = stack.enter_context(_DebData.open(archive))
                yield from _of_tar(
                    stack.enter_context(tarfile.open(fileobj=data, mode="r|*")), wanted
                )
            elif archive.name.endswith(".tar.gz"):
                yield from _of_tar(stack.enter_context(tarfile.open(archive, mode="r|gz")), wanted)
            elif archive.suffix == ".whl":
                opened = stack.enter_context(zipfile.ZipFile(archive))
                for name in filter(wanted.__contains__, opened.namelist()):
                    with opened.open(name) as stream:
                        yield name, stream
            else:
                raise PackageError(f"{archive} is no .deb, .whl or .tar.gz")
    except BROKEN as error:
        if isinstance(error, PackageError):
            raise
        raise PackageError(
            f"{archive} cannot be read ({error}): delete it and fetch it anew"
        ) from error


def _of_tar(opened: tarfile.TarFile, wanted: frozenset[str]) -> Iterator[tuple[str, BinaryIO]]:
    left = set(wanted)
    for member in opened:
        name = member.name.removeprefix("./")
        if name in left and member.isreg():
            left.remove(name)
            yield name, opened.extractfile(member)
        if not left:
            return


class _DebData:
    """The bytes of a Debian archive's data.tar, as a file that is read once."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._left = file, size

    @classmethod
    @contextlib.contextmanager
    def open(cls, archive: Path) -> Iterator["_DebData"]:
        """Open an archive at its data.

        Raises:
            ValueError: it is no `ar` archive, or has no data.
        """
        with archive.open("rb") as file:
            if file.read(len(_AR)) != _AR:
                raise ValueError("it does not begin as an `ar` archive")
            while len(header := file.read(_HEADER)) == _HEADER:
                if header[58:] != _END:
                    raise ValueError("a header of its `ar` archive is damaged")
                size = int(header[48:58])
                if header[:16].startswith(b"data.tar"):
                    yield cls(file, size)
                    return
                file.seek(size + size % 2, 1)
            raise ValueError("it has no data.tar")

    def read(self, size: int = -1) -> bytes:
        """Read bytes; fewer at the end."""
        size = self._left if size < 0 else min(size, self._left)
        piece = self._file.read(size)
        self._left -= len(piece)
        return piece
