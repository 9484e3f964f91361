"""Estimates of what a step needs and how long it takes, by the compiler or by arithmetic."""

import dataclasses
import datetime
import functools
import math
from typing import Any

from jax.sharding import Mesh

from ltu_jax.core import provenance
from ltu_jax.core.sharding import batch_ways, check_rows, make_mesh
from ltu_jax.planning import aot, traced
from ltu_jax.planning.plan_report import Compilation, Memory, Plan, Timing, Work
from ltu_jax.planning.plan_request import TAGS, PlanRequest
from ltu_jax.planning.slices import Gpu, Slice
from ltu_jax.planning.traced import ResidentBytes
from ltu_jax.training.flops import mfu, model_flops
from ltu_jax.training.program import Program, make_program

# What a well-shaped product reaches of a GPU's peak when nothing is known but arithmetic.
GPU_EFFICIENCY = 0.6
# Memory that the runtime and the next batch take beside the program.
RESERVE_BYTES = 1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """The devices that a plan is for; peak and memory are those of one."""

    name: str
    hosts: int
    mesh: Mesh
    peak_flops: float
    hbm_bytes: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepEstimate:
    """What the compiler or arithmetic says of one step on one device."""

    fits: bool
    peak_bytes: float
    collective_bytes: dict[str, float] | None
    compute_seconds: float | None
    collective_seconds: float | None
    seconds: float | None
    method: str
    loops: tuple[tuple[str, int | None], ...] = ()
    kernels: dict[str, float] = dataclasses.field(default_factory=dict)
    compilation: Compilation = Compilation()


def plan_slice(request: PlanRequest, tpu: Slice) -> Plan:
    """Compile the step for a TPU slice and read what the compiler says.

    The time is that of rows of `request.text_length`; whether it fits, that of `request.longest`
    (a second compilation where the two differ).

    Raises:
        UserError: libtpu missing, a mesh or batch that does not divide.
    """
    with aot.compiler():
        mesh = make_mesh(request.settings.mesh, aot.devices_of(tpu))
        check_batch(request, mesh)
        program = make_plan_program(request, mesh, length=request.text_length)
        typical = aot.compile_program(program, hbm_bytes=tpu.chip.hbm_bytes)
        largest = typical
        if typical.fits and request.longest != request.text_length:
            program = make_plan_program(request, mesh, length=request.longest)
            largest = aot.compile_program(program, hbm_bytes=tpu.chip.hbm_bytes)
    cost, timing = typical.cost, {}
    if cost is not None:
        compute = cost.cycles / tpu.chip.clock
        waiting = cost.waiting_bytes / tpu.interconnect if tpu.chips > 1 else 0.0
        hidden = cost.hidden_bytes / tpu.interconnect if tpu.chips > 1 else 0.0
        timing = {
            "compute_seconds": compute,
            "collective_seconds": waiting + hidden,
            # Asynchronous collectives run beside the products; synchronous ones stop them.
            "seconds": max(compute, hidden) + waiting,
            "loops": cost.loops,
            "kernels": cost.kernels,
        }
    step = StepEstimate(
        fits=typical.fits and largest.fits,
        peak_bytes=largest.peak_bytes,
        collective_bytes=None if cost is None else cost.collective_bytes,
        **{"compute_seconds": None, "collective_seconds": None, "seconds": None, **timing},
        method="compiled for the slice, estimated_cycles rolled up over loops",
        compilation=Compilation(
            problem=largest.problem or typical.problem,
            compile_seconds=typical.seconds + (largest.seconds if largest is not typical else 0.0),
            compile_resident_bytes=largest.resident_bytes,
        ),
    )
    machine = Machine(
        name=tpu.name,
        hosts=tpu.hosts,
        mesh=mesh,
        peak_flops=tpu.chip.peak_flops,
        hbm_bytes=tpu.chip.hbm_bytes,
    )
    return _plan(request, machine, step, program=program)


def plan_gpu(request: PlanRequest, gpu: Gpu, *, count: int) -> Plan:
    """Plan for `count` GPUs of one machine by arithmetic alone.

    Raises:
        UserError: a mesh or batch that does not divide.
    """
    mesh = make_mesh(request.settings.mesh, stand_ins(count))
    check_batch(request, mesh)
    program = make_plan_program(request, mesh, length=request.longest)
    accumulation = request.settings.optimizer.accumulation
    ways = batch_ways(mesh)
    activations = traced.saved_bytes(program, accumulation=accumulation) / ways
    resident = traced.resident_bytes(program, mesh)
    # The gradient, and the logits with theirs in float32.
    peak = resident.total + activations + resident.trainable + _logit_bytes(request, ways)
    base = resident.base * mesh.shape["fsdp"] * mesh.shape["tensor"]
    gathered = 2 * base * accumulation if mesh.shape["fsdp"] > 1 else 0.0
    reduced = resident.trainable if count > 1 else 0.0
    flops = step_flops(request, mesh=mesh)[0] / count
    compute = max(flops / (gpu.peak_flops * GPU_EFFICIENCY), 2 * resident.base / gpu.hbm_bandwidth)
    moving = (gathered + 2 * reduced) / gpu.link_bandwidth
    step = StepEstimate(
        fits=peak + RESERVE_BYTES <= gpu.hbm_bytes,
        peak_bytes=peak,
        collective_bytes={"all-gather": gathered, "all-reduce": reduced},
        compute_seconds=compute,
        collective_seconds=moving,
        seconds=max(compute, moving),
        method=f"arithmetic: products at {GPU_EFFICIENCY:.0%} of the data sheet's peak",
    )
    machine = Machine(
        name=f"{gpu.name} x {count}",
        hosts=1,
        mesh=mesh,
        peak_flops=gpu.peak_flops,
        hbm_bytes=gpu.hbm_bytes,
    )
    return _plan(request, machine, step, program=program)


class _Absent:
    """Stands for a device in a mesh that is used for its shape only."""

    platform = device_kind = "absent"
    process_index = 0

    def __init__(self, index: int):
        self.id = index


def stand_ins(count: int) -> list[Any]:
    """Return devices for a mesh on which nothing is compiled."""
    return [_Absent(index) for index in range(count)]


def check_batch(request: PlanRequest, mesh: Mesh) -> None:
    """Require that the batch divides over the mesh and its micro-batches; raises `UserError`."""
    check_rows(request.rows, mesh=mesh, accumulation=request.settings.optimizer.accumulation)


def make_plan_program(request: PlanRequest, mesh: Mesh, *, length: int) -> Program:
    """Return the step with rows of `length` text tokens, on `mesh`."""
    return make_program(
        request.settings,
        mesh=mesh,
        steps=max(request.steps, request.settings.optimizer.warmup_steps + 1),
        text_length=length,
        labels=TAGS,
    )


def _logit_bytes(request: PlanRequest, ways: int) -> float:
    llama = request.settings.model.llama
    if llama is None:
        return 0.0
    rows = request.rows / ways / request.settings.optimizer.accumulation
    return 2 * 4.0 * rows * request.longest * llama.vocab_size


def _plan(request: PlanRequest, machine: Machine, step: StepEstimate, *, program: Program) -> Plan:
    """Put a plan together; `program` is the step that decides whether it fits."""
    settings, mesh = request.settings, machine.mesh
    resident = traced.resident_bytes(program, mesh)
    useful = model_flops(program.size, request.real_work())
    padded = model_flops(program.size, request.padded_work())
    flops, again = step_flops(request, mesh=mesh)
    return Plan(
        slice=machine.name,
        devices=mesh.size,
        hosts=machine.hosts,
        fits=step.fits,
        method=step.method,
        stage=settings.stage,
        pairs_of_stage=request.pairs,
        steps=request.steps,
        layout={
            "rows": settings.data.layout,
            "mesh": {axis: int(size) for axis, size in mesh.shape.items()},
            "features": settings.data.features,
        },
        batch={
            "rows": request.rows,
            "pairs_per_row": request.pairs_per_row,
            "clips_per_row": request.clips_per_row,
            "filled_text": request.filled_text,
            "filled_clips": request.clips_per_row / request.clip_places,
            "text_length": request.text_length,
            "longest_text_length": request.longest,
            "mean_text": request.mean_text,
            "accumulation": settings.optimizer.accumulation,
        },
        compute={
            field.name: getattr(settings.compute, field.name)
            for field in dataclasses.fields(settings.compute)
            if field.name != "compilation_cache"
        },
        memory=_memory(machine, step, resident=resident, program=program, request=request),
        work=Work(
            flops_per_device=flops / mesh.size,
            hand_flops_per_device=(padded + again) / mesh.size,
            recomputed_flops_per_device=again / mesh.size,
            model_flops_per_step=useful,
            collective_bytes_per_step=step.collective_bytes,
            loops=step.loops,
            kernels=step.kernels,
        ),
        timing=_timing(request, machine, step, useful=useful, padded=padded),
        compilation=step.compilation,
        advice=() if step.fits else _advice(request, machine, resident=resident),
        versions=versions(),
    )


def _memory(
    machine: Machine,
    step: StepEstimate,
    *,
    resident: ResidentBytes,
    program: Program,
    request: PlanRequest,
) -> Memory:
    accumulation = request.settings.optimizer.accumulation
    saved = traced.saved_bytes(program, accumulation=accumulation)
    activations = saved / batch_ways(machine.mesh)
    return Memory(
        peak_bytes_per_chip=step.peak_bytes,
        hbm_bytes_per_chip=machine.hbm_bytes,
        headroom_bytes=machine.hbm_bytes - step.peak_bytes,
        base_bytes=resident.base,
        trainable_bytes=resident.trainable,
        optimiser_bytes=resident.optimiser,
        batch_bytes=resident.batch,
        activation_bytes=activations,
        temporary_bytes=max(0.0, step.peak_bytes - resident.total - activations),
    )


def _timing(
    request: PlanRequest, machine: Machine, step: StepEstimate, *, useful: float, padded: float
) -> Timing:
    """Return times and rates; `useful` and `padded` are FLOPs of a step on all devices."""
    seconds, rates = step.seconds, {}
    if seconds is not None:
        peak = machine.mesh.size * machine.peak_flops
        rates = {
            "pairs_per_second": request.pairs_per_step / seconds,
            "rows_per_second": request.rows / seconds,
            "mfu_bound": mfu(useful, seconds=seconds, peak=peak),
            "padded_mfu_bound": mfu(padded, seconds=seconds, peak=peak),
            "hours_for_stage": request.steps * seconds / 3600,
        }
    return Timing(
        compute_seconds=step.compute_seconds,
        collective_seconds=step.collective_seconds,
        est_step_seconds=seconds,
        **rates,
    )


def _advice(request: PlanRequest, machine: Machine, *, resident: ResidentBytes) -> tuple[str, ...]:
    """List settings that make a step smaller, the cheapest in time first."""
    settings, mesh = request.settings, machine.mesh
    lines = []
    if settings.compute.remat != "full":
        lines.append("--config.compute.remat=full (keeps one state per layer)")
    on_the_fly = settings.data.features == "on_the_fly"
    if on_the_fly and settings.compute.encoder_dtype == "float32":
        whisper = settings.model.whisper
        encoder = whisper.n_audio_layer * 12 * whisper.n_audio_state**2
        lines.append(
            f"--config.compute.encoder_dtype=bfloat16 (frees {2 * encoder / 1e9:.1f} GB of encoder)"
        )
    accumulation = settings.optimizer.accumulation
    rows = request.rows // batch_ways(mesh)
    if (micro := rows // accumulation) > 1:
        cuts = accumulation * min(micro, 2)
        lines.append(
            f"--config.optimizer.accumulation={cuts} (micro-batches of {rows // cuts} rows a "
            "device)"
        )
    sharded = mesh.shape["fsdp"] * mesh.shape["tensor"]
    crowded = resident.base > 0.6 * machine.hbm_bytes or sharded == 1
    if crowded and mesh.size > sharded:
        ratio = resident.base / (0.4 * machine.hbm_bytes)
        ways = min(mesh.size, max(2, 2 ** math.ceil(math.log2(max(1, ratio)))))
        fsdp = min(ways * mesh.shape["fsdp"], mesh.size)
        lines.append(
            f"--config.mesh.data=-1 --config.mesh.fsdp={fsdp} (the frozen base of "
            f"{resident.base / 1e9:.1f} GB a device in parts)"
        )
    if on_the_fly:
        lines.append("--config.data.features=stored (no encoder in the step)")
    return (*lines, "a larger slice, or fewer rows: --config.data.rows_per_batch")


@functools.lru_cache(maxsize=2)
def step_flops(request: PlanRequest, *, mesh: Mesh) -> tuple[float, float]:
    """Trace the gradient of a step with and without its remat policy.

    Returns:
        FLOPs of the step on all devices, and how many of them the policy computes again.
    """
    counts = {}
    for remat in (request.settings.compute.remat, "none"):
        compute = dataclasses.replace(request.settings.compute, remat=remat)
        settings = dataclasses.replace(request.settings, compute=compute)
        other = dataclasses.replace(request, settings=settings)
        program = make_plan_program(other, mesh, length=request.text_length)
        accumulation = settings.optimizer.accumulation
        counts[remat] = traced.gradient_flops(program, accumulation=accumulation)
    flops = counts[request.settings.compute.remat]
    return flops, flops - counts["none"]


def versions() -> dict[str, str]:
    """Return the versions that an estimate depends on, and the day it was made."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        **provenance.versions(("ltu_jax", "jax", "jaxlib", "flax", "numpy")),
        "libtpu": aot.libtpu_version(),
    }
