"""A lock on a folder that processes of any hosts share: at most one process holds it.

    FOLDER/.lock/<n>             claims; the highest number holds the lock and says who that is
    FOLDER/.lock/taken-<token>   who took over from a holder that showed no life, for it to read

A claim is made by exclusive creation alone (`core/claims.py`), which local disks, network disks,
mounted buckets and gs:// have; nothing relies on a rename, an append or on the clocks of two hosts
agreeing. The holder writes its claim anew every few seconds. Who wants the lock watches: a claim
that does not change for `LEASE` seconds of the watcher's own clock is dead, and the next number
takes the lock over. An ended process of the same machine is noticed at once. A holder that was only
asleep finds a higher number, or its own claim gone, before it writes anything that matters
(`RunLock.check`). So does one whose folder was taken away, or whose mount was lost: the folder that
is there then has no claim of its own.
"""

import contextlib
import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ltu_jax.core.claims import BucketClaims, Claims, FolderClaims
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import absolute, is_remote

FOLDER = ".lock"
LEASE = 40.0  # seconds without a sign of life after which a claim is dead
BEAT = 5.0  # seconds between signs of life
_LOOK = 0.25  # seconds between looks at another's claim
_HELD: set[str] = set()  # tokens of this process


class LockedError(UserError):
    """An error for a folder that another process has locked, or has taken over."""


def machine() -> str:
    """Return host, boot and process namespace: within one of them process numbers are unique."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
        parts += [os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _process(pid: int) -> tuple[str, str] | None:
    """Return state letter and start time of a process of this machine; ("", "") where unknown."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "", ""
    try:
        # The name in the second field may hold spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], fields[19]


class RunLock:
    """The lock of one folder, held during the block of `hold`."""

    def __init__(
        self, folder: str | os.PathLike, *, job: str, lease: float = LEASE, beat: float = BEAT
    ) -> None:
        """Describe the lock; nothing is written yet.

        Args:
            folder: the folder to lock; made if it is missing.
            job: the name of the work in messages, e.g. "stage3".
            lease: seconds without a sign of life after which a claim is dead.
            beat: seconds between signs of life.
        """
        self._root, self._job = absolute(folder), job
        self._folder = self._root / FOLDER
        claims = BucketClaims if is_remote(self._root) else FolderClaims
        self._claims: Claims = claims(self._folder)
        self._lease, self._beat = lease, beat
        self.token = uuid.uuid4().hex
        own = _process(os.getpid())
        self._me: dict[str, Any] = {
            "host": platform.node(),
            "machine": machine(),
            "process": os.getpid(),
            "started": own[1] if own else "",
            "token": self.token,
            "job": job,
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }
        self._number = 0
        self._beats = 0
        self._lost: str = ""
        self._place: os.stat_result | None = None  # the folder that was locked
        self._stop = threading.Event()

    @contextlib.contextmanager
    def hold(self) -> Iterator["RunLock"]:
        """Take the lock, keep it alive by a thread, and give it back at the end of the block.

        Raises:
            LockedError: another process holds it and lives; it is named.
            UserError: the folder cannot be written.
        """
        self._acquire()
        self._place = self._there()
        _HELD.add(self.token)
        thread = threading.Thread(target=self._keep_alive, name="run-lock", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()
            _HELD.discard(self.token)
            self._release()

    def check(self) -> None:
        """Require that the lock is still held; call it before a write that another could undo.

        Raises:
            LockedError: another took it over, or its folder is gone; says who.
        """
        if not self._lost:
            try:
                self._lost = self._loss()
            except OSError as error:
                raise UserError(
                    f"{self._job}: {self._folder} cannot be read ({error.strerror or error}), so "
                    "nobody knows whether another took the run over; the same command goes on"
                ) from error
        self.poll()

    def poll(self) -> None:
        """Raise if the lock-keeping thread has found the lock lost; costs nothing."""
        if self._lost:
            raise LockedError(self._lost)

    # --- claims -----------------------------------------------------------------------------------

    def _text(self) -> bytes:
        return json.dumps({**self._me, "beat": self._beats}).encode()

    def _create(self, number: int) -> bool:
        """Make a claim; False where another process was first."""
        # What the place has kept is what counts, not what it said.
        return (
            self._claims.create(number, self._text())
            and _parse(self._claims.read(number)).get("token") == self.token
        )

    def _acquire(self) -> None:
        try:
            while not self._try():
                time.sleep(_LOOK / 25)
        except OSError as error:
            raise UserError(
                f"{self._root} cannot be locked ({error.strerror or error}); make it writable, or "
                "choose another folder (--config.run_dir)"
            ) from error

    def _try(self) -> bool:
        claims = self._claims.numbers()
        dead: dict[int, bytes | None] = {}
        if claims:
            seen = self._claims.read(claims[-1])
            if seen is None:
                return False  # given back meanwhile
            seen = self._wait_for_death(claims[-1], seen)
            if seen is None:
                return False
            dead = {number: self._claims.read(number) for number in claims[:-1]}
            dead[claims[-1]] = seen
        number = claims[-1] + 1 if claims else 1
        if not self._create(number):
            return False
        others = [other for other in self._claims.numbers() if other != number]
        if any(self._claims.read(other) not in (None, dead.get(other)) for other in others):
            self._claims.delete(number)  # it came late: another took the dead one over before
            return False
        for other in others:
            self._leave_note(dead.get(other))
            self._claims.delete(other)
        self._number = number
        if claims:
            _say(f"{self._root}: took over from {_name(dead[claims[-1]])}, which is gone")
        return True

    def _leave_note(self, claim: bytes | None) -> None:
        """Leave a note on the new holder for an old one that may only be asleep."""
        token = _parse(claim).get("token")
        if claim is None or self._state(claim) == "dead":
            return
        if not isinstance(token, str) or not token.isalnum():  # it becomes part of a path
            return
        self._claims.note(f"taken-{token}", self._text())

    def _wait_for_death(self, number: int, seen: bytes) -> bytes | None:
        """Return the text of a claim once its holder is dead; None if the claim went meanwhile.

        Raises:
            LockedError: the holder lives.
        """
        until, announced = time.monotonic() + self._lease, False
        while True:
            state = self._state(seen)
            if state == "dead":
                return seen
            if state == "alive":
                raise LockedError(self._refusal(seen))
            if time.monotonic() >= until:
                return seen
            if not announced and (announced := self._lease > 2 * self._beat):
                _say(
                    f"{self._root} was in use by {_name(seen)}; waiting up to {self._lease:.0f} s "
                    "for a sign of life"
                )
            time.sleep(min(_LOOK, self._beat / 4))
            now = self._claims.read(number)
            if now is None:
                return None
            if now != seen and (_parse(seen) or not _parse(now)):
                raise LockedError(self._refusal(now if _parse(now) else seen))
            if now != seen:  # its first text: it has just begun
                seen, until = now, time.monotonic() + self._lease

    def _state(self, claim: bytes) -> str:
        """Return "dead" or "alive" for a claim's holder, "" if it has to be watched."""
        holder = _parse(claim)
        number = holder.get("process")
        if holder.get("machine") != self._me["machine"] or not isinstance(number, int):
            return ""
        process = _process(number)
        if process is None or process[1] != holder.get("started") or process[0] in ("Z", "X"):
            return "dead"
        if number == os.getpid():
            return "alive" if holder.get("token") in _HELD else "dead"
        return "alive" if process[0] in ("R", "S", "D") else ""  # a stopped one shows nothing

    def _refusal(self, claim: bytes) -> str:
        return (
            f"{self._job}: {self._root} is in use by {_name(claim)}; two trainers in one folder "
            "would destroy each other's checkpoints. Wait for that one, stop it, or choose another "
            "folder (--config.run_dir)"
        )

    # --- while it is held -------------------------------------------------------------------------

    def _keep_alive(self) -> None:
        while not self._stop.wait(self._beat):
            self._beats += 1
            try:
                lost = self._loss()
                if lost:
                    self._lost = lost
                    return
                self._claims.renew(self._number, self._text())
            except OSError:
                continue  # the next beat, or `check`, finds out

    def _loss(self) -> str:
        """Say how the lock was lost; "" while it is held."""
        claims = self._claims.numbers()
        highest = self._claims.read(claims[-1]) if claims else None
        if highest is not None and (
            _parse(highest).get("token") == self.token or claims[-1] == self._number
            and not _parse(highest)
        ):  # fmt: skip
            return ""
        with contextlib.suppress(OSError):
            highest = self._claims.read_note(f"taken-{self.token}") or highest
        if not highest and (gone := self._displaced()):
            return (
                f"{self._job}: {gone} while it was trained in; this process stops and writes "
                "nothing more there. Bring the folder back, and the same command goes on from its "
                "newest checkpoint"
            )
        by = f"taken over by {_name(highest)}" if highest else "unlocked by hand"
        return (
            f"{self._job}: {self._root} was {by} while this process (host {self._me['host']}, "
            f"process {self._me['process']}) gave no sign of life for {self._lease:.0f} s or more; "
            "this one stops and writes nothing more there"
        )

    def _there(self) -> os.stat_result | None:
        """Look at the folder; None where it is gone, and in a bucket, which has no folders."""
        if is_remote(self._root):
            return None
        with contextlib.suppress(FileNotFoundError):
            return self._root.stat()
        return None

    def _displaced(self) -> str:
        """Say what became of the folder if it is not the one that was locked; "" if it is.

        It is asked only where the claim is gone: mounted buckets may number a folder anew.
        """
        before, now = self._place, self._there()
        if before is None:
            return ""
        if now is None:
            return f"{self._root} has vanished (moved, deleted, or its mount was lost)"
        if now.st_dev != before.st_dev:
            return f"{self._root} lies on another disk than it did (its mount was lost)"
        if now.st_ino != before.st_ino:
            return f"another folder has taken the place of {self._root}"
        return ""

    def _release(self) -> None:
        with contextlib.suppress(OSError):
            if not self._loss():
                self._claims.delete(self._number)
            self._claims.remove_note(f"taken-{self.token}")
            self._claims.leave()


def _parse(claim: bytes | None) -> dict[str, Any]:
    """Return the content of a claim; {} while it is being written, or if it is no claim."""
    try:
        content = json.loads(claim or b"")
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _name(claim: bytes | None) -> str:
    holder = _parse(claim)
    if not holder:
        return "a process that has not said its name yet"
    process, host, since = (holder.get(key) for key in ("process", "host", "since"))
    return f"process {process} on host {host} (since {since})"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
