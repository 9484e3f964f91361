"""The TPU slices and GPUs that a plan can be made for.

A slice is named as in Google Cloud: v5e and v6e count chips, v4 and v5p count TensorCores, of which
a chip has two. Peaks, links and memory are of the makers' data sheets; `hbm_bytes` is what the TPU
compiler itself allows a program (read from its out-of-memory message), less than the chip has.
"""

import dataclasses
import difflib
import math
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.core.hardware import CHIPS, GPUS, Chip, Gpu


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """Chips joined by an interconnect, as they are rented."""

    name: str
    chip: Chip
    grid: tuple[int, ...]
    host_grid: tuple[int, int, int]

    @property
    def chips(self) -> int:
        """How many chips, which is how many jax devices."""
        return math.prod(self.grid)

    @property
    def hosts(self) -> int:
        """How many host machines, each with its own process."""
        return max(1, self.chips // math.prod(self.host_grid))

    @property
    def topology(self) -> str:
        """Name of the topology for the TPU compiler."""
        return f"{self.chip.kind}:{'x'.join(map(str, self.grid))}"

    @property
    def topology_options(self) -> dict[str, Any]:
        """What the TPU compiler has to be told besides the name."""
        config = {"chip_config_name": self.chip.chip_config} if self.chip.chip_config else {}
        return {"chips_per_host_bounds": self.host_grid, **config}

    @property
    def interconnect(self) -> float:
        """Bytes/s that one chip can send over all its links that a collective can use.

        A line has one usable link per axis and chip, a ring two.
        """
        links = sum(2 if side >= self.chip.torus_side else int(side > 1) for side in self.grid)
        return links * self.chip.link_bandwidth


_FLAT = {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16),
         256: (16, 16)}  # fmt: skip
_CUBIC = {4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4), 128: (4, 4, 8),
          256: (4, 8, 8)}  # fmt: skip


def _slices() -> dict[str, Slice]:
    slices = {}
    for chip in CHIPS.values():
        for chips, grid in (_FLAT if chip.torus_side == 16 else _CUBIC).items():
            name = f"{chip.kind}-{chips * chip.cores_in_name}"
            # Machines have four chips; the smallest flat slices are one machine of their own size.
            host = (*grid, 1) if len(grid) == 2 and chips <= 8 else (2, 2, 1)
            slices[name] = Slice(name=name, chip=chip, grid=grid, host_grid=host)
    return slices


SLICES = _slices()


def find_slice(name: str) -> Slice:
    """Find the slice called `name`.

    Raises:
        UserError: there is none; the message has the sizes of that kind, or all kinds.
    """
    if name in SLICES:
        return SLICES[name]
    kind = name.partition("-")[0]
    if kind in CHIPS:
        sizes = [other for other in SLICES if other.startswith(f"{kind}-")]
        unit = "TensorCores, two a chip" if CHIPS[kind].cores_in_name == 2 else "chips"
        raise UserError(
            f"--slice: there is no {name}; {kind} is counted in {unit}: {', '.join(sizes)}"
        )
    close = difflib.get_close_matches(name, SLICES, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(
        f"--slice: {name!r} is unknown; {hint}use {', '.join(CHIPS)} and a size, as v5e-16 or v4-32"
    )


def find_gpu(name: str) -> Gpu:
    """Find the GPU called `name`.

    Raises:
        UserError: there is none; the message has all names.
    """
    if name not in GPUS:
        raise UserError(f"--gpu: {name!r} is unknown; use one of {', '.join(GPUS)}")
    return GPUS[name]
