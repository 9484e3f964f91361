"""Search of layouts, batches, meshes, remat policies and micro-batches.

Arithmetic ranks all of them; the compiler tries the best.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

from data_pipelines.input.data_config import RowLayout
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import MeshConfig, batch_ways, make_mesh
from ltu_jax.planning import traced
from ltu_jax.planning.estimate import check_batch, make_plan_program, stand_ins
from ltu_jax.planning.plan_report import Plan
from ltu_jax.planning.plan_request import PlanRequest, plan_request
from ltu_jax.planning.slices import Slice
from ltu_jax.training.stage_config import StageSettings

REMATS = ("none", "lora", "dots_with_no_batch_dims_saveable", "full")
ACCUMULATIONS = (1, 2)
ROWS_PER_CHIP = (1, 2, 4)
_TILE = 16  # positions; rows of a multiple of it have nothing to pad
# What products reach of the peak, to rank candidates before any is compiled.
_EFFICIENCY = 0.65
# A program's workspace beside arguments and saved activations, as a share of the latter.
_WORKSPACE = 1.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A combination of settings to try, and what arithmetic expects of it."""

    request: PlanRequest
    bytes_per_chip: float
    seconds: float

    @property
    def seconds_per_pair(self) -> float:
        """Of the whole slice: steps of different batches can be compared by it."""
        return self.seconds / self.request.pairs_per_step

    def flags(self) -> str:
        """Return the settings as command-line flags."""
        settings = self.request.settings
        values = {
            "data.layout": settings.data.layout,
            "data.rows_per_batch": settings.data.rows_per_batch,
            "data.row_tokens": settings.data.row_tokens,
            "mesh.data": settings.mesh.data,
            "mesh.fsdp": settings.mesh.fsdp,
            "mesh.tensor": settings.mesh.tensor,
            "compute.remat": settings.compute.remat,
            "optimizer.accumulation": settings.optimizer.accumulation,
        }
        return " ".join(f"--config.{name}={value}" for name, value in values.items())


def candidates(request: PlanRequest, tpu: Slice) -> list[Candidate]:
    """List every combination that should fit, fastest by arithmetic first."""
    fitting = []
    for variant in layouts(request, chips=tpu.chips):
        # What is kept and computed for a batch does not depend on how a mesh cuts it.
        costs: dict[tuple[str, int], tuple[float, float]] = {}
        for settings in _variants(variant.settings, chips=tpu.chips):
            combination = dataclasses.replace(variant, settings=settings)
            candidate = _candidate(combination, tpu, costs)
            if candidate is not None and candidate.bytes_per_chip <= tpu.chip.hbm_bytes:
                fitting.append(candidate)
    return sorted(fitting, key=lambda candidate: candidate.seconds_per_pair)


def layouts(request: PlanRequest, *, chips: int) -> list[PlanRequest]:
    """List the requested layout, and others of about as many pairs a step."""
    settings, variants = request.settings, [request]
    if settings.stage == "tagging":
        return variants
    pairs, audio = request.pairs_per_step, settings.model.audio_tokens
    most = settings.data.pairs_per_clip * settings.data.clips_per_row
    rows = [(RowLayout.SINGLE, max(1, round(pairs / chips)) * chips, settings.data.row_tokens)]
    for each in ROWS_PER_CHIP:
        several = pairs / (each * chips)
        listening = audio * settings.data.clips_per_row
        tokens = math.ceil((several * request.mean_text + listening) / _TILE) * _TILE - listening
        if 2 <= several <= most and tokens >= settings.data.cutoff:
            rows.append((RowLayout.GROUPED, each * chips, tokens))
    for layout, count, tokens in rows:
        data = dataclasses.replace(
            settings.data,
            layout=layout,
            rows_per_batch=count,
            row_tokens=tokens,
            lengths=(),
            micro_rows=0,
        )
        if data != settings.data:
            variants.append(
                plan_request(
                    dataclasses.replace(settings, data=data),
                    text_length=None,
                    mean_text=request.mean_text,
                    pairs_per_row=None,
                    pairs=request.pairs,
                )
            )
    return variants


def _candidate(
    request: PlanRequest, tpu: Slice, costs: dict[tuple[str, int], tuple[float, float]]
) -> Candidate | None:
    """Estimate one combination by arithmetic; None where the mesh does not divide the model."""
    settings = request.settings
    mesh = make_mesh(settings.mesh, stand_ins(tpu.chips))
    accumulation = settings.optimizer.accumulation
    try:
        check_batch(request, mesh)
        program = make_plan_program(request, mesh, length=request.longest)
        resident = traced.resident_bytes(program, mesh)
    except UserError:
        return None
    key = settings.compute.remat, accumulation
    if key not in costs:
        saved = traced.saved_bytes(program, accumulation=accumulation)
        costs[key] = saved, traced.gradient_flops(program, accumulation=accumulation)
    saved, flops = costs[key]
    gathered = 2.0 * resident.base * mesh.shape["fsdp"] * accumulation
    moving = gathered / tpu.interconnect if mesh.shape["fsdp"] > 1 else 0.0
    compute = flops / tpu.chips / (tpu.chip.peak_flops * _EFFICIENCY)
    # Parts of a matrix on the tensor axis wait for each other's sums in every layer.
    wait = 0.15 * compute if mesh.shape["tensor"] > 1 else 0.0
    return Candidate(
        request=request,
        bytes_per_chip=resident.total + resident.trainable + _WORKSPACE * saved / batch_ways(mesh),
        seconds=max(compute, moving) + wait,
    )


def search(
    request: PlanRequest,
    tpu: Slice,
    *,
    compiles: int,
    plan: Callable[[PlanRequest, Slice], Plan],
    say: Callable[[str], None],
) -> list[tuple[Candidate, Plan]]:
    """Compile the most promising candidates and return those that fit, fastest first.

    Args:
        request: the stage; its layout, batch, mesh, remat and accumulation are replaced.
        tpu: the slice.
        compiles: how many candidates to compile.
        plan: makes the plan of one (`plan_slice`).
        say: shows progress.

    Raises:
        UserError: nothing fits, even by arithmetic.
    """
    promising = candidates(request, tpu)
    if not promising:
        raise UserError(
            f"no mesh, remat policy or micro-batch fits {request.rows} rows on {tpu.name}; use a "
            "larger slice or fewer rows (--config.data.rows_per_batch)"
        )
    done: list[tuple[Candidate, Plan]] = []
    for number, candidate in enumerate(promising[:compiles], start=1):
        say(f"[{number}/{min(compiles, len(promising))}] {candidate.flags()}")
        planned = plan(candidate.request, tpu)
        speed = (
            f"{planned.timing.est_step_seconds:.3f} s"
            if planned.timing.est_step_seconds
            else "no time"
        )
        say(f"    {'fits' if planned.fits else 'does not fit'}, {speed}")
        done.append((candidate, planned))
    fitting = [
        pair for pair in done if pair[1].fits and pair[1].timing.est_step_seconds is not None
    ]
    return sorted(fitting, key=lambda pair: -pair[1].timing.pairs_per_second)


def _variants(settings: StageSettings, *, chips: int) -> Iterator[StageSettings]:
    for (fsdp, tensor), remat, parts in itertools.product(_meshes(chips), REMATS, ACCUMULATIONS):
        yield dataclasses.replace(
            settings,
            mesh=MeshConfig(data=chips // (fsdp * tensor), fsdp=fsdp, tensor=tensor),
            compute=dataclasses.replace(settings.compute, remat=remat),
            optimizer=dataclasses.replace(settings.optimizer, accumulation=parts),
        )


def _meshes(chips: int) -> Sequence[tuple[int, int]]:
    """List (fsdp, tensor): whole copies, the base in 4 or 16 parts or in all, four tensor ranks."""
    sizes = [(1, 1), (4, 1), (16, 1), (chips, 1), (max(1, chips // 4), 4)]
    return sorted({(f, t) for f, t in sizes if chips % (f * t) == 0})
