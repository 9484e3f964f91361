"""The checks that need a GPU, each in a process of its own, all of them within a limit of time.

    python -m benchmarks.gpu_checks --out DIR [--size 7b] [--seconds 520]

`benchmarks/on_gpu.sh` calls it on a machine without network. In order: parity certificates with
the authors' numbers; optimiser steps of PyTorch and of ltu_jax, single, grouped and with an int8
base; decoding in `transformers` and in ltu_jax, also in int8; cuDNN's attention. Every row with its
peak memory: no process holds two models. A check that fails or takes too long costs its own rows.

    DIR/on_gpu.json                what ran, failed, ran out of time or was not begun, and why
    DIR/on_gpu.log                 all that was printed
    DIR/certificate_*.json, train_step_*.json, generate_*.json    as the benchmarks write them,
                                   written anew after each check

The exit status is 0 if every check passed and their losses agree.
"""

import argparse
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from benchmarks import alternate, joined
from benchmarks.model_sizes import SIZES
from ltu_jax.core import errors
from ltu_jax.core.files import read_json, write_json

PASSED, FAILED = "passed", "failed"
OUT_OF_TIME, NOT_BEGUN = "out of time", "not begun"
HEADER = ("date", "hardware", "versions", "gpu")  # of any part: this process leaves the GPU alone
LANGUAGES = {
    "tiny": "random:tiny",
    "cpu": "random:smollm2-135m",
    "7b": "random:llama-7b",
}
SECONDS = 520.0  # of all checks; whoever gives more gives each of them more
LEAST = 15.0  # seconds in which no check ends
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TOKENIZERS_PARALLELISM": "false",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # peaks are of what is used
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One process: a benchmark, its arguments without --out, and the seconds it may take."""

    name: str
    benchmark: str
    arguments: tuple[str, ...]
    seconds: float

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", f"benchmarks.{self.benchmark}", *self.arguments]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a check ended; `reason` is the last line that it printed where it did not pass."""

    check: str
    status: str
    seconds: float
    limit: float
    reason: str


def checks(size: str) -> tuple[Check, ...]:
    """Return the checks in their order: what must not be missing comes first."""
    full = size == "7b"
    steps = ("--size", size, "--rounds", "3", "--batches", "2", "--no-memory", "--rows")
    decode = ("--weights", LANGUAGES[size], "--new-tokens", "64" if full else "8", "--rounds", "3",
              "--keep-ids", "--contenders")  # fmt: skip

    def step(name: str, *rows: str, seconds: float) -> Check:
        return Check(
            name=f"steps, {name}",
            benchmark="train_step",
            arguments=(*steps, *rows),
            seconds=seconds,
        )

    def answer(contender: str, *, seconds: float) -> Check:
        return Check(
            name=f"decoding, {contender}",
            benchmark="generate",
            arguments=(*decode, contender),
            seconds=seconds,
        )

    certificates = Check(
        name="certificates", benchmark="certificate", arguments=("--random", size), seconds=80
    )
    found = (
        certificates,
        step("PyTorch", "PyTorch, random", "PyTorch, sorted", seconds=90),
        step("grouped", "ltu_jax grouped", seconds=110),
        step("single", "ltu_jax single, random", seconds=90),
        answer("transformers", seconds=70),
        answer("ltu_jax", seconds=70),
        answer("ltu_jax int8", seconds=70),
        step("int8", "ltu_jax int8, grouped", seconds=100),
    )
    # cuDNN's heads are not those of a toy, and a toy may be on a CPU
    cudnn = step("cuDNN attention", "ltu_jax cudnn, grouped", seconds=100)
    return (*found, cudnn) if full else found


def run(check: Check, *, limit: float, out: Path, log: TextIO) -> Outcome:
    """Run a check in a process group of its own, which is killed at the limit."""
    begun = time.monotonic()
    log.write(f"\n=== {check.name}: {' '.join(check.command)}\n")
    log.flush()
    start = log.tell()
    process = subprocess.Popen(
        [*check.command, "--out", str(out)],
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        code: int | None = process.wait(limit)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    status = {0: PASSED, None: OUT_OF_TIME}.get(code, FAILED)
    said = Path(log.name).read_bytes()[start:].decode(errors="replace").strip().splitlines()
    return Outcome(
        check=check.name,
        status=status,
        seconds=round(time.monotonic() - begun, 1),
        limit=round(limit, 1),
        reason="" if status == PASSED else (said[-1][:300] if said else f"exit status {code}"),
    )


def run_all(
    planned: Sequence[Check],
    *,
    out: Path,
    seconds: float,
    report: Callable[[list[Outcome], Mapping[str, Sequence[Path]]], None],
) -> list[Outcome]:
    """Run the checks one after the other within `seconds`.

    Args:
        planned: in their order.
        out: folder of the log; the checks write below a temporary one.
        seconds: of all together.
        report: called after each check with the outcomes so far and, by benchmark, the files.
    """
    begun, outcomes = time.monotonic(), []
    written: dict[str, list[Path]] = {}
    with (
        tempfile.TemporaryDirectory() as temporary,
        (out / "on_gpu.log").open("a", encoding="utf-8") as log,
    ):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{temporary}/programs")
        for number, check in enumerate(planned):
            own = check.seconds * max(1.0, seconds / SECONDS)
            limit = min(own, seconds - (time.monotonic() - begun))
            if limit < min(LEAST, own):
                outcome = Outcome(
                    check=check.name,
                    status=NOT_BEGUN,
                    seconds=0.0,
                    limit=round(max(limit, 0.0), 1),
                    reason=f"{seconds:.0f} s are over",
                )
            else:
                folder = Path(temporary) / str(number)
                folder.mkdir()
                outcome = run(check, limit=limit, out=folder, log=log)
                written.setdefault(check.benchmark, []).extend(sorted(folder.glob("*.json")))
            outcomes.append(outcome)
            print(f"{outcome.status:<12} {outcome.seconds:>6.1f} s  {check.name}", flush=True)
            report(outcomes, written)
    return outcomes


def write_results(
    outcomes: Sequence[Outcome], written: Mapping[str, Sequence[Path]], *, out: Path, about: Any
) -> list[str]:
    """Write the summary and one file a benchmark; return how the parts of one disagree."""
    mergers = {
        "train_step": joined.join_steps,
        "generate": lambda parts: joined.without_ids(joined.join_decoding(parts)),
        "certificate": lambda parts: parts[0],
    }
    files, differences = {}, []
    for benchmark, paths in written.items():
        if not paths:
            continue
        parts = [read_json(path) for path in paths]
        try:
            write_json(out / paths[0].name, mergers[benchmark](parts))
            files[benchmark] = paths[0].name
        except errors.UserError as error:
            differences.append(f"{benchmark}: {error}")
    everything = [path for paths in written.values() for path in paths]
    of_one = read_json(everything[0]) if everything else {}
    summary = {key: of_one[key] for key in HEADER if key in of_one} | dict(about)
    summary |= {
        "checks": [dataclasses.asdict(outcome) for outcome in outcomes],
        "files": files,
        "differences": differences,
    }
    write_json(out / "on_gpu.json", summary)
    return differences


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_checks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--size", choices=SIZES, default="7b", help="tiny: to try it on a CPU")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of all (default 520)")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    os.environ.update(ENVIRONMENT)
    differences: list[str] = []

    def report(outcomes: list[Outcome], written: Mapping[str, Sequence[Path]]) -> None:
        about = {"size": given.size, "seconds": given.seconds}
        differences[:] = write_results(outcomes, written, out=given.out, about=about)

    outcomes = run_all(checks(given.size), out=given.out, seconds=given.seconds, report=report)
    print("\n" + alternate.table([dataclasses.asdict(outcome) for outcome in outcomes]))
    print("\n".join(differences))
    sys.exit(bool(differences) or any(outcome.status != PASSED for outcome in outcomes))


if __name__ == "__main__":
    errors.main(main)
