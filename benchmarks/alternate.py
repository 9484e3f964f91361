"""Shared timing of the benchmarks: contenders alternate in one process, medians are compared.

Anything else the machine does falls on all contenders alike when they take turns, so the ratio of
medians says more than two runs one after the other. CPU seconds of the process stand beside the
wall clock: a CPU that is shared shows in their difference.
"""

import dataclasses
import datetime
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from ltu_jax.core import provenance
from ltu_jax.core.files import write_json
from ltu_jax.core.memory import most_resident

RESULTS = Path("benchmarks/results")
_PACKAGES = ("jax", "jaxlib", "flax", "qwix", "torch", "transformers", "peft", "numpy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """Something to time: `run` does one whole unit of work and returns when it is finished."""

    name: str
    run: Callable[[], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """Wall and CPU seconds of every timed round of one contender."""

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu_seconds)

    def to_json(self) -> dict[str, Any]:
        """Return medians and all rounds."""
        return {
            "median_seconds": round(self.median, 5),
            "median_cpu_seconds": round(self.cpu_median, 5),
            "seconds": [round(value, 5) for value in self.seconds],
            "cpu_seconds": [round(value, 5) for value in self.cpu_seconds],
        }


def alternate(contenders: Sequence[Contender], *, rounds: int) -> dict[str, Timing]:
    """Time every contender `rounds` times, taking turns, after one untimed round each.

    Every second round goes backwards, so that nobody always follows the same neighbour.
    """
    for contender in contenders:
        show(f"first run of {contender.name}")
        contender.run()
    walls: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    cpus: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        show(f"round {number + 1} of {rounds}")
        for contender in contenders if number % 2 == 0 else contenders[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            contender.run()
            walls[contender.name].append(time.perf_counter() - wall)
            cpus[contender.name].append(time.process_time() - cpu)
    return {
        name: Timing(seconds=tuple(walls[name]), cpu_seconds=tuple(cpus[name])) for name in walls
    }


def show(line: str) -> None:
    """Print a line of progress, apart from the table."""
    print(f"  {line} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)


def device() -> str:
    """Name JAX's first device as part of a file name: "cpu", "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", jax.devices()[0].device_kind.lower()).strip("-")


def machine() -> str:
    """Name `device`, and of a CPU its maker, for a file: "cpu-amd", "nvidia-h200".

    Ratios differ between makers (PyTorch's products go to Intel's MKL), so each has its file.
    """
    if device() != "cpu":
        return device()
    maker = re.search(r"intel|amd|apple|arm|neoverse", provenance.processor().lower())
    return f"cpu-{maker[0] if maker else platform.machine()}"


def beside_fastest(timings: Mapping[str, Timing], *, names: Sequence[str]) -> dict[str, float]:
    """Return the speed of each contender as a multiple of the fastest of `names`."""
    best = min(timings[name].median for name in names if name in timings)
    return {name: best / timing.median for name, timing in timings.items()}


def on_gpu() -> bool:
    """Tell whether JAX computes on a GPU."""
    return jax.devices()[0].platform == "gpu"


def peak_bytes() -> int:
    """Return the most that JAX has held on its GPU, or this process on a CPU."""
    if on_gpu():
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    return most_resident()


def header() -> dict[str, Any]:
    """Return hardware, versions, date, load, and whether this is a GPU run."""
    gpu = "this is the run on a GPU" if on_gpu() else "not run: no GPU on this machine"
    return {
        "date": datetime.date.today().isoformat(),
        "hardware": {"device": jax.devices()[0].device_kind, "processor": provenance.processor()},
        "versions": {"python": platform.python_version()} | provenance.versions(_PACKAGES),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "gpu": gpu,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay out rows of equal keys as aligned columns, numbers to the right."""
    columns = list(rows[0])
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]

    def line(values: Sequence[str], sample: Sequence[Any]) -> str:
        return "  ".join(
            value.ljust(width) if isinstance(one, str) else value.rjust(width)
            for value, width, one in zip(values, widths, sample, strict=True)
        ).rstrip()

    first = list(rows[0].values())
    return "\n".join([line(columns, first), *(line(cell, first) for cell in cells)])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "-" if value is None else str(value)


def write(name: str, content: Mapping[str, Any], *, out: Path) -> Path:
    """Write OUT/NAME_MACHINE.json with the header before the content."""
    file = out / f"{name}_{machine()}.json"
    write_json(file, header() | dict(content))
    print(f"\n{file}")
    return file
