"""`python -m ltu_jax.serve` as a process of its own, looked at from outside."""

import contextlib
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from ltu_jax.core.errors import UserError
from ltu_jax.serving.timed_chat import ChatService

_READY = re.compile(r"ready: (http://\S+)/v1 \(model (.*?)\);")
_COUNT = re.compile(r"^(\w+:\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class ServedProcess:
    """A server that is ready: its process, its address, the name of its model, its key."""

    pid: int
    url: str
    model: str
    key: str | None = None

    @property
    def service(self) -> ChatService:
        """Return how it is asked."""
        return ChatService(url=f"{self.url}/v1", key=self.key)

    def get(self, path: str) -> str:
        """Return what a path gives; any status but 200 is an OSError."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.read().decode()

    def count(self, name: str, **labels: str) -> float:
        """Return a number of /metrics: the sum over those that have these labels."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        found = _COUNT.findall(self.get("/metrics"))
        return sum(
            float(value)
            for known, its, value in found
            if known == name and wanted <= set(its.split(","))
        )

    def occupied(self) -> dict[str, int]:
        """Return the slots and the places of the queue that are in use."""
        return {
            "slots": int(self.count("vllm:num_requests_running")),
            "queue": int(self.count("vllm:num_requests_waiting")),
        }

    def rest(self, *, patience: float = 60.0) -> float:
        """Return the seconds until slots and queue read 0.

        Raises:
            TimeoutError: they did not in so many seconds.
        """
        begun = time.monotonic()
        while any(self.occupied().values()):
            if time.monotonic() - begun > patience:
                raise TimeoutError(f"after {patience:g} s: {self.occupied()}")
            time.sleep(0.02)
        return time.monotonic() - begun

    def memory(self) -> dict[str, int]:
        """Return resident bytes of the server, and of its decoding workers together."""
        process = psutil.Process(self.pid)
        children = [one.memory_info().rss for one in process.children(recursive=True)]
        return {"server": process.memory_info().rss, "workers": sum(children)}

    def descriptors(self) -> int:
        """Return how many files and sockets the server has open."""
        return psutil.Process(self.pid).num_fds()


@contextlib.contextmanager
def served(
    *arguments: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[ServedProcess]:
    """Run a server with options for a block, on a free port; what it says on stderr is in `log`.

    `environment` is the process' own, in place of this one's.

    Raises:
        UserError: it did not get ready.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ltu_jax.serve", "--port", "0", *arguments]
    print("$ python -m " + " ".join(command[2:]), file=sys.stderr, flush=True)
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
    try:
        found = None
        while found is None:
            line = process.stdout.readline()
            if not line:
                raise UserError(f"the server did not get ready; {log} says why")
            found = _READY.match(line)
        yield ServedProcess(pid=process.pid, url=found[1], model=found[2])
    finally:
        process.terminate()
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
