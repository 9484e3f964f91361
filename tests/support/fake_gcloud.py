"""A cloud with one TPU slice: `gcloud` as an executable, and `Cloud`, by which a test plays it.

The slice is a file, DIR/slice.json, and a folder for each host, DIR/hosts/N, which is the home of
what `gcloud ... ssh` runs there: real processes, marked by FAKE_HOST in their environment. Standard
library only, so that it starts fast: the executable is `python -S fake_gcloud.py DIR ARGUMENT...`.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

COMING = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
BUSY = "ERROR: (gcloud.compute.tpus) UNAVAILABLE: the service is currently unavailable"

# The trainer of the hosts, and the tools that they are set up with. `gcsfuse` makes a link.
TRAINER = """#!{python} -SE
import os, signal, sys, time
if "ltu_jax.train" not in sys.argv:
    sys.exit(0)  # pip
first = os.environ["HOME"].endswith("/0")
saved, done = "runs/step", "runs/done"
os.makedirs("runs", exist_ok=True)
def stop(*_):
    # The wrapper hands on a SIGTERM of its own, which must not meet an interpreter at its end.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if first:
        open(saved, "w").write(str(step))
        print("saved step", step, flush=True)
    sys.exit(75)
step = int(open(saved).read()) if os.path.exists(saved) else 0
signal.signal(signal.SIGTERM, stop)
print("trained from step", step, *sys.argv[1:], flush=True)
open(os.path.expanduser("~/starts"), "a").write("x")
while not os.path.exists(done):
    time.sleep(0.02)
    step += 1
    if first:
        open("runs/now", "w").write(str(step))
        if step == 4:
            print("saved", os.path.abspath("runs/checkpoints/4"), flush=True)
        if step >= int(os.environ.get("STEPS", "3")):
            open(done, "w").close()
sys.exit(int(os.environ.get("ENDS", "0")))
"""
TOOLS = {
    "make": "mkdir -p .venv/bin && cp {tools}/trainer .venv/bin/python",
    "gcsfuse": "rmdir ~/bucket; mkdir -p {bucket}; ln -s {bucket} ~/bucket; echo x >> ~/mounts",
    "mountpoint": 'test -L "${{@: -1}}"',
    "fusermount": "exit 1",
    "python3.11": "exit 0",
}


class Cloud:
    """The slice, seen from a test."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.hosts = folder / "hosts"
        self.bucket = folder / "bucket"

    def install(self, *, hosts: int = 2) -> Path:
        """Lay out an empty cloud; returns the folder of its `gcloud`."""
        tools, local = self.folder / "host_tools", self.folder / "tools"
        tools.mkdir(parents=True)
        local.mkdir()
        names = {"tools": tools, "bucket": self.bucket}
        for name, body in TOOLS.items():
            executable(tools / name, f"#!/usr/bin/env bash\n{body.format(**names)}\n")
        executable(tools / "trainer", TRAINER.format(python=sys.executable))
        script = f'exec "{sys.executable}" -SE "{__file__}" "{self.folder}" "$@"\n'
        executable(local / "gcloud", f"#!/bin/sh\n{script}")
        (self.folder / "slice.json").write_text(
            json.dumps(
                {
                    "request": None,
                    "states": [],
                    "node": "READY",
                    "hosts": hosts,
                    "lives": [],
                    "faults": [],
                    "why": "",
                    "cut": 0,
                    "env": {},
                    "calls": [],
                }
            )
        )
        return local

    @contextlib.contextmanager
    def slice(self):
        """The slice as a dict that may be changed; nobody else sees it meanwhile."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = self.folder / "slice.json"
            found = json.loads(path.read_text())
            yield found
            path.write_text(json.dumps(found))

    def set(self, **changes) -> None:
        """Change the slice: `states` and `node` it has, `lives` of the slices to come, `faults`."""
        with self.slice() as found:
            found.update(changes)

    def give(self, *, kind: str = "", states: tuple[str, ...] = ("ACTIVE",)) -> None:
        """Let a slice be there without asking for one."""
        request = {"kind": kind, "type": "v5litepod-16", "runtime": "v2-alpha-tpuv5-lite"}
        self.set(request=request, states=list(states))
        self.boot()

    def boot(self) -> None:
        """Make the hosts, empty."""
        with self.slice() as found:
            for host in range(found["hosts"]):
                (self.hosts / str(host)).mkdir(parents=True, exist_ok=True)
        (self.folder / "boot").write_text(str(time.monotonic_ns()))

    def calls(self, verb: str) -> list[str]:
        """Every call of gcloud so far that has this word."""
        with self.slice() as found:
            return [call for call in found["calls"] if verb in call.split()]

    def cut(self) -> None:
        """End all ssh connections; what they started in the background goes on."""
        with self.slice() as found:
            found["cut"] += 1

    def preempt(self) -> list[str]:
        """Take the slice away with notice; returns the status that each host's stage left."""
        self.set(node="PREEMPTED", states=["ACTIVE", "SUSPENDING"])
        left = self.shut_down()
        shutil.rmtree(self.hosts)
        with self.slice() as found:  # only now may it be deleted
            found["states"] += ["SUSPENDING", "SUSPENDED"]
        return left

    def shut_down(self) -> list[str]:
        """SIGTERM to all processes, as at the shutdown of a machine; SIGKILL after 10 s."""
        for pid in self.processes():
            _kill(pid, signal.SIGTERM)
        wait_for(lambda: not self.processes(), seconds=10, or_else=self.kill)
        files = [host / "ltu_jax" / "launch" / "status" for host in sorted(self.hosts.iterdir())]
        return [file.read_text().strip() if file.is_file() else "" for file in files]

    def kill(self) -> None:
        """SIGKILL to all processes of the hosts."""
        for pid in self.processes():
            _kill(pid, signal.SIGKILL)

    def processes(self, host: str = "") -> list[int]:
        """All living processes of a host, or of all."""
        marker, found = f"FAKE_HOST={self.hosts}/{host}".encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    alive = b"State:\tZ" not in (entry / "status").read_bytes()
                    if alive and marker in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return found

    def runs(self, program: str) -> bool:
        """Whether a host runs this program."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if program.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return True
        return False


def executable(path: Path, text: str) -> None:
    """Write a program."""
    path.write_text(text)
    path.chmod(0o755)


def wait_for(condition, *, seconds: float = 60.0, or_else=None):
    """Wait until `condition` holds; then, or by `or_else`, go on."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            if or_else is None:
                raise TimeoutError(f"not within {seconds:g} s: {condition}")
            return or_else()
        time.sleep(0.02)
    return None


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# --- the executable ---------------------------------------------------------------------------


def main(folder: Path, arguments: list[str]) -> int:
    """One call of gcloud."""
    cloud = Cloud(folder)
    # compute tpus queued-resources VERB NAME, or compute tpus tpu-vm VERB NAME
    group, verb = arguments[2:4]
    options = dict(word.partition("=")[::2] for word in arguments[4:] if word.startswith("--"))
    with cloud.slice() as found:
        found["calls"].append(" ".join(arguments))
        fault = next((one for one in found["faults"] if one["verb"] == verb), None)
        if fault is not None:
            fault["times"] -= 1
            found["faults"] = [one for one in found["faults"] if one["times"] > 0]
    late = fault is not None and fault.get("late", False)
    if fault is not None and not late:
        return _refuse(fault.get("errors", BUSY), fault.get("status", 1))
    act = {"create": _create, "delete": _delete, "ssh": _ssh, "scp": _scp}
    act["describe"] = _describe_node if group == "tpu-vm" else _describe
    status = act[verb](cloud, arguments, options)
    return _refuse(fault.get("errors", BUSY), fault.get("status", 1)) if late else status


def _refuse(errors: str, status: int = 1) -> int:
    print(errors, file=sys.stderr)
    return status


def _missing() -> int:
    return _refuse("ERROR: (gcloud.compute.tpus) NOT_FOUND: Resource 'ltu-as' was not found")


def _create(cloud: Cloud, arguments, options) -> int:
    with cloud.slice() as found:
        if found["request"]:
            return _refuse("ERROR: (gcloud.compute.tpus) ALREADY_EXISTS: Resource 'ltu-as'")
        kinds = [word[2:] for word in arguments if word in ("--spot", "--reserved")]
        found["request"] = {
            "kind": "".join(kinds),
            "type": options["--accelerator-type"],
            "runtime": options["--runtime-version"],
        }
        found["states"] = found["lives"].pop(0) if found["lives"] else list(COMING)
        found["node"] = "READY"
    cloud.boot()
    return 0


def _delete(cloud: Cloud, arguments, options) -> int:
    with cloud.slice() as found:
        if not found["request"]:
            return _missing()
        if found["states"][0] in ("DELETING", "SUSPENDING"):
            return _refuse("ERROR: FAILED_PRECONDITION: the resource is being taken away")
        found["request"] = None
        found["cut"] += 1
    cloud.kill()
    shutil.rmtree(cloud.hosts, ignore_errors=True)
    return 0


def _describe(cloud: Cloud, arguments, options) -> int:
    with cloud.slice() as found:
        if not found["request"]:
            return _missing()
        if "failedData" in options["--format"]:
            print(found["why"])
            return 0
        state = found["states"][0]
        if len(found["states"]) > 1:
            found["states"].pop(0)
        if found["states"][0] == "GONE":
            found["request"] = None
    print(state)
    return 0


def _describe_node(cloud: Cloud, arguments, options) -> int:
    with cloud.slice() as found:
        if not found["request"]:
            return _missing()
        print(found["node"])
    return 0


def _hosts(cloud: Cloud, found, worker: str) -> list[Path]:
    chosen = range(found["hosts"]) if worker == "all" else [int(worker)]
    return [cloud.hosts / str(host) for host in chosen]


def _scp(cloud: Cloud, arguments, options) -> int:
    source, target = arguments[4:6]
    with cloud.slice() as found:
        for host in _hosts(cloud, found, options["--worker"]):
            shutil.copy(source, host / target.partition(":")[2])
    return 0


def _ssh(cloud: Cloud, arguments, options) -> int:
    with cloud.slice() as found:
        if found["node"] != "READY" or not found["request"]:
            return _refuse(f"ERROR: The TPU VM is in state {found['node']}, so it is not reachable")
        hosts, cut, given = _hosts(cloud, found, options["--worker"]), found["cut"], found["env"]
    running = [
        subprocess.Popen(
            ["bash", "-c", options["--command"]],
            cwd=host,
            env={
                "HOME": str(host),
                "PATH": f"{cloud.folder / 'host_tools'}:{os.environ['PATH']}",
                "FAKE_HOST": str(host),
                "LTU_JAX_BOOT_ID": str(cloud.folder / "boot"),
                "TPU_TAIL_SECONDS": "0.02",
                **given,
            },
            start_new_session=True,
        )
        for host in hosts
    ]
    while any(one.poll() is None for one in running):
        with cloud.slice() as found:
            lost = found["cut"] != cut or found["node"] != "READY"
        if lost:
            for one in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.pid, signal.SIGKILL)
                one.wait()
            return 255
        time.sleep(0.02)
    return next((one.returncode for one in running if one.returncode), 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
