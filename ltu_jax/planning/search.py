"""Trying meshes, remat policies and micro-batches: by arithmetic all, by the compiler the best."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.models.layers import REMAT_POLICIES
from ltu_jax.planning import traced
from ltu_jax.planning.plan import Plan, make_plan_program, stand_ins
from ltu_jax.planning.question import Question, check_batch, resident
from ltu_jax.planning.slices import Slice
from ltu_jax.stages.settings import StageSettings

# Every policy but those that are "none" and "full" by another name, or wait for host memory.
_OTHER_NAMES = ("everything_saveable", "nothing_saveable", "lora_offload")
REMATS = ("none", *(name for name in REMAT_POLICIES if name not in _OTHER_NAMES), "full")
ACCUMULATIONS = (1, 2, 4)
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

    def flags(self) -> str:
        """The settings as command-line flags."""
        settings = self.question.settings
        mesh = settings.mesh
        return (
            f"--config.mesh.data={mesh.data} --config.mesh.fsdp={mesh.fsdp} "
            f"--config.mesh.tensor={mesh.tensor} --config.compute.remat={settings.compute.remat} "
            f"--config.optimizer.accumulation={settings.optimizer.accumulation}"
        )


def candidates(question: Question, tpu: Slice) -> list[Candidate]:
    """Every combination that should fit, fastest by arithmetic first."""
    found = []
    for settings in _variants(question.settings, chips=tpu.chips):
        mesh = make_mesh(settings.mesh, stand_ins(tpu.chips))
        asked = dataclasses.replace(question, settings=settings)
        try:
            check_batch(settings, mesh)
            program = make_plan_program(asked, mesh, length=asked.longest)
            held = resident(program, mesh)
        except UserError:
            continue  # this mesh divides neither heads nor batch: nothing to try
        accumulation = settings.optimizer.accumulation
        rows = mesh.shape["data"] * mesh.shape["fsdp"]
        saved = traced.saved_bytes(program, accumulation=accumulation) / rows
        size = held.total + held.trainable + _WORKSPACE * saved
        if size > tpu.chip.hbm_bytes:
            continue
        flops = traced.gradient_flops(program, accumulation=accumulation) / tpu.chips
        gathered = 2.0 * held.base * mesh.shape["fsdp"] * accumulation
        moving = gathered / tpu.interconnect if mesh.shape["fsdp"] > 1 else 0.0
        compute = flops / (tpu.chip.peak_flops * _EFFICIENCY)
        # Parts of a matrix on the tensor axis wait for each other's sums in every layer.
        wait = 0.15 * compute if mesh.shape["tensor"] > 1 else 0.0
        found.append(
            Candidate(question=asked, bytes_per_chip=size, seconds=max(compute, moving) + wait)
        )
    return sorted(found, key=lambda one: one.seconds)


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
        question: the stage; its mesh, remat and accumulation are replaced.
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
    return sorted(fitting, key=lambda pair: pair[1].est_step_seconds)


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
