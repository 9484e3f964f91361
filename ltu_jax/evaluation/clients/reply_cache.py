"""Replies of models and servers, kept on disk: bytes by key in one SQLite file."""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ltu_jax.core.errors import UserError

_WAIT_SECONDS = 60  # for another process that is writing
_KEYS_AT_ONCE = 500  # SQLite before 3.32 takes 999 variables


def key(*parts: str) -> str:
    """Return the hex SHA-256 of all that decides an entry; no two lists of parts share one."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class ReplyCache:
    """Entries that outlive the process.

    Each `put` is one transaction: after a kill its entries are all there or not at all. Every entry
    carries its hash, so that a damaged one is an error instead of a wrong number.
    """

    def __init__(self, path: Path):
        self.path = path

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the entries of those keys that have one.

        Raises:
            UserError: the file is damaged, no cache, or cannot be read.
        """
        replies: dict[str, bytes] = {}
        with self._open() as file:
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                some = list(keys[start : start + _KEYS_AT_ONCE])
                marks = ",".join("?" * len(some))
                query = f"SELECT key, value, digest FROM entries WHERE key IN ({marks})"
                for name, value, digest in file.execute(query, some):
                    if digest != _digest(name, value):
                        raise self._damaged(f"entry {name[:12]}... does not match its hash")
                    replies[name] = value
        return replies

    def put(self, entries: Mapping[str, bytes]) -> None:
        """Keep entries, in place of those that have the same keys.

        Raises:
            UserError: the file is damaged, no cache, or cannot be written.
        """
        rows = [(name, value, _digest(name, value)) for name, value in entries.items()]
        with self._open() as file, file:
            file.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=_WAIT_SECONDS)) as file:
                self._check(file)
                file.execute(
                    "CREATE TABLE IF NOT EXISTS entries "
                    "(key TEXT PRIMARY KEY, value BLOB NOT NULL, digest BLOB NOT NULL)"
                )
                yield file
        except sqlite3.OperationalError as error:
            raise UserError(
                f"the cache {self.path} cannot be used ({error}); check the disk and the "
                "permissions, or give another cache"
            ) from None
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from None

    def _check(self, file: sqlite3.Connection) -> None:
        """Refuse a database of somebody else, into which entries would be written."""
        names = [name for (name,) in file.execute("SELECT name FROM sqlite_master")]
        if others := [name for name in names if "entries" not in name]:
            raise UserError(
                f"the cache {self.path} is another program's database (it holds {others[0]!r}); "
                "give another cache"
            )

    def _damaged(self, what: str) -> UserError:
        return UserError(
            f"the cache {self.path} is damaged ({what}); delete it, what it held is then asked for "
            "again"
        )


def _digest(name: str, value: bytes) -> bytes:
    # with the key: a value under another's key is as wrong as a changed one
    return hashlib.sha256(name.encode() + value).digest()
