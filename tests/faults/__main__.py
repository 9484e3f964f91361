"""Break training in every way that is promised to be harmless, and count how often it was.

    python -m tests.faults --report [--long] [--only NAME ...] [--json FILE]

Runs of a toy stage are killed, stopped, and robbed of their disk; checkpoints, records and numbers
are damaged. The short form is part of the test suite; the long form is for a release. With --only
the other counts of FILE stay. Exit status 1 when a trial failed.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.faults.guarantees import GUARANTEES
from tests.faults.runs import Lab
from tests.support import compilation, shared


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--report", action="store_true", required=True, help="try, and count")
    parser.add_argument("--long", action="store_true", help="the number of trials of a release")
    parser.add_argument("--only", nargs="+", choices=GUARANTEES, metavar="NAME",
                        help=f"of {', '.join(GUARANTEES)}")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there as well")
    given = parser.parse_args()
    compilation.share_cache()
    try:
        return report(given, parser)
    finally:
        shared.remove_folder()


def report(given: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Try the guarantees that are asked for, print and write the counts."""
    form, failures, spent, begun = "long" if given.long else "short", [], 0, time.monotonic()
    counted: dict[str, dict[str, int | str]] = {}
    if given.only and given.json and given.json.exists():
        before = json.loads(given.json.read_text())
        if before["form"] != form:
            parser.error(f"{given.json} is of the {before['form']} form; name another file")
        counted, spent = before["guarantees"], before["seconds"]
    print(f"{'guarantee':18} {'tried':>6} {'passed':>6} {'seconds':>8}  what is promised")
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        lab = Lab(Path(folder))
        for name in given.only or GUARANTEES:
            guarantee, start = GUARANTEES[name], time.monotonic()
            count = guarantee.attempt(lab, guarantee.long if given.long else guarantee.short)
            counted[name] = count.to_json() | {"date": _today()}
            failures += [f"{name}: {failure}" for failure in count.failures]
            print(
                f"{name:18} {count.tried:6} {count.passed:6} {time.monotonic() - start:8.0f}  "
                f"{guarantee.promise}",
                flush=True,
            )
            if given.json:
                _write(given.json, counted, form=form, seconds=spent + time.monotonic() - begun)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def _today() -> str:
    return datetime.date.today().isoformat()


def _write(path: Path, counted: dict, *, form: str, seconds: float) -> None:
    content = {
        "guarantees": counted,
        "form": form,
        "date": _today(),
        "hardware": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "seconds": round(seconds),
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
