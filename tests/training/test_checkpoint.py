"""Checkpoints: resume to the bit, retention, damage, other sizes."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from ltu_jax import checkpoint
from ltu_jax.checkpoint import CheckpointError
from ltu_jax.training.state import state_shardings
from ltu_jax.weights.lineage import is_adapter
from tests.support.golden_model import STAGE1, STAGE3, make_trainer, optimizer_config

METADATA = {"kind": "ltu-as-checkpoint", "stage": "stage3", "model": {}, "config": {"seed": 0}}


@pytest.fixture(scope="module")
def batches(tiny):
    rng = np.random.default_rng(0)
    return [
        {**tiny.batch, "features": rng.normal(size=tiny.batch["features"].shape).astype("f")}
        for _ in range(4)
    ]


def trainer_of(tiny, *, rules=STAGE3):
    config = optimizer_config(learning_rate=1e-3, warmup_steps=1)
    return make_trainer(tiny, rules=rules, config=config, steps=6)


def restore(path, *, like, mesh):
    return checkpoint.restore(path, like=like, shardings=state_shardings(like, mesh=mesh))


def save(run_dir, trainer, state, *, keep=2):
    frozen = {path: leaf for path, leaf in trainer.frozen.items() if is_adapter(path)}
    adapter = {**state.trainable, **frozen}
    return checkpoint.save(run_dir, state=state, adapter=adapter, metadata=METADATA, keep=keep)


@pytest.fixture(scope="module")
def run(tiny, batches, tmp_path_factory):
    """A run with checkpoints at steps 1 and 2, and what two more steps give."""
    run_dir = tmp_path_factory.mktemp("run")
    trainer = trainer_of(tiny)
    state, rows = trainer.run(batches[:1])
    save(run_dir, trainer, state)
    trainer = dataclasses.replace(trainer, state=state)
    state, _ = trainer.run(batches[1:2])
    save(run_dir, trainer, state)
    trainer = dataclasses.replace(trainer, state=state)
    state, rows = trainer.run(batches[2:])
    return run_dir, jax.device_get(state), rows


def test_resuming_gives_identical_losses_and_parameters(tiny, batches, run):
    run_dir, expected, expected_rows = run
    trainer = trainer_of(tiny)
    state, metadata = restore(run_dir, like=trainer.state, mesh=trainer.mesh)
    assert int(state.step) == metadata["step"] == 2
    state, rows = dataclasses.replace(trainer, state=state).run(batches[2:])
    assert rows == expected_rows
    for found, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(found), wanted)


def test_metadata_describes_the_checkpoint(tiny, run):
    folder, metadata = checkpoint.read_metadata(run[0])
    assert folder.name == "2" and metadata["ltu_jax"] == 2
    assert {key: metadata[key] for key in METADATA} == METADATA
    adapter = {path: leaf for path, leaf in tiny.params.items() if is_adapter(path)}
    assert metadata["parameters"] == {path: list(leaf.shape) for path, leaf in adapter.items()}


def test_adapter_loads_as_numpy_from_a_run_or_a_step(run):
    metadata, newest = checkpoint.load_adapter(run[0])
    assert metadata["step"] == 2 and all(isinstance(leaf, np.ndarray) for leaf in newest.values())
    metadata, older = checkpoint.load_adapter(run[0] / "checkpoints" / "1")
    assert metadata["step"] == 1 and newest.keys() == older.keys()
    assert any((newest[path] != older[path]).any() for path in newest)


def test_stage_1_keeps_the_parameters_it_does_not_train(tiny_stage1, batches, tmp_path):
    trainer = trainer_of(tiny_stage1, rules=STAGE1)
    state, _ = trainer.run(batches[:2])
    save(tmp_path, trainer, state)
    _, saved = checkpoint.load_adapter(tmp_path)
    np.testing.assert_array_equal(
        saved["tltr.time_tr.attn.query.kernel"],
        tiny_stage1.params["tltr.time_tr.attn.query.kernel"],
    )
    fresh = trainer_of(tiny_stage1, rules=STAGE1)
    state, _ = restore(tmp_path, like=fresh.state, mesh=fresh.mesh)
    assert set(state.trainable) == {"audio_proj.kernel", "audio_proj.bias"}


def test_old_checkpoints_go_and_unfinished_ones_do_not_count(tiny, run, tmp_path):
    trainer = trainer_of(tiny)
    for step in range(1, 5):
        state = dataclasses.replace(trainer.state, step=np.int32(step))
        save(tmp_path, trainer, state, keep=2)
    (tmp_path / "checkpoints" / ".tmp-9").mkdir()
    (tmp_path / "checkpoints" / "9.damaged-1").mkdir()
    assert checkpoint.steps_in(tmp_path) == [3, 4]


def test_a_checkpoint_of_another_size_is_refused(tiny, run):
    trainer = trainer_of(tiny)
    wider = {
        path: jax.ShapeDtypeStruct((*leaf.shape[:-1], leaf.shape[-1] + 1), leaf.dtype)
        if path == "audio_proj.kernel"
        else leaf
        for path, leaf in trainer.state.trainable.items()
    }
    like = dataclasses.replace(trainer.state, trainable=wider)
    with pytest.raises(CheckpointError) as error:
        restore(run[0], like=like, mesh=trainer.mesh)
    assert "is of another size: audio_proj.kernel is (48, 64) there and (48, 65) here" in str(
        error.value
    )


def test_a_checkpoint_of_another_stage_is_refused(tiny, tiny_stage1, batches, tmp_path):
    trainer = trainer_of(tiny_stage1, rules=STAGE1)
    save(tmp_path, trainer, trainer.state)
    like = trainer_of(tiny)
    with pytest.raises(CheckpointError, match="lacks 4 parameters of this model: llama.*lora_a"):
        restore(tmp_path, like=like.state, mesh=like.mesh)


def test_a_folder_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="has no metadata.json and no checkpoints/<step>"):
        checkpoint.load_adapter(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint.load_adapter(tmp_path / "nowhere")


def test_another_format_is_refused(run, tmp_path):
    shutil.copytree(run[0] / "checkpoints" / "1", tmp_path / "1")
    metadata = json.loads((tmp_path / "1" / "metadata.json").read_text())
    (tmp_path / "1" / "metadata.json").write_text(json.dumps({**metadata, "ltu_jax": 99}))
    (tmp_path / "1" / "metadata.json.sha256").unlink()
    with pytest.raises(CheckpointError, match="format 99 of kind 'ltu-as-checkpoint'"):
        checkpoint.read_metadata(tmp_path / "1")
