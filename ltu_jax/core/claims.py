"""Claims on a folder: numbered files that one process alone can make, in a folder or a bucket."""

import contextlib
import errno
import os
from pathlib import Path
from typing import Protocol

from ltu_jax.core.objects import Objects

SIZE = 1024  # of a claim, so that writing it anew never leaves an end of the old one
# What a file system says where another host made the file first (mounted buckets: when it is
# closed), or took it away.
_LOST = (errno.EEXIST, errno.ESTALE, errno.ENOENT)


class Claims(Protocol):
    """Numbered claims, and notes by name. All calls raise OSError where the place fails."""

    def numbers(self) -> list[int]:
        """List the claims, ascending."""

    def read(self, number: int) -> bytes | None:
        """Read a claim; None where it is gone."""

    def create(self, number: int, text: bytes) -> bool:
        """Make a claim; False where another process was first."""

    def renew(self, number: int, text: bytes) -> None:
        """Write an own claim anew; one that was taken away stays away."""

    def delete(self, number: int) -> None:
        """Delete a claim, if it is there."""

    def note(self, name: str, text: bytes) -> None:
        """Leave a note, if there is none of the name."""

    def read_note(self, name: str) -> bytes | None:
        """Read a note; None without one."""

    def remove_note(self, name: str) -> None:
        """Delete a note, if it is there."""

    def leave(self) -> None:
        """Remove what is empty."""


def _name(number: int) -> str:
    return f"{number:08d}"


class FolderClaims:
    """Claims as files, made by exclusive creation: local, network and mounted disks have that."""

    def __init__(self, folder: Path) -> None:
        """Describe the claims of `folder`, which is made with the first."""
        self._folder = folder
        self._made = self._missing(folder.parent)

    @staticmethod
    def _missing(folder: Path) -> list[Path]:
        """List the folders that a claim will make, the innermost first."""
        missing = []
        while not folder.exists() and folder != folder.parent:
            missing.append(folder)
            folder = folder.parent
        return missing

    def numbers(self) -> list[int]:
        """List the claims, ascending."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if name.isdecimal())

    def read(self, number: int) -> bytes | None:
        """Read a claim; None where it is gone."""
        try:
            return (self._folder / _name(number)).read_bytes()
        except OSError as error:
            if error.errno in _LOST:
                return None
            raise

    def create(self, number: int, text: bytes) -> bool:
        """Make a claim; False where another process was first."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / _name(number)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                os.write(descriptor, text.ljust(SIZE))
                os.fsync(descriptor)
            except OSError:
                self.delete(number)  # a full disk: an empty claim would lock out the next start
                raise
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in _LOST:
                return False
            raise
        return True

    def renew(self, number: int, text: bytes) -> None:
        """Write an own claim anew; one that was taken away stays away."""
        descriptor = os.open(self._folder / _name(number), os.O_WRONLY)
        try:
            os.pwrite(descriptor, text.ljust(SIZE), 0)
        finally:
            os.close(descriptor)

    def delete(self, number: int) -> None:
        """Delete a claim, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._folder / _name(number))

    def note(self, name: str, text: bytes) -> None:
        """Leave a note, if there is none of the name."""
        with contextlib.suppress(FileExistsError), open(self._folder / name, "xb") as file:
            file.write(text)

    def read_note(self, name: str) -> bytes | None:
        """Read a note; None without one."""
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / name).read_bytes()
        return None

    def remove_note(self, name: str) -> None:
        """Delete a note, if it is there."""
        (self._folder / name).unlink(missing_ok=True)

    def leave(self) -> None:
        """Remove the folders that the first claim made, as far as they are empty."""
        for folder in (self._folder, *self._made):
            os.rmdir(folder)


class BucketClaims:
    """Claims as objects, created and renewed by generation: no two processes can have one."""

    def __init__(self, folder: str | os.PathLike) -> None:
        """Describe the claims below the address `folder`."""
        self._objects = Objects(folder)
        self._generations: dict[int, bytes] = {}  # of own claims

    def numbers(self) -> list[int]:
        """List the claims, ascending."""
        return sorted(int(name) for name in self._objects.names() if name.isdecimal())

    def read(self, number: int) -> bytes | None:
        """Read a claim; None where it is gone."""
        return self.read_note(_name(number))

    def create(self, number: int, text: bytes) -> bool:
        """Make a claim; False where another process was first."""
        generation = self._objects.create(_name(number), text)
        if generation is None:
            return False
        self._generations[number] = generation
        return True

    def renew(self, number: int, text: bytes) -> None:
        """Write an own claim anew; one that another changed or took away stays as it is."""
        generation = self._objects.replace(
            _name(number), text, generation=self._generations[number]
        )
        if generation is None:
            raise OSError(errno.ESTALE, "another has written the claim", self._objects.folder)
        self._generations[number] = generation

    def delete(self, number: int) -> None:
        """Delete a claim, if it is there."""
        self._objects.delete(_name(number))

    def note(self, name: str, text: bytes) -> None:
        """Leave a note, if there is none of the name."""
        self._objects.create(name, text)

    def read_note(self, name: str) -> bytes | None:
        """Read a note; None without one."""
        note = self._objects.read(name)
        return None if note is None else note.content

    def remove_note(self, name: str) -> None:
        """Delete a note, if it is there."""
        self._objects.delete(name)

    def leave(self) -> None:
        """Do nothing: a bucket has no folders that could be left empty."""
