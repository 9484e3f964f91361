"""Put a demo run's numbers into the README: `python benchmarks/readme_numbers.py [runs/demo/summary.json]`.

With a path, first stores that summary as `benchmarks/results/demo.json` with hardware and date. Then
rewrites the README between the two `demo numbers` markers. `--check` only compares.
"""

import argparse
import datetime
import os
import platform
import sys
from pathlib import Path

from ltu_jax.core.files import read_json, write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "demo.json"
BEGIN, END = "<!-- demo numbers -->", "<!-- end of demo numbers -->"
MODES = ("joint", "audio", "text", "shuffled", "silence")


def block(result: dict) -> str:
    """The README's table as markdown."""
    lines = [
        f"Measured on {result['date']}, {result['hardware']}; value and 95 % bootstrap interval.",
        "",
        f"| task | n | chance | {' | '.join(MODES)} |",
        f"|---|---|---|{'---|' * len(MODES)}",
    ]
    for task, row in result["tasks"].items():
        cells = [
            f"{row[mode]['value']:.2f} [{row[mode]['low']:.2f}, {row[mode]['high']:.2f}]"
            for mode in MODES
        ]
        n = row["joint"]["n"]
        lines.append(f"| {task} | {n} | {row['chance']:.2f} | {' | '.join(cells)} |")
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in result["seconds"].items())
    total = sum(result["seconds"].values()) / 60
    lines += ["", f"Seconds: {seconds}; in all {total:.1f} minutes, installation not counted."]
    return "\n".join(lines)


def hardware() -> str:
    """Processor and core count of this machine."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{model}, {os.cpu_count()} cores"


def main() -> None:
    """Store, rewrite or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("summary", nargs="?", help="runs/demo/summary.json of a finished demo")
    parser.add_argument("--check", action="store_true", help="exit 1 if the README differs")
    arguments = parser.parse_args()
    if arguments.summary:
        date = datetime.date.today().isoformat()
        write_json(RESULTS, read_json(arguments.summary) | {"hardware": hardware(), "date": date})
    readme = ROOT / "README.md"
    text = readme.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    wanted = f"{head}{BEGIN}\n{block(read_json(RESULTS))}\n{END}{tail}"
    if arguments.check:
        sys.exit(wanted != text)
    readme.write_text(wanted)


if __name__ == "__main__":
    main()
