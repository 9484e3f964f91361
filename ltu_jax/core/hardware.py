"""The TPU chips and GPUs that are known, by the makers' data sheets; the cores of this host.

`hbm_bytes` of a TPU is what its compiler allows a program (read from its out-of-memory message),
less than the chip has.
"""

import dataclasses
import os

GIB = 1 << 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator chip.

    Attributes:
        kind: name in slice names.
        peak_flops: dense bf16 FLOP/s.
        clock: Hz of the compiler's cycles: `peak_flops` over the products of all matrix units in
            one cycle.
        hbm_bytes: memory a program may use.
        hbm_bandwidth: bytes/s.
        link_bandwidth: bytes/s of one interconnect link in one direction.
        torus_side: an axis of at least this many chips is closed to a ring.
        cores_in_name: TensorCores per chip in the slice's name (1 where it counts chips).
        chip_config: option of the TPU topology, empty for the default.
    """

    kind: str
    peak_flops: float
    clock: float
    hbm_bytes: int
    hbm_bandwidth: float
    link_bandwidth: float
    torus_side: int
    cores_in_name: int
    chip_config: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU: dense bf16 FLOP/s, bytes of memory, bytes/s of memory.

    `link_bandwidth` is bytes/s to the other GPUs of the machine, one direction.
    """

    name: str
    peak_flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    link_bandwidth: float


CHIPS = {
    "v4": Chip(
        kind="v4",
        peak_flops=275e12,
        clock=1.05e9,
        hbm_bytes=int(30.75 * GIB),
        hbm_bandwidth=1.228e12,
        link_bandwidth=45e9,
        torus_side=4,
        cores_in_name=2,
        chip_config="megacore",  # without it the compiler sees two devices per chip
    ),
    "v5e": Chip(
        kind="v5e",
        peak_flops=197e12,
        clock=1.5e9,
        hbm_bytes=int(15.75 * GIB),
        hbm_bandwidth=0.819e12,
        link_bandwidth=45e9,
        torus_side=16,
        cores_in_name=1,
        chip_config="",
    ),
    "v5p": Chip(
        kind="v5p",
        peak_flops=459e12,
        clock=1.75e9,
        hbm_bytes=int(95.74 * GIB),
        hbm_bandwidth=2.765e12,
        link_bandwidth=90e9,
        torus_side=4,
        cores_in_name=2,
        chip_config="",
    ),
    "v6e": Chip(
        kind="v6e",
        peak_flops=918e12,
        clock=1.75e9,
        hbm_bytes=int(31.25 * GIB),
        hbm_bandwidth=1.640e12,
        link_bandwidth=90e9,
        torus_side=16,
        cores_in_name=1,
        chip_config="",
    ),
}
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="a6000", peak_flops=154.8e12, hbm_bytes=48 * GIB, hbm_bandwidth=0.768e12,
            link_bandwidth=32e9),
        Gpu(name="a100", peak_flops=312e12, hbm_bytes=80 * GIB, hbm_bandwidth=2.039e12,
            link_bandwidth=300e9),
        Gpu(name="h100", peak_flops=989e12, hbm_bytes=80 * GIB, hbm_bandwidth=3.35e12,
            link_bandwidth=450e9),
        Gpu(name="h200", peak_flops=989e12, hbm_bytes=141 * 10**9, hbm_bandwidth=4.8e12,
            link_bandwidth=450e9),
    )
}  # fmt: skip

# Parts of `device_kind` as JAX spells them; the first that fits counts.
_DEVICE_KINDS = (
    ("v5 lite", "v5e"), ("v5e", "v5e"), ("v5p", "v5p"), ("v5", "v5p"), ("v6", "v6e"), ("v4", "v4")
)  # fmt: skip


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_peak(device_kind: str) -> float | None:
    """Return the dense bfloat16 peak in FLOP/s of one device of this kind; None if not known."""
    kind = device_kind.lower()
    for part, name in _DEVICE_KINDS:
        if part in kind:
            return CHIPS[name].peak_flops
    return next((gpu.peak_flops for name, gpu in GPUS.items() if name in kind), None)
