"""Every call to a model that may cost money: written down before it is sent, and how it ended.

    sent -> answered     a reply that can be used: the request is never sent again
         -> refused      a reply that cannot be used, or a request that the server does not take
         -> failed       the server was busy or broken: nothing was had
         -> lost         the process ended before a reply came: it may have been charged
    batched -> the same  in a file for the server to work off later

One SQLite file holds it. A process that may send has the file for itself. Amounts are billionths of
a dollar: what a call can cost at most is set aside before it is sent, and what it did cost takes
that place afterwards; a lost call counts as if it had been charged in full.
"""

import contextlib
import dataclasses
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ltu_jax.clients import sqlite_file
from ltu_jax.clients.chat import ChatReply, CompletionRequest

_KEYS_AT_ONCE = 500  # SQLite before 3.32 takes 999 variables
_TABLES = """
CREATE TABLE IF NOT EXISTS requests (
    key TEXT PRIMARY KEY, subject TEXT NOT NULL, prompt TEXT NOT NULL, model TEXT NOT NULL,
    asked TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
    reserved INTEGER NOT NULL, cost INTEGER NOT NULL, batch TEXT, reply BLOB, digest BLOB,
    at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS calls_of_key ON calls (key);
CREATE UNIQUE INDEX IF NOT EXISTS one_answer ON calls (key) WHERE state = 'answered';
CREATE INDEX IF NOT EXISTS open_calls ON calls (state, batch) WHERE state IN ('sent', 'batched');
CREATE TABLE IF NOT EXISTS taken (digest TEXT PRIMARY KEY, name TEXT NOT NULL);
"""
_NAMES = ("requests", "calls", "taken")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """What has become of a request so far.

    Attributes:
        answer: the reply that can be used; None as long as there is none.
        refused: how many calls brought nothing that can be used.
        reason: why the last one of those did not.
        batch: file in which it waits for its result; "" for none.
    """

    answer: ChatReply | None = None
    refused: int = 0
    reason: str = ""
    batch: str = ""


_UNKNOWN = RequestRecord()


class CallLedger:
    """The calls in one file; see `open_ledger`."""

    def __init__(self, file: sqlite3.Connection, path: Path):
        self._file, self._path = file, path
        query = "SELECT coalesce(sum(cost), 0), coalesce(sum(reserved), 0) FROM calls"
        self._cost, self._reserved = file.execute(query).fetchone()

    @property
    def committed(self) -> int:
        """Return what was paid and what is set aside for calls that have not ended."""
        return self._cost + self._reserved

    @property
    def cost(self) -> int:
        """Return what was paid, lost calls included."""
        return self._cost

    def look_up(self, keys: Sequence[str]) -> dict[str, RequestRecord]:
        """Return the record of each request.

        Raises:
            UserError: a reply is not what was written.
        """
        records = dict.fromkeys(keys, _UNKNOWN)
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = list(keys[start : start + _KEYS_AT_ONCE])
            marks = ",".join("?" * len(some))
            query = (
                "SELECT key, state, reason, batch, reply, digest FROM calls "
                f"WHERE key IN ({marks}) ORDER BY id"
            )
            for key, state, reason, batch, reply, digest in self._file.execute(query, some):
                if state == "answered":
                    change = {"answer": self._reply(key, reply, digest), "batch": ""}
                elif state == "batched":
                    change = {"batch": batch}
                elif state == "refused":
                    change = {"refused": records[key].refused + 1, "reason": reason}
                else:
                    continue
                records[key] = dataclasses.replace(records[key], **change)
        return records

    def reserve(self, request: CompletionRequest, amount: int) -> int:
        """Write down that a request is sent now; return the number of the call."""
        with self._file:
            return self._reserve(request, amount, state="sent", batch=None)

    def reserve_batch(self, batch: str, requests: Sequence[tuple[CompletionRequest, int]]) -> None:
        """Write down that requests, with the amount for each, go into a file."""
        with self._file:
            for request, amount in requests:
                self._reserve(request, amount, state="batched", batch=batch)

    def settle(
        self,
        call: int,
        *,
        state: str,
        cost: int,
        reason: str = "",
        reply: ChatReply | None = None,
    ) -> None:
        """Write down how a call ended."""
        with self._file:
            (key, reserved) = self._file.execute(
                "SELECT key, reserved FROM calls WHERE id = ?", (call,)
            ).fetchone()
            content = None if reply is None else json.dumps(dataclasses.asdict(reply)).encode()
            digest = None if content is None else _digest(key, content)
            self._file.execute(
                "UPDATE calls SET state = ?, reason = ?, reserved = 0, cost = ?, reply = ?, "
                "digest = ? WHERE id = ?",
                (state, reason, cost, content, digest, call),
            )
        self._cost += cost
        self._reserved -= reserved

    def batched_call(self, key: str) -> int | None:
        """Return the call of a request that waits in a batch file; None if none does."""
        query = "SELECT id FROM calls WHERE key = ? AND state = 'batched'"
        found = self._file.execute(query, (key,)).fetchone()
        return None if found is None else found[0]

    def reserved(self, call: int) -> int:
        """Return what is set aside for a call."""
        query = "SELECT reserved FROM calls WHERE id = ?"
        return self._file.execute(query, (call,)).fetchone()[0]

    def open_batches(self) -> dict[str, int]:
        """Return the batch files in which requests wait for results -> how many."""
        query = "SELECT batch, count(*) FROM calls WHERE state = 'batched' GROUP BY batch"
        return dict(self._file.execute(f"{query} ORDER BY batch"))

    def batches(self) -> set[str]:
        """Return the names of all batch files that were ever written."""
        return {name for (name,) in self._file.execute("SELECT DISTINCT batch FROM calls") if name}

    def lose(self, *, batch: str | None = None) -> int:
        """Count calls in flight, or those of a batch file, as lost and paid; return how many."""
        where = "state = 'sent'" if batch is None else "state = 'batched' AND batch = ?"
        values = () if batch is None else (batch,)
        with self._file:
            done = self._file.execute(
                f"UPDATE calls SET state = 'lost', cost = reserved, reserved = 0 WHERE {where}",
                values,
            )
        query = "SELECT coalesce(sum(cost), 0), coalesce(sum(reserved), 0) FROM calls"
        self._cost, self._reserved = self._file.execute(query).fetchone()
        return done.rowcount

    def take(self, digest: str, name: str) -> None:
        """Write down that all of a file of results was read."""
        with self._file:
            self._file.execute("INSERT OR IGNORE INTO taken VALUES (?, ?)", (digest, name))

    def has_taken(self, digest: str) -> bool:
        """Tell whether a file of results of this hash was read."""
        query = "SELECT 1 FROM taken WHERE digest = ?"
        return self._file.execute(query, (digest,)).fetchone() is not None

    def calls_by_state(self) -> dict[str, int]:
        """Return how many calls ended in which way."""
        query = "SELECT state, count(*) FROM calls GROUP BY state ORDER BY state"
        return dict(self._file.execute(query))

    def calls_of(self, key: str) -> int:
        """Return how often a request was sent, as far as anybody can tell."""
        query = "SELECT count(*) FROM calls WHERE key = ?"
        return self._file.execute(query, (key,)).fetchone()[0]

    def asked(self, key: str) -> Mapping[str, str] | None:
        """Return what was asked in a request: subject, prompt, model, the user's text."""
        query = "SELECT subject, prompt, model, asked FROM requests WHERE key = ?"
        found = self._file.execute(query, (key,)).fetchone()
        names = ("subject", "prompt", "model", "asked")
        return None if found is None else dict(zip(names, found, strict=True))

    def _reserve(
        self, request: CompletionRequest, amount: int, *, state: str, batch: str | None
    ) -> int:
        asked = request.messages[-1][1].encode("utf-8", "backslashreplace").decode()
        row = (request.key, request.subject, request.prompt, request.model, asked)
        self._file.execute("INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, ?)", row)
        done = self._file.execute(
            "INSERT INTO calls (key, state, reason, reserved, cost, batch, at) "
            "VALUES (?, ?, '', ?, 0, ?, ?)",
            (request.key, state, amount, batch, int(time.time())),
        )
        self._reserved += amount
        return done.lastrowid

    def _reply(self, key: str, content: bytes, digest: bytes) -> ChatReply:
        if not isinstance(content, bytes) or digest != _digest(key, content):
            raise sqlite_file.damaged(
                self._path, f"reply {key[:12]}... does not match its hash", kind="ledger"
            )
        return ChatReply(**json.loads(content))


@contextlib.contextmanager
def open_ledger(path: Path, *, send: bool) -> Iterator[CallLedger]:
    """Yield the ledger of a file, which is made if need be.

    Args:
        path: the file.
        send: whether calls will be sent. Then no other process may use the file meanwhile, and
            calls that were in flight when an earlier process was killed count as lost.

    Raises:
        UserError: the file is in use, damaged, another program's, or cannot be written.
    """
    with sqlite_file.opened(path, tables=_TABLES, names=_NAMES, kind="ledger", alone=send) as file:
        ledger = CallLedger(file, path)
        if send:
            ledger.lose()
        yield ledger


def _digest(key: str, content: bytes) -> bytes:
    # with the key: a reply under another request is as wrong as a changed one
    return hashlib.sha256(key.encode() + content).digest()
