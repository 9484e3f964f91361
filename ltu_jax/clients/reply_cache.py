"""Replies of models and servers, kept on disk: bytes by key in one SQLite file."""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from ltu_jax.clients import sqlite_file

_TABLES = """
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, digest BLOB NOT NULL)
"""
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
                        problem = f"entry {name[:12]}... does not match its hash"
                        raise sqlite_file.damaged(self.path, problem)
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

    def _open(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return sqlite_file.opened(self.path, tables=_TABLES, names=("entries",))


def _digest(name: str, value: bytes) -> bytes:
    # with the key: a value under another's key is as wrong as a changed one
    return hashlib.sha256(name.encode() + value).digest()
