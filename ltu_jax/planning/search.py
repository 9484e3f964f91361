"""Trying layouts, batches, meshes, remat policies and micro-batches.

By arithmetic all, by the compiler the best.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

from data_pipelines.input.data_config import RowLayout
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.planning import traced
from ltu_jax.planning.plan import Plan, make_plan_program, stand_ins
from ltu_jax.planning.question import Question, ask, check_batch, resident
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
    """Settings to try, and what arithmetic expects of them."""

    question: Question
    bytes_per_chip: float
    seconds: float

    @property
    def seconds_per_pair(self) -> float:
        """Of the whole slice: steps of different batches can be compared by it."""
        return self.seconds / self.question.pairs_per_step

    def flags(self) -> str:
        """The settings as command-line flags."""
        settings = self.question.settings
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


def candidates(question: Question, tpu: Slice) -> list[Candidate]:
    """Every combination that should fit, fastest by arithmetic first."""
    found = []
    for asked in layouts(question, chips=tpu.chips):
        # What is kept and computed for a batch does not depend on how a mesh cuts it.
        costs: dict[tuple[str, int], tuple[float, float]] = {}
        for settings in _variants(asked.settings, chips=tpu.chips):
            one = dataclasses.replace(asked, settings=settings)
            candidate = _candidate(one, tpu, costs)
            if candidate is not None and candidate.bytes_per_chip <= tpu.chip.hbm_bytes:
                found.append(candidate)
    return sorted(found, key=lambda one: one.seconds_per_pair)


def layouts(question: Question, *, chips: int) -> list[Question]:
    """The layout that was asked for, and others of about as many pairs a step."""
    settings, found = question.settings, [question]
    if settings.stage == "tagging":
        return found
    pairs, audio = question.pairs_per_step, settings.model.audio_tokens
    most = settings.data.pairs_per_clip * settings.data.clips_per_row
    rows = [(RowLayout.SINGLE, max(1, round(pairs / chips)) * chips, settings.data.row_tokens)]
    for each in ROWS_PER_CHIP:
        several = pairs / (each * chips)
        heard = audio * settings.data.clips_per_row
        tokens = math.ceil((several * question.mean_text + heard) / _TILE) * _TILE - heard
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
            found.append(
                ask(
                    dataclasses.replace(settings, data=data),
                    text_length=None,
                    mean_text=question.mean_text,
                    pairs_per_row=None,
                    pairs=question.pairs,
                )
            )
    return found


def _candidate(
    asked: Question, tpu: Slice, costs: dict[tuple[str, int], tuple[float, float]]
) -> Candidate | None:
    """What arithmetic says of one combination; None where the mesh does not divide the model."""
    settings = asked.settings
    mesh = make_mesh(settings.mesh, stand_ins(tpu.chips))
    accumulation = settings.optimizer.accumulation
    try:
        check_batch(settings, mesh)
        program = make_plan_program(asked, mesh, length=asked.longest)
        held = resident(program, mesh)
    except UserError:
        return None
    key = settings.compute.remat, accumulation
    if key not in costs:
        saved = traced.saved_bytes(program, accumulation=accumulation)
        costs[key] = saved, traced.gradient_flops(program, accumulation=accumulation)
    saved, flops = costs[key]
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    gathered = 2.0 * held.base * mesh.shape["fsdp"] * accumulation
    moving = gathered / tpu.interconnect if mesh.shape["fsdp"] > 1 else 0.0
    compute = flops / tpu.chips / (tpu.chip.peak_flops * _EFFICIENCY)
    # Parts of a matrix on the tensor axis wait for each other's sums in every layer.
    wait = 0.15 * compute if mesh.shape["tensor"] > 1 else 0.0
    return Candidate(
        question=asked,
        bytes_per_chip=held.total + held.trainable + _WORKSPACE * saved / rows,
        seconds=max(compute, moving) + wait,
    )


def search(
    question: Question,
    tpu: Slice,
    *,
    compiles: int,
    plan: Callable[[Question, Slice], Plan],
    say: Callable[[str], None],
) -> list[tuple[Candidate, Plan]]:
    """Compile the most promising candidates; those that fit, fastest first.

    Args:
        question: the stage; its layout, batch, mesh, remat and accumulation are replaced.
        tpu: the slice.
        compiles: how many candidates to compile.
        plan: makes the plan of one (`plan_slice`).
        say: shows progress.

    Raises:
        UserError: nothing fits, even by arithmetic.
    """
    promising = candidates(question, tpu)
    if not promising:
        raise UserError(
            f"no mesh, remat policy or micro-batch fits {question.rows} rows on {tpu.name}; use a "
            "larger slice or fewer rows (--config.data.rows_per_batch)"
        )
    done: list[tuple[Candidate, Plan]] = []
    for number, candidate in enumerate(promising[:compiles], start=1):
        say(f"[{number}/{min(compiles, len(promising))}] {candidate.flags()}")
        made = plan(candidate.question, tpu)
        speed = f"{made.est_step_seconds:.3f} s" if made.est_step_seconds else "no time"
        say(f"    {'fits' if made.fits else 'does not fit'}, {speed}")
        done.append((candidate, made))
    fitting = [pair for pair in done if pair[1].fits and pair[1].est_step_seconds is not None]
    return sorted(fitting, key=lambda pair: -pair[1].pairs_per_second)


def _variants(settings: StageSettings, *, chips: int) -> Iterator[StageSettings]:
    for (fsdp, tensor), remat, parts in itertools.product(_meshes(chips), REMATS, ACCUMULATIONS):
        yield dataclasses.replace(
            settings,
            mesh=MeshConfig(data=chips // (fsdp * tensor), fsdp=fsdp, tensor=tensor),
            compute=dataclasses.replace(settings.compute, remat=remat),
            optimizer=dataclasses.replace(settings.optimizer, accumulation=parts),
        )


def _meshes(chips: int) -> Sequence[tuple[int, int]]:
    """(fsdp, tensor): whole copies, the base in 4 or 16 parts or in all, four tensor ranks."""
    sizes = [(1, 1), (4, 1), (16, 1), (chips, 1), (max(1, chips // 4), 4)]
    return sorted({(f, t) for f, t in sizes if chips % (f * t) == 0})
