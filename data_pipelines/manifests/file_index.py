"""The files of an audio folder by name, in a SQLite file: a million are found without a walk each.

It is built once, folder by folder. A build that was stopped goes on with the folders that are
missing; folders whose date has changed since are listed again.
"""

import hashlib
import itertools
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.names import stem_key

_TABLES = """
CREATE TABLE IF NOT EXISTS about (root TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS folders (path TEXT PRIMARY KEY, changed INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (stem TEXT NOT NULL, folder TEXT NOT NULL, name TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_stem ON files (stem);
CREATE INDEX IF NOT EXISTS by_folder ON files (folder);
"""
_FILES_A_COMMIT = 20_000


class FileIndex:
    """File names below a folder, and where each lies."""

    def __init__(self, path: Path, *, root: Path, update: bool = True):
        """Open the index of `root` in the file `path`, and bring it up to date if so asked.

        Raises:
            UserError: the file is no such index, or one of another folder.
        """
        self.path, self.root = Path(path), Path(root).resolve()
        self._places: dict[int, list[str]] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(self.path)
            self._database.executescript(_TABLES)
            known = self._database.execute("SELECT root FROM about").fetchone()
            if known is None:
                self._database.execute("INSERT INTO about VALUES (?)", (str(self.root),))
            elif known[0] != str(self.root):
                raise UserError(
                    f"{self.path} is the index of {known[0]}, not of {self.root}; name another "
                    "file with --audio-index, or delete it"
                )
            if update:
                self._update()
        except sqlite3.Error as error:
            raise UserError(
                f"{self.path} cannot be used as an index of audio files ({error}); name another "
                "file with --audio-index, or delete it"
            ) from error

    def __len__(self) -> int:
        return self._database.execute("SELECT COUNT(*) FROM files").fetchone()[0]

    def find(self, name: str) -> list[Path]:
        """Return the files of this name, else those that differ in the ending of audio only.

        A name with folders before it, as in "id00012/21Uxsk56VDQ/00001", must have these too.
        """
        above, _, name = name.rpartition("/")
        if above:
            rows = itertools.chain.from_iterable(
                self._database.execute(
                    "SELECT folder, name FROM files WHERE folder = ? AND stem = ?",
                    (f"{place}{above}", stem_key(name)),
                )
                for place in self._places_of(above.count("/") + 1)
            )
        else:
            rows = self._database.execute(
                "SELECT folder, name FROM files WHERE stem = ?", (stem_key(name),)
            )
        files = sorted(self.root / folder / file for folder, file in rows)
        return [path for path in files if path.name == name] or files

    def _places_of(self, depth: int) -> list[str]:
        """Return the folders, "" or with "/" behind, below which folders so deep lie."""
        if depth not in self._places:
            folders = self._database.execute("SELECT path FROM folders").fetchall()
            parts = (folder.split("/") for (folder,) in folders)
            places = {"/".join((*own[:-depth], "")) for own in parts if len(own) >= depth}
            self._places[depth] = sorted(places)
        return self._places[depth]

    def listing(self) -> str:
        """Return a hash of all names: equal for folders with the same files."""
        digest = hashlib.sha256()
        rows = self._database.execute("SELECT folder, name FROM files ORDER BY folder, name")
        for folder, name in rows:
            digest.update(f"{folder}/{name}\n".encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _update(self) -> None:
        listed = dict(self._database.execute("SELECT path, changed FROM folders"))
        waiting = 0
        for folder, changed in self._folders():
            if listed.pop(folder, None) == changed:
                continue
            waiting += self._list(folder, changed=changed)
            if waiting >= _FILES_A_COMMIT:
                self._database.commit()
                waiting = 0
        for folder in listed:  # gone
            self._forget(folder)
        self._database.commit()

    def _folders(self) -> Iterator[tuple[str, int]]:
        for path, folders, _ in os.walk(self.root, followlinks=False):
            folders.sort()
            yield os.path.relpath(path, self.root), os.stat(path).st_mtime_ns

    def _list(self, folder: str, *, changed: int) -> int:
        """List a folder anew; return the number of its files."""
        self._forget(folder)
        with os.scandir(self.root / folder) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
        self._database.executemany(
            "INSERT INTO files VALUES (?, ?, ?)",
            ((stem_key(name), folder, name) for name in names if _storable(name)),
        )
        self._database.execute("INSERT INTO folders VALUES (?, ?)", (folder, changed))
        return len(names)

    def _forget(self, folder: str) -> None:
        self._database.execute("DELETE FROM files WHERE folder = ?", (folder,))
        self._database.execute("DELETE FROM folders WHERE path = ?", (folder,))


def _storable(name: str) -> bool:
    """Return whether a name is Unicode, as SQLite keeps text; JSON cannot name others either."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
