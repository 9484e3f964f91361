"""Each preset of a machine, without the compiler: its batch divides, its pairs are 256, it fits."""

import functools
import json

import pytest

from benchmarks import plan
from configs import slice_presets
from ltu_jax.core.errors import UserError
from ltu_jax.core.hardware import GPUS
from ltu_jax.core.sharding import batch_ways, make_mesh
from ltu_jax.planning import traced
from ltu_jax.planning.estimate import RESERVE_BYTES, check_batch, make_plan_program, stand_ins
from ltu_jax.planning.plan_request import PlanRequest, plan_request
from ltu_jax.planning.slices import find_slice
from ltu_jax.train import parse_config, resolve
from ltu_jax.training.program import Program
from ltu_jax.training.stage_config import stage_settings

STAGES = ("stage1", "stage2", "stage3")
MACHINES = tuple(slice_presets.TABLE)


def flags_of(stage: str, preset: str) -> str:
    return f"--config=configs/{stage}.py:{preset}"


@functools.cache
def asked(stage: str, preset: str) -> PlanRequest:
    settings = stage_settings(resolve(parse_config([flags_of(stage, preset)]))[0])
    return plan_request(settings, text_length=None, mean_text=None, pairs_per_row=None, pairs=None)


def machine_of(name: str) -> tuple[int, float]:
    """Chips, and bytes of one, of the machine of a preset."""
    machine = slice_presets.TABLE[name].machine
    if machine in GPUS:
        return 1, GPUS[machine].hbm_bytes
    return find_slice(machine).chips, find_slice(machine).chip.hbm_bytes


SAVED: dict[tuple, float] = {}


def saved_bytes(request: PlanRequest, program: Program) -> float:
    """What all chips keep between forward and backward pass; traced once for equal shapes."""
    settings = request.settings
    accumulation, base = settings.optimizer.accumulation, settings.compute.base_dtype
    shapes = settings.stage, request.rows, request.longest, accumulation, base
    if shapes not in SAVED:
        SAVED[shapes] = traced.saved_bytes(program, accumulation=accumulation)
    return SAVED[shapes]


def needed(stage: str, name: str, recipe: str = "") -> float:
    """Bytes of a chip by arithmetic: what lies there, activations, gradient, float32 logits."""
    request = asked(stage, "-".join(filter(None, (recipe, name))))
    mesh = make_mesh(request.settings.mesh, stand_ins(machine_of(name)[0]))
    program = make_plan_program(request, mesh, length=request.longest)
    resident, ways = traced.resident_bytes(program, mesh), batch_ways(mesh)
    rows = request.rows / ways / request.settings.optimizer.accumulation
    logits = 2 * 4.0 * rows * request.longest * 32_000
    return resident.total + resident.trainable + saved_bytes(request, program) / ways + logits


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("stage", ("tagging", *STAGES))
def test_every_preset_divides_over_its_machine(stage, name):
    settings = asked(stage, name).settings
    chips, _ = machine_of(name)
    mesh = make_mesh(settings.mesh, stand_ins(chips))
    check_batch(asked(stage, name), mesh)
    assert mesh.size == chips and -1 not in (settings.mesh.data, settings.mesh.fsdp)
    # A preset is where a stage runs: its run goes on from the same folders.
    plain = resolve(parse_config([f"--config=configs/{stage}.py"]))[0]
    here = resolve(parse_config([flags_of(stage, name)]))[0]
    assert {key for key in plain if plain[key] != here[key]} <= {"data", "mesh", "compute"}


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_has_about_256_pairs(stage, name):
    assert asked(stage, name).pairs_per_step == pytest.approx(256, rel=0.05)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("stage", STAGES[1:])  # stage 1 trains less in rows of stage 2
def test_a_step_fits(stage, name):
    assert needed(stage, name) + RESERVE_BYTES <= machine_of(name)[1]


def test_the_committed_plan_is_of_the_step_that_runs():
    """All that the compiler does not decide; `python -m benchmarks.plan --check` has the rest."""
    committed = json.loads((plan.RESULTS / "plan_v5e-16.json").read_text())
    request = asked("stage3", "v5e-16")
    mesh = make_mesh(request.settings.mesh, stand_ins(16))
    program = make_plan_program(request, mesh, length=request.text_length)
    resident = traced.resident_bytes(program, mesh)
    flops = traced.gradient_flops(program, accumulation=committed["batch"]["accumulation"])
    made = {
        "flops_per_device": flops / mesh.size,
        "activation_bytes": saved_bytes(request, program) / batch_ways(mesh),
        "base_bytes": resident.base,
        "trainable_bytes": resident.trainable,
        "optimiser_bytes": resident.optimiser,
        "batch_bytes": resident.batch,
    }
    assert made == pytest.approx({name: committed[name] for name in made}, rel=0.005)
    assert committed["flops_per_device"] <= 1.05 * committed["hand_flops_per_device"]


def test_the_default_does_not_fit_where_its_preset_does():
    """bfloat16 needs 21.5 of 16.9 GB on the v5e-16 that the pages send people to."""
    plain = needed("stage3", "v4-32_bfloat16")  # the settings without a preset, on 16 chips too
    assert plain > machine_of("v5e-16")[1] * 1.2


@pytest.mark.parametrize(
    ("stage", "name", "accumulation"),
    [("stage3", "v5e-16", 2), ("stage2", "v5e-16", 3), ("stage3", "h200", 2)],
)
def test_the_released_step_is_cut_into_micro_batches_that_fit(stage, name, accumulation):
    request = asked(stage, f"released-{name}")
    assert request.settings.optimizer.accumulation == accumulation
    assert request.settings.data.micro_rows in (4, 6)  # the loss is still that of official ones
    assert needed(stage, name, "released") + RESERVE_BYTES <= machine_of(name)[1]


def test_a_released_batch_that_does_not_divide_is_refused_by_name():
    with pytest.raises(UserError, match=r"released-v5e-64: the 240 rows .* 64 chips.*:v5e-64"):
        parse_config([flags_of("stage2", "released-v5e-64")])


def test_a_whole_curriculum_runs_on_a_machine():
    stages = resolve(parse_config(["--config=configs/curriculum.py:v5e-64"]))
    assert [stage["mesh"]["data"] for stage in stages] == [64] * 4
    for stage, alone in zip(stages, ("tagging", *STAGES), strict=True):
        assert stage == resolve(parse_config([flags_of(alone, "v5e-64")]))[0]


@pytest.mark.parametrize("preset", ["mini-v5e-16", "v5e-17", "v5e-16-released"])
def test_presets_that_do_not_exist(preset):
    with pytest.raises(UserError, match=f"{preset}.*'v5e-16'.*'released-h200'"):
        parse_config([flags_of("stage3", preset)])
