"""`python -m ltu_jax.train --replay FILE`: a skipped batch again, on what the run has become."""

import json
import shutil

import numpy as np
import pytest

from ltu_jax import train
from ltu_jax.core.errors import UserError
from ltu_jax.models.text_batch import TARGET_IDS
from ltu_jax.training.resilience import bad_batches
from tests.support.tiny_stage import ROOT, arguments, make_place

pytestmark = pytest.mark.slow
STEP = 3  # the last one


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose last step was skipped: another one's targets made its loss jump."""
    place = make_place(tmp_path_factory.mktemp("replay"))

    def spoilt(stage, *, start_step):
        for step, batch in enumerate(stage.pipeline.batches(start_step=start_step), start_step):
            if step == STEP:
                wanted = batch[TARGET_IDS]
                batch = {**batch, TARGET_IDS: np.where(wanted > 0, 319, wanted)}
            yield batch

    patch = pytest.MonkeyPatch()
    patch.chdir(ROOT)
    mesh = ["--config.mesh.data=2", "--config.log.validate_batches=0"]
    spikes = ["--config.guards.spike_sigma=1.5", "--config.guards.spike_window=3"]
    command = arguments(place, place / "run", *mesh, *spikes)
    assert train.main(command, batches=spoilt) == 0
    yield place / "run"
    patch.undo()


@pytest.fixture
def file(run):
    return bad_batches.path_of(run, STEP)


def test_replay_gives_the_numbers_of_the_skipped_step(run, file, capsys):
    _, bad = bad_batches.read_batch(file)
    assert (bad.stage, bad.step, bad.reason) == ("stage3", STEP, "spike")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["skipped_steps"] == 1 and 0 < summary["goodput"] < 1
    before = sorted(path for path in run.rglob("*"))
    capsys.readouterr()
    assert train.main(["--replay", str(file)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "stage3 step 3, skipped as spike"
    numbers = f"loss {bad.loss!r}, gradient norm {bad.grad_norm!r}"
    assert told[1:4] == [
        f"then: {numbers}",
        f"now:  {numbers} (checkpoint of step 4)",
        "batch: all entries are finite",
    ]
    assert len(told) == 4 + 8 and told[4] == f"row 0: {bad.rows[0]}" and " pairs " in told[4]
    assert sorted(path for path in run.rglob("*")) == before


def test_a_file_elsewhere_and_a_batch_of_another_shape_are_refused(run, file, tmp_path):
    shutil.copy(file, tmp_path / file.name)
    with pytest.raises(UserError, match="does not lie in the run it comes from"):
        train.main([f"--replay={tmp_path / file.name}"])
    batch, bad = bad_batches.read_batch(file)
    for change, message in (
        ({"features": batch["features"][:4]}, r"features is float32 \(4, "),
        ({"positions": batch["positions"].astype(np.float32)}, "positions is float32"),
        ({"more": batch["positions"]}, "a batch of stage3 has "),
    ):
        wrong = bad_batches.save_batch(
            run, {**batch, **change}, facts=bad_batches.BadStep(**{**vars(bad), "step": 9}), keep=9
        )
        with pytest.raises(UserError, match=message):
            train.main(["--replay", str(wrong)])
        wrong.unlink()


def test_a_damaged_checkpoint_is_named(run, file, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "4"
    largest = max(newest.rglob("adapter/d/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"checkpoints/4 is damaged: .*{largest.name}"):
        train.main(["--replay", str(bad_batches.path_of(tmp_path / "run", STEP))])


@pytest.mark.parametrize("given", [["--replay"], ["--replay", "a", "b"], ["--replay=a", "b"]])
def test_usage(given):
    with pytest.raises(UserError, match="usage: python -m ltu_jax.train --replay RUN/bad_batches"):
        train.main(given)
