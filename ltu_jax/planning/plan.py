"""A plan: what a step needs and how long it takes, from the compiler or by arithmetic."""

import dataclasses
import datetime
import importlib.metadata
from typing import Any

from jax.sharding import Mesh

from ltu_jax.core.sharding import make_mesh
from ltu_jax.planning import aot, traced
from ltu_jax.planning.advice import advice
from ltu_jax.planning.question import TAGS, Question, check_batch, clip_places, resident
from ltu_jax.planning.slices import Gpu, Slice
from ltu_jax.training.metrics import mfu, model_flops
from ltu_jax.training.program import Program, make_program

# What a well-shaped product reaches of a GPU's peak when nothing is known but arithmetic.
GPU_EFFICIENCY = 0.6
# Memory that the runtime and the next batch take beside the program.
RESERVE_BYTES = 1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a plan says; every time and rate is an estimate. Bytes and FLOPs are per device.

    `None` stands for what could not be told: a step that does not fit has no time.
    """

    slice: str
    devices: int
    hosts: int
    fits: bool
    method: str
    peak_bytes_per_chip: float
    hbm_bytes_per_chip: float
    headroom_bytes: float
    base_bytes: float
    trainable_bytes: float
    optimiser_bytes: float
    batch_bytes: float
    activation_bytes: float
    temporary_bytes: float
    flops_per_device: float | None
    hand_flops_per_device: float
    recomputed_flops_per_device: float
    model_flops_per_step: float
    collective_bytes_per_step: dict[str, float] | None
    compute_seconds: float | None
    collective_seconds: float | None
    est_step_seconds: float | None
    pairs_per_second: float | None
    rows_per_second: float | None
    mfu_bound: float | None
    padded_mfu_bound: float | None
    hours_for_stage: float | None
    stage: str
    pairs_of_stage: float
    steps: int
    layout: dict[str, Any]
    batch: dict[str, Any]
    compute: dict[str, Any]
    loops: tuple[tuple[str, int | None], ...]
    kernels: dict[str, float]
    problem: str
    advice: tuple[str, ...]
    compile_seconds: float
    compile_resident_bytes: int
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict with the fields as keys."""
        return dataclasses.asdict(self)


def plan_slice(question: Question, tpu: Slice) -> Plan:
    """Compile the step for a TPU slice and read what the compiler says.

    The time is that of rows of `question.text_length`; whether it fits, that of `question.longest`
    (a second compilation where the two differ).

    Raises:
        UserError: libtpu missing, a mesh or batch that does not divide.
    """
    with aot.compiler():
        mesh = make_mesh(question.settings.mesh, aot.devices_of(tpu))
        check_batch(question.settings, mesh)
        program = make_plan_program(question, mesh, length=question.text_length)
        typical = aot.compile_program(program, hbm_bytes=tpu.chip.hbm_bytes)
        largest, largest_program = typical, program
        if typical.fits and question.longest != question.text_length:
            largest_program = make_plan_program(question, mesh, length=question.longest)
            largest = aot.compile_program(largest_program, hbm_bytes=tpu.chip.hbm_bytes)
    cost = typical.cost
    compute = waiting = hidden = None
    if cost is not None:
        compute = cost.cycles / tpu.chip.clock
        waiting = cost.waiting_bytes / tpu.interconnect if tpu.chips > 1 else 0.0
        hidden = cost.hidden_bytes / tpu.interconnect if tpu.chips > 1 else 0.0
    return _finish(
        question,
        name=tpu.name,
        hosts=tpu.hosts,
        mesh=mesh,
        program=largest_program,
        peak_flops=tpu.chip.peak_flops,
        hbm_bytes=tpu.chip.hbm_bytes,
        peak_bytes=largest.peak_bytes,
        fits=typical.fits and largest.fits,
        flops=None if cost is None else cost.flops,
        collectives=None if cost is None else cost.collective_bytes,
        compute_seconds=compute,
        collective_seconds=None if waiting is None else waiting + hidden,
        # Asynchronous collectives run beside the products; synchronous ones stop them.
        step_seconds=None if compute is None else max(compute, hidden) + waiting,
        problem=largest.problem or typical.problem,
        compile_seconds=typical.seconds + (largest.seconds if largest is not typical else 0.0),
        compile_resident=largest.resident_bytes,
        loops=() if cost is None else cost.loops,
        kernels={} if cost is None else cost.kernels,
        method="compiled for the slice, estimated_cycles rolled up over loops",
    )


def plan_gpu(question: Question, gpu: Gpu, *, count: int) -> Plan:
    """Plan for `count` GPUs of one machine by arithmetic alone.

    Raises:
        UserError: a mesh or batch that does not divide.
    """
    mesh = make_mesh(question.settings.mesh, stand_ins(count))
    check_batch(question.settings, mesh)
    program = make_plan_program(question, mesh, length=question.longest)
    at_length = make_plan_program(question, mesh, length=question.text_length)
    accumulation = question.settings.optimizer.accumulation
    flops = traced.gradient_flops(at_length, accumulation=accumulation) / count
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    activations = traced.saved_bytes(program, accumulation=accumulation) / parts
    held = resident(program, mesh)
    # The gradient, and the logits with theirs in float32.
    peak = held.total + activations + held.trainable + _logit_bytes(question, parts)
    base = held.base * mesh.shape["fsdp"] * mesh.shape["tensor"]
    gathered = 2 * base * accumulation if mesh.shape["fsdp"] > 1 else 0.0
    reduced = held.trainable if count > 1 else 0.0
    collectives = {"all-gather": gathered, "all-reduce": reduced}
    compute = max(flops / (gpu.peak_flops * GPU_EFFICIENCY), 2 * held.base / gpu.hbm_bandwidth)
    moving = (gathered + 2 * reduced) / gpu.link_bandwidth
    return _finish(
        question,
        name=f"{gpu.name} x {count}",
        hosts=1,
        mesh=mesh,
        program=program,
        peak_flops=gpu.peak_flops,
        hbm_bytes=gpu.hbm_bytes,
        peak_bytes=peak,
        fits=peak + RESERVE_BYTES <= gpu.hbm_bytes,
        flops=flops,
        collectives=collectives,
        compute_seconds=compute,
        collective_seconds=moving,
        step_seconds=max(compute, moving),
        problem="",
        compile_seconds=0.0,
        compile_resident=0,
        loops=(),
        kernels={},
        method=f"arithmetic: products at {GPU_EFFICIENCY:.0%} of the data sheet's peak",
    )


class _Absent:
    """Stands for a device in a mesh that is used for its shape only."""

    platform = device_kind = "absent"
    process_index = 0

    def __init__(self, index: int):
        self.id = index


def stand_ins(count: int) -> list[Any]:
    """Devices for a mesh on which nothing is compiled."""
    return [_Absent(index) for index in range(count)]


def make_plan_program(question: Question, mesh: Mesh, *, length: int) -> Program:
    """The step with rows of `length` text tokens, on `mesh`."""
    return make_program(
        question.settings,
        mesh=mesh,
        steps=max(question.steps, question.settings.optimizer.warmup_steps + 1),
        text_length=length,
        labels=TAGS,
    )


def _logit_bytes(question: Question, parts: int) -> float:
    llama = question.settings.model.llama
    if llama is None:
        return 0.0
    rows = question.rows / parts / question.settings.optimizer.accumulation
    return 2 * 4.0 * rows * question.longest * llama.vocab_size


def _finish(
    question: Question,
    *,
    name: str,
    hosts: int,
    mesh: Mesh,
    program: Program,
    peak_flops: float,
    hbm_bytes: float,
    peak_bytes: float,
    fits: bool,
    flops: float | None,
    collectives: dict[str, float] | None,
    compute_seconds: float | None,
    collective_seconds: float | None,
    step_seconds: float | None,
    problem: str,
    compile_seconds: float,
    compile_resident: int,
    loops: tuple[tuple[str, int | None], ...],
    kernels: dict[str, float],
    method: str,
) -> Plan:
    settings, devices = question.settings, mesh.size
    accumulation = settings.optimizer.accumulation
    held = resident(program, mesh)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    activations = traced.saved_bytes(program, accumulation=accumulation) / parts
    real = model_flops(program.size, question.real_work())
    padded = model_flops(program.size, question.padded_work())
    again = recomputed_flops(question, mesh=mesh)
    rates: dict[str, Any] = dict.fromkeys(
        ("pairs_per_second", "rows_per_second", "mfu_bound", "padded_mfu_bound", "hours_for_stage")
    )
    if step_seconds is not None:
        rates = {
            "pairs_per_second": question.pairs_per_step / step_seconds,
            "rows_per_second": question.rows / step_seconds,
            "mfu_bound": mfu(real, seconds=step_seconds, peak=devices * peak_flops),
            "padded_mfu_bound": mfu(padded, seconds=step_seconds, peak=devices * peak_flops),
            "hours_for_stage": question.steps * step_seconds / 3600,
        }
    return Plan(
        slice=name,
        devices=devices,
        hosts=hosts,
        fits=fits,
        method=method,
        peak_bytes_per_chip=peak_bytes,
        hbm_bytes_per_chip=hbm_bytes,
        headroom_bytes=hbm_bytes - peak_bytes,
        base_bytes=held.base,
        trainable_bytes=held.trainable,
        optimiser_bytes=held.optimiser,
        batch_bytes=held.batch,
        activation_bytes=activations,
        temporary_bytes=max(0.0, peak_bytes - held.total - activations),
        flops_per_device=flops,
        hand_flops_per_device=(padded + again) / devices,
        recomputed_flops_per_device=again / devices,
        model_flops_per_step=real,
        collective_bytes_per_step=collectives,
        compute_seconds=compute_seconds,
        collective_seconds=collective_seconds,
        est_step_seconds=step_seconds,
        **rates,
        stage=settings.stage,
        pairs_of_stage=question.pairs,
        steps=question.steps,
        layout={
            "rows": settings.data.layout,
            "mesh": {axis: int(size) for axis, size in mesh.shape.items()},
            "features": settings.data.features,
        },
        batch={
            "rows": question.rows,
            "pairs_per_row": question.pairs_per_row,
            "clips_per_row": question.clips_per_row,
            "filled_text": question.filled_text,
            "filled_clips": question.clips_per_row / clip_places(settings),
            "text_length": question.text_length,
            "longest_text_length": question.longest,
            "mean_text": question.mean_text,
            "accumulation": accumulation,
        },
        compute={
            field.name: getattr(settings.compute, field.name)
            for field in dataclasses.fields(settings.compute)
            if field.name != "compilation_cache"
        },
        loops=loops,
        kernels=kernels,
        problem=problem,
        advice=() if fits else advice(settings, held, mesh=mesh, hbm_bytes=hbm_bytes),
        compile_seconds=compile_seconds,
        compile_resident_bytes=compile_resident,
        versions=versions(),
    )


def recomputed_flops(question: Question, *, mesh: Mesh) -> float:
    """FLOPs that the remat policy adds to a step, all devices: traced with and without it."""
    counts = []
    for remat in {question.settings.compute.remat, "none"}:
        compute = dataclasses.replace(question.settings.compute, remat=remat)
        settings = dataclasses.replace(question.settings, compute=compute)
        other = dataclasses.replace(question, settings=settings)
        program = make_plan_program(other, mesh, length=question.text_length)
        accumulation = settings.optimizer.accumulation
        counts.append(traced.gradient_flops(program, accumulation=accumulation))
    return max(counts) - min(counts)


def versions() -> dict[str, str]:
    """Versions that an estimate depends on, and the day it was made."""
    found = {"date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    for name in ("ltu_jax", "jax", "jaxlib", "flax", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "libtpu": aot.libtpu_version()}
