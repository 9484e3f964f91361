"""A plan: its numbers, as JSON and as text for the terminal."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one device; `temporary_bytes` is what the other parts leave of the peak."""

    peak_bytes_per_chip: float
    hbm_bytes_per_chip: float
    headroom_bytes: float
    base_bytes: float
    trainable_bytes: float
    optimiser_bytes: float
    batch_bytes: float
    activation_bytes: float
    temporary_bytes: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """FLOPs, collectives and loops of one step, per device but for `model_flops_per_step`."""

    flops_per_device: float
    hand_flops_per_device: float
    recomputed_flops_per_device: float
    model_flops_per_step: float
    collective_bytes_per_step: dict[str, float] | None
    loops: tuple[tuple[str, int | None], ...]
    kernels: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """Estimated times and rates; None where there is no program to time."""

    compute_seconds: float | None
    collective_seconds: float | None
    est_step_seconds: float | None
    pairs_per_second: float | None = None
    rows_per_second: float | None = None
    mfu_bound: float | None = None
    padded_mfu_bound: float | None = None
    hours_for_stage: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compilation:
    """What compiling took, and what the compiler complained of ("" for nothing)."""

    problem: str = ""
    compile_seconds: float = 0.0
    compile_resident_bytes: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan of one stage on one kind of machine; every time and rate is an estimate."""

    slice: str
    devices: int
    hosts: int
    fits: bool
    method: str
    stage: str
    pairs_of_stage: float
    steps: int
    layout: dict[str, Any]
    batch: dict[str, Any]
    compute: dict[str, Any]
    memory: Memory
    work: Work
    timing: Timing
    compilation: Compilation
    advice: tuple[str, ...]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return one flat dict of all fields, those of the parts among them."""
        flat = dataclasses.asdict(self)
        for part in ("memory", "work", "timing", "compilation"):
            flat |= flat.pop(part)
        return flat


def plan_report(plan: Plan) -> str:
    """Write a plan out: verdict first, then memory, work, time, and what to change."""
    lines = [_verdict(plan), "", *_memory(plan.memory), "", *_work(plan.work), "", *_time(plan)]
    if plan.compilation.problem:
        lines += ["", f"compiler: {plan.compilation.problem}"]
    if plan.advice:
        lines += ["", "to make it fit, the cheapest first:"]
        lines += [f"  {line}" for line in plan.advice]
    lines += ["", f"estimates, not measurements ({plan.method}); docs/planner.md says how"]
    return "\n".join(lines)


def _verdict(plan: Plan) -> str:
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.layout["mesh"].items())
    batch = plan.batch
    rows = f"{batch['rows']} rows of {batch['pairs_per_row']:.3g} pair(s), {batch['text_length']}"
    return (
        f"{plan.stage} on {plan.slice} ({plan.devices} devices, {plan.hosts} hosts): "
        f"{'FITS' if plan.fits else 'DOES NOT FIT'}\n"
        f"  mesh {mesh}; {rows} text tokens (longest {batch['longest_text_length']}); "
        f"accumulation {batch['accumulation']}; {batch['filled_text']:.0%} of the text and "
        f"{batch['filled_clips']:.0%} of the places for clips are filled\n  "
        + ", ".join(f"{key} {value}" for key, value in plan.compute.items())
    )


def _memory(memory: Memory) -> list[str]:
    parts = [
        ("base", memory.base_bytes),
        ("trainable", memory.trainable_bytes),
        ("optimiser", memory.optimiser_bytes),
        ("batch", memory.batch_bytes),
        ("activations", memory.activation_bytes),
        ("temporary", memory.temporary_bytes),
        ("peak", memory.peak_bytes_per_chip),
        ("headroom", memory.headroom_bytes),
        ("memory", memory.hbm_bytes_per_chip),
    ]
    return ["bytes per chip", *(f"  {name:<12}{size / 1e9:>9.2f} GB" for name, size in parts)]


def _work(work: Work) -> list[str]:
    lines = [
        f"FLOPs per device  {_tera(work.flops_per_device)}, by hand "
        f"{_tera(work.hand_flops_per_device)} (of it computed again "
        f"{_tera(work.recomputed_flops_per_device)}): "
        f"{work.flops_per_device / work.hand_flops_per_device:.3f} of it"
    ]
    moved = work.collective_bytes_per_step
    if moved is not None:
        kinds = ", ".join(f"{kind} {size / 1e9:.3f}" for kind, size in sorted(moved.items()))
        lines.append(f"collective GB per step and device  {kinds or 'none'}")
    unknown = [name for name, count in work.loops if count is None]
    if unknown:
        lines.append(f"loops counted once, because their rounds are unknown: {', '.join(unknown)}")
    if work.kernels:
        named = ", ".join(f"{name} x {count:.0f}" for name, count in work.kernels.items())
        lines.append(f"kernels without an estimate: {named}")
    return lines


def _tera(flops: float) -> str:
    return f"{flops / 1e12:.3f} T"


def _time(plan: Plan) -> list[str]:
    timing = plan.timing
    if timing.est_step_seconds is None:
        return ["estimated step time: none, as there is no program"]
    return [
        f"estimated step time  {timing.est_step_seconds:.4f} s (computing "
        f"{timing.compute_seconds:.4f}, collectives {timing.collective_seconds:.4f} if nothing hid "
        "them)",
        f"pairs/s  {timing.pairs_per_second:.1f}, rows/s {timing.rows_per_second:.1f}",
        f"MFU bound  {timing.mfu_bound:.1%} (of the whole shapes, empty places and padding too: "
        f"{timing.padded_mfu_bound:.1%})",
        f"stage  {plan.pairs_of_stage:,.0f} pairs, {plan.steps:,} steps: "
        f"{timing.hours_for_stage:.2f} hours",
    ]
