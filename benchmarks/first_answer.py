"""From `git clone` to an answer about a wav of one's own, with the model of the package.

    python -m benchmarks.first_answer CLIP.wav [--folder DIR]

A clone of this checkout's commit, an environment of its own (`make env`), and `ask` without a
checkpoint, which fetches the bases of the model: nothing of earlier installations is used, neither
packages nor weights nor compiled programs. Then `ask` again, each time in a new process.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import alternate
from ltu_jax.core import errors, provenance
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json

OUT = Path("benchmarks/results/first_answer.json")
FIRST, AGAIN = 360.0, 8.0  # seconds at most, fixed before anything was measured
QUESTION = "What do you hear?"
_ROUNDS = 3  # of later questions


def clean(folder: Path) -> dict[str, str]:
    """Return an environment in which nothing that was fetched or compiled before is found."""
    left = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_", "XLA_", "LTU_JAX_", "PYTHON", "VIRTUAL_ENV", "HF_"))
    }
    return left | {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PIP_CACHE_DIR": str(folder / "pip"),
        "TMPDIR": str(folder),
    }


def timed(command: list[str], *, cwd: Path, environment: Mapping[str, str]) -> tuple[float, str]:
    """Run a command; return its seconds and what it printed.

    Raises:
        UserError: it fails; what it said is above.
    """
    print(f"$ {' '.join(command)}", flush=True)
    begun = time.monotonic()
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    seconds = time.monotonic() - begun
    print(f"{done.stdout.strip()[-2_000:]}\n{seconds:.1f} s", flush=True)
    if done.returncode:
        raise UserError(f"{command[0]} ended with status {done.returncode}")
    return seconds, done.stdout


def measure(clip: Path, folder: Path) -> dict[str, Any]:
    """Clone, install and ask below a folder; return the seconds of each."""
    environment, clone = clean(folder), folder / "ltu_jax"
    here = subprocess.run(
        ["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True
    )
    source = here.stdout.strip()
    ask = [".venv/bin/python", "-m", "ltu_jax.ask", str(clip.absolute()), QUESTION]
    seconds = {
        "clone": timed(
            ["git", "clone", "--quiet", source, str(clone)], cwd=folder, environment=environment
        )[0],
        "install": timed(["make", "env"], cwd=clone, environment=environment)[0],
    }
    seconds["first"], said = timed(ask, cwd=clone, environment=environment)
    later = [timed(ask, cwd=clone, environment=environment)[0] for _ in range(_ROUNDS)]
    return {
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "to_the_first_answer": round(sum(seconds.values()), 1),
        "later": [round(value, 2) for value in later],
        "answer": said.strip().splitlines()[-1],
    }


def main() -> None:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_answer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clip", type=Path, help="a recording")
    parser.add_argument("--folder", type=Path, help="for the clone; default: a temporary one")
    parser.add_argument("--out", type=Path, default=OUT, help="file of the result")
    given = parser.parse_args()
    if not given.clip.is_file():
        raise UserError(f"{given.clip} is no file: give a recording")
    folder = given.folder or Path(tempfile.mkdtemp(prefix="first_answer"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = measure(given.clip, folder.absolute())
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    later = sorted(found["later"])[_ROUNDS // 2]
    bars = [
        {"row": "clone to first answer, s", "value": found["to_the_first_answer"],
         "bar": f"<= {FIRST:.0f}", "holds": found["to_the_first_answer"] <= FIRST},
        {"row": "ask again, median s", "value": later, "bar": f"<= {AGAIN:.0f}",
         "holds": later <= AGAIN},
    ]  # fmt: skip
    content = {"commit": provenance.git_state(), "clip": given.clip.name, **found, "bars": bars}
    write_json(given.out, alternate.header() | content)
    print(alternate.table(bars))


if __name__ == "__main__":
    errors.main(main)
