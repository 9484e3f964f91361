"""A stage that leaves part of the adapter as it was: after a resume it is still what it was."""

import shutil

import numpy as np
import pytest
from tiny_stage import CONFIG, ROOT, arguments, make_place

from ltu_jax import train
from ltu_jax.training import checkpoint
from ltu_jax.training.logs import read_rows

pytestmark = pytest.mark.slow

# The TLTR is frozen, as in stage 1.
PROJECTION = CONFIG.replace(
    "    return config",
    "    config.model.lora, config.optimizer.group_multipliers = None, ()\n"
    "    config.trainable = common.PROJECTION_ONLY\n"
    "    config.mesh.data, config.checkpoint.every, config.log.validate_batches = 2, 1, 0\n"
    "    return config",
).replace("from configs import stage3", "from configs import common, stage3")


def train_in(place, name, *more):
    assert train.main(arguments(place, place / name, *more)) == 0
    return place / name


def test_a_frozen_tltr_outlives_a_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    place = make_place(tmp_path)
    (place / "tiny.py").write_text(PROJECTION)
    before = train_in(place, "before", "--config.seed=7", "--config.steps=1")
    start = ("--config.steps=2", f"--config.init_from={before}")
    whole = train_in(place, "whole", *start)
    (place / "broken" / "checkpoints").mkdir(parents=True)
    shutil.copytree(whole / "checkpoints" / "1", place / "broken" / "checkpoints" / "1")
    broken = train_in(place, "broken", *start)
    _, inherited = checkpoint.load_adapter(before)
    (_, truth), (_, found) = checkpoint.load_adapter(whole), checkpoint.load_adapter(broken)
    assert found.keys() == truth.keys() == inherited.keys()
    for path, leaf in truth.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)
        if path.startswith("tltr."):
            np.testing.assert_array_equal(leaf, inherited[path], err_msg=path)
    losses = [
        [
            row["loss"]
            for row in read_rows(run / "log.jsonl")
            if row.get("step") == 2 and "loss" in row
        ]
        for run in (whole, broken)
    ]
    assert losses[0] == losses[1] != []
