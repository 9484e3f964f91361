"""`python COMMAND` without the ten seconds of imports: a fork of a process that has them already.

A toy run computes for a second or two; importing JAX, TensorFlow and Orbax takes ten. The zygote
imports them and starts no backend. A run is a fork of it: a process with arguments, environment and
output of its own, which can be killed like any other. Where a fresh interpreter is what is tested,
use `subprocess`.

Requests and answers are JSON on a socket; the files for stdin, stdout and stderr travel with them.

    {"command": ["-m", "ltu_jax.train", ...], "env": {...},
     "inject": ["module", "function", argument] or null}  -> {"pid": 7}
    {"wait": 7, "seconds": 1.5}  -> {"status": exit code, negative signal, null: still on, "cpu": s}
"""

import contextlib
import dataclasses
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent.parent
_LONGEST = 1 << 20  # bytes of a message
_HEAVY = (
    *("ltu_jax.train", "ltu_jax.training.trainer", "ltu_jax.evaluate", "ltu_jax.inference"),
    *("orbax.checkpoint", "matplotlib.pyplot", "sentencepiece", "tokenizers"),
)


# --- in the test process -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Process:
    """A command that a zygote has forked."""

    zygote: "Zygote"
    pid: int

    def wait(self, *, within: float | None = None) -> int | None:
        """Return the exit status, negative for a signal; None if it goes on after `within` s."""
        return self.zygote.wait(self.pid, seconds=within)

    def signal(self, number: int) -> None:
        """Send a signal; a process that has just ended does not mind."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> int | None:
        """Send SIGKILL unless it has ended, and return the status it ended with."""
        if self.wait(within=0) is None:
            self.signal(signal.SIGKILL)
        return self.wait()


class Zygote:
    """Starts commands by forking one prepared process."""

    # Of all open zygotes of this process: imports, and commands that have ended. Those of a closed
    # one are in the times of this process's children.
    cpu_seconds = 0.0

    def __init__(self, env: Mapping[str, str]):
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.zygote", str(theirs.fileno())],
                cwd=ROOT,
                env=env,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._spent = 0.0
        self._count(self._read())

    def close(self) -> None:
        """End the zygote; commands that still run are left to whoever started them."""
        self._channel.close()
        self._process.wait()
        self._count({"cpu": -self._spent})

    def start(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        stdout: IO,
        stderr: IO,
        stdin: IO | None = None,
        inject: tuple[str, str, Any] | None = None,
    ) -> Process:
        """Begin `python COMMAND` with exactly the variables of `env`.

        `inject` is a module, a function of it and an argument: called in the new process before the
        command.
        """
        request = {"command": list(map(str, command)), "env": dict(env), "inject": inject}
        with open(os.devnull, "rb") as nothing:
            files = [file.fileno() for file in (stdin or nothing, stdout, stderr)]
            socket.send_fds(self._channel, [json.dumps(request).encode()], files)
            return Process(zygote=self, pid=self._read()["pid"])

    def wait(self, pid: int, *, seconds: float | None) -> int | None:
        """Return the exit status of a command, None when it goes on after so many seconds."""
        self._channel.send(json.dumps({"wait": pid, "seconds": seconds}).encode())
        answer = self._read()
        self._count(answer)
        return answer["status"]

    def _count(self, answer: Mapping[str, Any]) -> None:
        self._spent += answer["cpu"]
        Zygote.cpu_seconds += answer["cpu"]

    def _read(self) -> dict[str, Any]:
        message = self._channel.recv(_LONGEST)
        if not message:
            raise RuntimeError("the zygote ended; its reason is on stderr")
        return json.loads(message)


# --- in the zygote -------------------------------------------------------------------------------


def serve(channel: socket.socket) -> None:
    """Answer requests until the other end closes. In a fork: run the command and return."""
    import_everything()
    gc.freeze()  # a fork shares these objects as long as its collector does not touch them
    gc.set_threshold(50_000, 20, 20)  # as in the test processes
    _say(channel, {"cpu": time.process_time()})
    children: dict[int, int] = {}
    ended: dict[int, int] = {}
    while True:
        message, files, _, _ = socket.recv_fds(channel, _LONGEST, 3)
        if not message:
            return
        request = json.loads(message)
        if "command" in request:
            pid = os.fork()
            if pid == 0:
                channel.close()
                become(request, files)
                return
            for file in files:
                os.close(file)
            children[pid] = os.pidfd_open(pid)
            _say(channel, {"pid": pid})
            continue
        pid, cpu = request["wait"], 0.0
        if pid in children:
            select.select([children[pid]], [], [], request["seconds"])
            found, status, spent = os.wait4(pid, os.WNOHANG)
            if found:
                os.close(children.pop(pid))
                ended[pid] = os.waitstatus_to_exitcode(status)
                cpu = spent.ru_utime + spent.ru_stime
        _say(channel, {"status": ended.get(pid), "cpu": cpu})


def import_everything() -> None:
    """Import what runs and evaluations import, without a JAX backend or a TensorFlow runtime."""
    for module in _HEAVY:
        importlib.import_module(module)
    from data_pipelines.records.tf_example import import_tensorflow

    import_tensorflow()


def become(request: Mapping[str, Any], files: Sequence[int]) -> None:
    """Run the command of a request as the interpreter would."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["env"])
    if request["inject"]:
        module, function, argument = request["inject"]
        getattr(importlib.import_module(module), function)(argument)
    command = request["command"]
    if command[0] == "-c":
        sys.argv = ["-c", *command[2:]]
        exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
    elif command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


def _say(channel: socket.socket, value: dict) -> None:
    channel.send(json.dumps(value).encode())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
