"""SQLite files of our own: opened safely, and never somebody else's database."""

import contextlib
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path

from ltu_jax.core.errors import UserError

_WAIT_SECONDS = 60.0  # for another process that is writing


@contextlib.contextmanager
def opened(
    path: Path,
    *,
    tables: str,
    names: Collection[str],
    kind: str = "cache",
    alone: bool = False,
) -> Iterator[sqlite3.Connection]:
    """Yield a connection to the file, which is made if need be; errors name it.

    Args:
        path: the file.
        tables: SQL that makes the tables that are missing.
        names: of the tables.
        kind: how errors call the file.
        alone: no other process may use the file meanwhile; the system ends that with the process.

    Raises:
        UserError: the file is damaged, another program's, in use, or cannot be read or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    wait = 0.0 if alone else _WAIT_SECONDS
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=wait)) as file:
            if alone:
                file.execute("PRAGMA locking_mode = EXCLUSIVE")
                file.execute("BEGIN EXCLUSIVE")
                file.commit()  # the lock stays
            _check(file, path, names=names, kind=kind)
            file.executescript(tables)
            yield file
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise UserError(
                f"the {kind} {path} is in use by another process: wait until that has ended"
            ) from None
        raise UserError(
            f"the {kind} {path} cannot be used ({error}); check the disk and the permissions, or "
            f"give another {kind}"
        ) from None
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error), kind=kind) from None


def damaged(path: Path, problem: str, *, kind: str = "cache") -> UserError:
    """Return the error for a file that holds something else than what was written."""
    return UserError(
        f"the {kind} {path} is damaged ({problem}); delete it, what it held is then asked for again"
    )


def _check(file: sqlite3.Connection, path: Path, *, names: Collection[str], kind: str) -> None:
    """Refuse a database of somebody else, into which our tables would be written."""
    there = file.execute("SELECT tbl_name FROM sqlite_master")
    if others := [name for (name,) in there if name not in names and name != "sqlite_sequence"]:
        raise UserError(
            f"the {kind} {path} is another program's database (it holds {others[0]!r}); give "
            f"another {kind}"
        )
