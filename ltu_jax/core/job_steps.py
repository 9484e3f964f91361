"""Long jobs of several commands: each runs once, and a job that was stopped goes on."""

import dataclasses
import shlex
import subprocess
import sys
import time
from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, write_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One step: `python -m` command lines; `product` is there once a step may be skipped.

    A command without product checks its own output each time, or, as `ask`, leaves none.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    product: Path | None = None


def run(step: Step, log: Path) -> float:
    """Run one step unless it is done; return the seconds that making its output took.

    Raises:
        UserError: the step's command failed; it has said why.
    """
    history = read_json(log) if log.exists() else {}
    commands = [list(command) for command in step.commands]
    done = history.get(step.name, {"seconds": 0.0})
    unchanged = done.get("commands") == commands
    if unchanged and step.product is not None and step.product.exists():
        print(f"[{step.name}] already there: {step.product}")
        return done["seconds"]
    before = 0.0 if "commands" in done else done["seconds"]
    made_before = done["seconds"] if unchanged else 0.0
    start, entry = time.monotonic(), {}
    try:
        for command in commands:
            print(f"[{step.name}] python -m {shlex.join(command)}", flush=True)
            if subprocess.run([sys.executable, "-m", *command], check=False).returncode:
                raise UserError(f"the step '{step.name}' failed; its message is above")
        entry["commands"] = commands
    finally:
        # An interrupted step adds to what it has taken so far; looking again at output that is
        # there does not make it faster than it was.
        entry["seconds"] = max(before + time.monotonic() - start, made_before)
        write_json(log, history | {step.name: entry})
    return entry["seconds"]
