"""Offers every hostile file to the converter and to `info`, in a process with little memory.

    python tests/weights/hostile_worker.py FOLDER

Prints one JSON line per file: verdict and message of the import and of `info`, seconds of processor
time, growth of resident memory in MB.
"""

import contextlib
import io
import json
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile_files

from ltu_jax import convert
from ltu_jax.weights.files import torch_file as weights_io

CPU_SECONDS = 10  # the test asks for less; this ends what would never end
MEMORY_MB = 1500
PIPE_SECONDS = 60  # of waiting, for a reader that blocks


class TooSlow(BaseException):
    """Raised by the alarm clock; no `except Exception` may swallow it."""


def _stop(signum, frame):
    raise TooSlow(signal.Signals(signum).name)


@contextlib.contextmanager
def _clocks() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, PIPE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024


def _command(*arguments: str) -> tuple[str, str]:
    """(verdict, message) of a command: refused, done, or what went wrong instead."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _clocks():
            convert.main(arguments)
    except SystemExit as end:
        text = err.getvalue()
        if end.code == 2 and text.startswith("error: ") and text.count("\n") == 1:
            return "refused", text.removeprefix("error: ").strip()
        return ("done" if not end.code else f"exit {end.code}"), out.getvalue() + text
    except TooSlow as error:
        return "TOO SLOW", f"{error}\n{traceback.format_exc()[-1500:]}"
    except BaseException:  # a panic of a Rust extension (safetensors, tokenizers) is no Exception
        return "TRACEBACK", traceback.format_exc()[-2500:]
    return "no exit status", ""


def _measured(run: Callable[[], tuple[str, str]]) -> dict[str, object]:
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM counts from here
    before, start = _status("VmRSS"), time.process_time()
    verdict, message = run()
    return {
        "verdict": verdict,
        "message": message,
        "seconds": round(time.process_time() - start, 3),
        "megabytes": max(0, _status("VmHWM") - before),
    }


def _offer(case: hostile_files.Hostile, path: Path, *, settings: Path, out: Path) -> list[str]:
    base = ["--llama", str(settings)]
    if case.offered_as == "base":
        trained = hostile_files.trained_part(out.parent / "trained.safetensors")
        return ["--from", "ltu-as", "--weights", str(trained), "--llama", str(path)]
    needs = base if case.offered_as == "ltu-as" else []
    return ["--from", case.offered_as, "--weights", str(path), *needs]


def main(root: Path, only: str) -> None:
    """Run the corpus below `root`."""
    warnings.simplefilter("ignore")
    # what is imported on first use is imported before the clock runs
    weights_io.read_torch(hostile_files.harmless(root / "harmless.bin"))
    signal.signal(signal.SIGPROF, _stop)
    signal.signal(signal.SIGALRM, _stop)
    limit = (_status("VmData") + MEMORY_MB) << 20
    settings = root / "llama.json"
    settings.write_text('{"num_attention_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}')
    for case in hostile_files.CORPUS:
        if only and only not in case.name:
            continue
        folder, out = root / case.name / "given", root / case.name / "out"
        folder.mkdir(parents=True)
        path = case.build(folder)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
        offered = _offer(case, path, settings=settings, out=out)
        imported = _measured(lambda: _command(*offered, "--out", str(out)))  # noqa: B023
        told = _measured(lambda: _command("info", "--no-hash", str(path)))  # noqa: B023
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
        left = [str(p) for p in (out, folder / hostile_files.CANARY) if p.exists()]
        print(
            json.dumps(
                {"name": case.name, "given": str(path), "import": imported, "info": told,
                 "left": left}
            ),
            flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
