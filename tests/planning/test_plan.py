"""The planner's arithmetic, its command line and its errors, without the TPU compiler."""

import dataclasses
import fcntl
import json
import math
import os
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

from ltu_jax import plan as command
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.models.text_batch import TARGET_IDS
from ltu_jax.planning import aot
from ltu_jax.planning.estimate import GPU_EFFICIENCY, check_batch, plan_gpu, stand_ins
from ltu_jax.planning.plan_report import plan_report
from ltu_jax.planning.plan_request import plan_request
from ltu_jax.planning.search import candidates
from ltu_jax.planning.slices import find_gpu, find_slice
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.train import parse_config, resolve
from ltu_jax.training.flops import count_work, mfu
from ltu_jax.training.stage_config import stage_settings

STAGE3 = "--config=configs/stage3.py"
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
KEYS = """
slice fits peak_bytes_per_chip flops_per_device hand_flops_per_device collective_bytes_per_step
est_step_seconds pairs_per_second mfu_bound hours_for_stage layout batch versions arguments
"""


def settings(*flags):
    single = ("--config.data.layout=single", "--config.data.rows_per_batch=256")
    return stage_settings(resolve(parse_config([STAGE3, *single, *flags]))[0])


def asked(*flags, **changes):
    known = dict(text_length=None, mean_text=None, pairs_per_row=None, pairs=None)
    return plan_request(settings(*flags), **{**known, **changes})


def test_rows_are_as_long_as_the_longest_unless_batches_are_of_like_length():
    like, mixed = asked(), asked("--config.data.group_by_length=0")
    # 78.2 tokens and the 4 that rounding up to eights adds in the mean; 108 tokens, in eights.
    assert (like.text_length, like.longest) == (83, 112)
    assert like.filled_text == pytest.approx(78.2 / 82.7, abs=0.01)
    assert (mixed.text_length, mixed.longest) == (112, 112)


def test_steps_and_work_of_a_stage():
    request = asked(pairs=2560.0, mean_text=50.0)
    assert request.steps == 10 and request.pairs_per_step == 256
    work = request.real_work()
    assert (work.clips, work.audio_tokens, work.text_tokens) == (256, 6400, 12800)
    assert work.context == 75.0
    assert work.targets == 12800 - 256  # nothing predicts the first token of a pair
    assert 256 * 50 < request.padded_work().text_tokens < 256 * 60


def test_planner_and_trainer_count_the_same_work():
    """Two rows with places for two clips: three pairs about two clips, one pair about one."""
    grouped = [STAGE3, "--config.data.rows_per_batch=2"]
    lengths = {(0, 1): 80, (0, 2): 70, (0, 3): 60, (1, 1): 50}
    segments, clips = np.zeros((2, 622), np.int32), np.zeros((2, 622), np.int32)
    targets = np.full((2, 480), IGNORE, np.int32)
    for row in range(2):
        own = {segment: size for (at, segment), size in lengths.items() if at == row}
        filled = np.repeat(list(own), list(own.values()))
        segments[row, : len(filled)] = filled
        clips[row, : len(filled)] = filled == 3
        targets[row, : len(filled) - len(own)] = 7  # all but the first of each pair
    batch = {"log_mel": np.zeros((2, 2, 10, 1)), "segment_ids": segments, "clip_ids": clips}
    trained = count_work({**batch, TARGET_IDS: targets}, audio_tokens=25, parts=1)
    planned = plan_request(
        stage_settings(resolve(parse_config(grouped))[0]),
        text_length=None, mean_text=65.0, pairs_per_row=2.0, clips_per_row=1.5, pairs=1e3,
    )  # fmt: skip
    assert planned.real_work() == trained
    assert planned.padded_work().clips == 4 and planned.padded_work().text_tokens == 2 * 622
    assert mfu(3e12, seconds=2.0, peak=1e13) == pytest.approx(0.15)


def test_rows_are_planned_as_they_fill():
    grouped = stage_settings(resolve(parse_config([STAGE3]))[0])
    known = dict(text_length=None, mean_text=None, pairs_per_row=None, pairs=None)
    found = plan_request(grouped, **known)
    # The model of Open-ASQA of benchmarks/results, forty times as small as the whole.
    model = json.loads((RESULTS / "row_layouts_open_asqa_model.json").read_text())
    row = model["layouts"]["grouped, 8 a clip, 2 clips, 622 tokens"]
    assert found.pairs_per_row == pytest.approx(row["pairs"] / row["rows"], rel=0.01)
    assert found.clips_per_row == pytest.approx(row["clips_per_row"], rel=0.02)
    assert found.filled_text == pytest.approx(1 - row["padding"], rel=0.01)
    assert found.steps == math.ceil(9_641_740 / found.pairs_per_step)
    assert plan_request(grouped, **known | {"pairs_per_row": 4.0}).filled_text == pytest.approx(
        4 * 78.2 / 622
    )


def test_pairs_are_counted_as_they_are_trained_on():
    assert asked().pairs == 9_641_740
    speech = asked("--config.data.datasets=('speech',)", "--config.data.tasks=classification")
    assert speech.pairs == 940_760 - 151_294
    config = resolve(parse_config(["--config=configs/stage1.py"]))[0]
    known = dict(text_length=None, mean_text=None, pairs_per_row=None, pairs=None)
    assert plan_request(stage_settings(config), **known).pairs == 2 * 2_072_481
    assert asked("--config.steps=5").pairs == 5 * 256


@pytest.mark.parametrize(
    "choice", ["tasks=caption", "tasks=cla_sound", "datasets=mine", "weights=poster"]
)
def test_pairs_that_are_not_known_must_be_said(choice):
    some = f"--config.data.{choice}"
    with pytest.raises(UserError, match="give --pairs, those of all epochs together"):
        asked(some)
    assert asked(some, pairs=2560.0).steps == 10


def test_pairs_that_do_not_fit_their_row_are_refused():
    with pytest.raises(UserError, match="rows of 80 text tokens cannot hold 2 pairs of 78.2"):
        asked(text_length=80, pairs_per_row=2.0)


def test_a_gpu_by_arithmetic():
    made = plan_gpu(asked("--config.data.rows_per_batch=64"), find_gpu("h200"), count=1)
    base = 2 * (6.738e9 + 266_240) + 2 * 637e6  # LLaMA with norms and the encoder, bfloat16
    trained = 48_793_600  # as the official code prints it
    assert made.memory.base_bytes == pytest.approx(base, rel=0.002)
    assert made.memory.trainable_bytes == 4 * trained and made.memory.optimiser_bytes == 8 * trained
    # 103.2 real tokens: 2.92 TFLOP and the encoder's 0.68 (performance notes).
    assert made.work.model_flops_per_step / 64 == pytest.approx(3.60e12, rel=0.01)
    assert made.work.flops_per_device == pytest.approx(made.work.hand_flops_per_device, rel=0.01)
    seconds = made.work.flops_per_device / (989e12 * GPU_EFFICIENCY)
    assert made.timing.est_step_seconds == pytest.approx(seconds)
    assert made.timing.pairs_per_second == pytest.approx(64 / seconds)
    assert made.timing.mfu_bound == pytest.approx(made.work.model_flops_per_step / seconds / 989e12)
    assert made.timing.hours_for_stage == pytest.approx(9_641_740 / 64 * seconds / 3600, rel=1e-4)
    assert made.fits and made.memory.headroom_bytes == 141e9 - made.memory.peak_bytes_per_chip


def test_what_does_not_fit_comes_with_settings_that_do():
    request = asked("--config.compute.remat=none")
    made = plan_gpu(request, find_gpu("a6000"), count=2)
    assert not made.fits
    assert made.advice[0].startswith("--config.compute.remat=full")
    assert any("--config.mesh.fsdp=2" in line for line in made.advice)
    text = plan_report(made)
    assert "DOES NOT FIT" in text and made.advice[1] in text


def test_sharding_divides_what_lies_on_a_chip():
    whole = plan_gpu(asked(), find_gpu("h100"), count=8)
    parts = plan_gpu(
        asked("--config.mesh.data=1", "--config.mesh.fsdp=8"), find_gpu("h100"), count=8
    )
    llama = 2 * 6.738e9
    assert whole.memory.base_bytes - parts.memory.base_bytes == pytest.approx(
        llama * 7 / 8, rel=0.001
    )
    assert parts.work.collective_bytes_per_step["all-gather"] > 2 * llama * 0.99


def test_a_batch_that_does_not_divide_names_the_nearest():
    mesh = make_mesh(MeshConfig(data=-1, fsdp=1, tensor=1), stand_ins(16))
    with pytest.raises(UserError, match=r"250 .* 16 .*rows_per_batch.* 240 and 256"):
        check_batch(asked("--config.data.rows_per_batch=250"), mesh)
    with pytest.raises(UserError, match=r" 8 .*rows_per_batch.* 16"):
        check_batch(asked("--config.data.rows_per_batch=8"), mesh)


def test_search_ranks_by_arithmetic_and_leaves_out_what_cannot_fit(monkeypatch):
    small = ["--config=configs/stage3.py:mini", "--config.data.rows_per_batch=64"]
    request = plan_request(
        stage_settings(resolve(parse_config(small))[0]),
        text_length=None, mean_text=40.0, pairs_per_row=None, pairs=None,
    )  # fmt: skip
    monkeypatch.setattr("ltu_jax.planning.search.REMATS", ("none", "full"))
    monkeypatch.setattr("ltu_jax.planning.search.ACCUMULATIONS", (1,))
    found = candidates(request, find_slice("v5e-16"))
    ranks = [one.seconds_per_pair for one in found]
    assert ranks == sorted(ranks)
    assert "--config.mesh.data=16 --config.mesh.fsdp=1" in found[0].flags()
    assert "remat=none" in found[0].flags()
    # Other layouts have about as many pairs a step, and rows for every chip.
    assert {one.request.settings.data.layout for one in found} == {"grouped", "single"}
    for one in found:
        assert one.request.rows % 16 == 0
        assert abs(one.request.pairs_per_step / request.pairs_per_step - 1) < 0.2
    chip = find_slice("v5e-16").chip
    tiny = dataclasses.replace(
        find_slice("v5e-16"), chip=dataclasses.replace(chip, hbm_bytes=10**6)
    )
    assert candidates(request, tiny) == []


def run(capsys, *arguments):
    status = command.main(list(arguments))
    return status, capsys.readouterr().out


def test_the_command_prints_and_writes_a_plan(capsys, tmp_path):
    target = tmp_path / "plan.json"
    flags = ("--gpu", "h200", "--config.data.rows_per_batch=32", "--json", str(target))
    status, printed = run(capsys, STAGE3, *flags)
    assert status == 0 and "FITS" in printed and "MFU bound" in printed and "estimates" in printed
    written = json.loads(target.read_text())
    assert set(KEYS.split()) <= written.keys()
    assert written["slice"] == "h200 x 1" and written["versions"]["jax"] == jax.__version__


def test_a_larger_language_model(capsys):
    _, printed = run(capsys, STAGE3, "--gpu", "h200", "--size", "llama-13b")
    base = 2 * 13.016e9 + 2 * 637e6
    assert f"base         {base / 1e9:8.2f} GB"[:-5] in printed


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "give either --slice"),
        (["--slice", "v5e-16", "--gpu", "h200"], "give either --slice"),
        (["--slice", "v5e-17"], "there is no v5e-17"),
        (["--gpu", "h200", "--search"], "--search needs the TPU compiler"),
        (["--gpu", "h200", "--gpus", "3"], r"32 rows .* data x fsdp = 3"),
        (["--gpu", "h200", "--gpus", "4", "--config.mesh.fsdp=3"], "mesh .*3.* 4 are present"),
        (["--gpu", "h200", "--stage", "stage1"], "'stage1' is not in this config"),
        (["--gpu", "h200", "--nonsense"], "nonsense"),
        (["--gpu", "h200", "--mean-text", "many"], "--mean-text: 'many' is no number"),
    ],
)
def test_errors_name_what_is_wrong(arguments, message):
    with pytest.raises(UserError, match=message):
        command.main([STAGE3, *arguments])


def test_a_curriculum_needs_a_stage():
    with pytest.raises(UserError, match="several stages; add --stage, one of tagging, stage1"):
        command.main(["--config=configs/curriculum.py", "--gpu", "h200"])


def test_the_version_of_a_compiler_elsewhere_is_read_beside_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(make_libtpu(tmp_path)))
    assert aot.libtpu_version() == "0.0.99.1"


def make_libtpu(folder):
    (folder / "libtpu").mkdir(parents=True)
    (folder / "libtpu" / "__init__.py").touch()
    (folder / "libtpu" / "libtpu.so").touch()
    (folder / "libtpu-0.0.99.1.dist-info").mkdir()
    return folder / "libtpu" / "libtpu.so"


def test_the_compiler_is_named_or_in_the_environment_or_installed(monkeypatch, tmp_path):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(aot.sys, "prefix", str(tmp_path / "venv"))
    installed = make_libtpu(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    assert aot.library() == installed
    fetched = make_libtpu(tmp_path / "venv" / "libtpu")
    assert aot.library() == fetched and aot.libtpu_version() == "0.0.99.1"
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "absent.so"))
    with pytest.raises(UserError, match=r"TPU_LIBRARY_PATH is .*absent.so, which is no file"):
        aot.devices_of(find_slice("v5e-4"))


def test_a_missing_compiler_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(aot.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(aot.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--target .*libtpu libtpu==.*--gpu h200"):
        aot.devices_of(find_slice("v5e-4"))
    assert aot.libtpu_version() == "not installed"
    constraints = Path(__file__).resolve().parents[2] / "constraints.txt"
    assert aot.LIBTPU in constraints.read_text().splitlines()  # what `make test` fetches


@pytest.mark.parametrize(
    "message, gigabytes",
    [
        ("Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded", 20.5),
        ("memory required for HLO temporaries (2.00T) exceeds available HBM (15.75G).", 2048),
        ("some other failure", None),
    ],
)
def test_reading_an_out_of_memory_message(message, gigabytes):
    found = aot._needed_bytes(message)
    assert found == (None if gigabytes is None else gigabytes * 2**30)


def test_the_lock_of_the_compiler_is_no_file_that_others_could_have_put_there(
    tmp_path, monkeypatch
):
    victim, shared = tmp_path / "victim", tmp_path / "tmp"
    victim.write_text("mine")
    shared.mkdir()
    (shared / f"ltu_jax_plan_{os.getuid()}.lock").symlink_to(victim)
    library = tmp_path / "libtpu.so"
    library.write_bytes(b"compiler")
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(library))
    with aot.compiler(), library.open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with library.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert victim.read_text() == "mine" and len(list(shared.iterdir())) == 1
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "none"))
    with aot.compiler():
        pass
