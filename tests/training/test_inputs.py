"""Going on from a checkpoint over other base weights, tokenizer or records: refused by name."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.records.record_files import MANIFEST
from data_pipelines.records.whisper_features import FeatureExtractor
from data_pipelines.records.write import write_records
from ltu_jax import checkpoint, train
from ltu_jax.core.errors import UserError
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.training.run_folder import INPUTS, inputs_of
from ltu_jax.training.stage import assemble, open_bases
from ltu_jax.training.stage_config import stage_settings
from ltu_jax.training.state import TrainState
from ltu_jax.training.trainer import find_saved
from ltu_jax.weights.open import base_entry
from ltu_jax.weights.store import load_weights, save_weights
from tests.support.hub import served
from tests.support.tiny_stage import LLAMA, ROOT, WHISPER, arguments, make_place

EPOCH = ("--config.steps=0", "--config.data.epochs=4")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def place(whole, tmp_path, monkeypatch) -> Path:
    """A copy that may be changed."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    return Path(shutil.copytree(whole, tmp_path / "place"))


def opened(place: Path, *more: str):
    """The stage of a start in `place`, and its config."""
    given = arguments(place, place / "run", "--config.mesh.data=2", *more)
    (resolved,) = train.resolve(train.parse_config(given))
    settings = stage_settings(resolved)
    return assemble(settings, open_bases(settings)), resolved


def begun(place: Path, *more: str, step: int = 2, forget: tuple[str, ...] = ()) -> Path:
    """A run folder with the checkpoint that a start in `place` would leave after `step` steps."""
    stage, resolved = opened(place, *more)
    bases = {"whisper": stage.bases.whisper, "llama": stage.bases.llama}
    folder = place / "run" / checkpoint.FOLDER / str(step)
    metadata = {
        "kind": checkpoint.KINDS[0],
        "config": resolved,
        "base": {name: base_entry(found, relative_to=folder) for name, found in bases.items()},
        INPUTS: inputs_of(stage),
    }
    for name in forget:
        del metadata[name]
    params = {"audio_proj.bias": jnp.zeros(3)}
    state = TrainState(step=jnp.int32(step), trainable=params, opt_state={"m": jnp.zeros(3)})
    return checkpoint.save(place / "run", state=state, adapter=params, metadata=metadata, keep=1)


def goes_on(place: Path, *more: str):
    stage, resolved = opened(place, *more)
    return find_saved(stage, resolved=resolved, inputs=inputs_of(stage))


def other_weights(place: Path, name: str) -> None:
    """Replace a folder under the same path by weights of the same sizes, one number changed."""
    before = load_weights(place / name)
    made = {"whisper": (Whisper, WhisperConfig, WHISPER), "llama": (Llama.functional, LlamaConfig,
            LLAMA)}[name]  # fmt: skip
    params = {path: np.array(before.params[path]) for path in made[0](made[1](**made[2])).shapes}
    first = next(iter(params.values()))
    first.flat[0] += 1e-3
    files = [path for path in (place / name).glob("tokenizer*")]
    save_weights(
        place / name, kind=name, config=before.config, params=params, source={}, files=files
    )


def other_tokenizer(place: Path) -> None:
    """One byte of the tokenizer's own description, which is no number of the model."""
    (place / "llama" / "tokenizer_config.json").write_text("{}")
    config = place / "llama" / "config.json"
    model = place / "llama" / "tokenizer.model"
    content = bytearray(model.read_bytes())
    at = content.index(b"cat") if b"cat" in content else len(content) - 1
    content[at] ^= 1
    model.write_bytes(content)
    from ltu_jax.core.files import sha256_file

    told = json.loads(config.read_text())
    told["sha256"]["tokenizer.model"] = sha256_file(model)
    config.write_text(json.dumps(told))


@pytest.fixture(scope="module")
def fewer(whole, tmp_path_factory) -> Path:
    """Records of one clip of the training split."""
    from tests.support import records_corpus

    folder = tmp_path_factory.mktemp("fewer")
    clips = records_corpus.make_clips(folder / "audio")
    trained = [clip for clip in clips if clip.split == "train"]
    clips = trained[:1] + [clip for clip in clips if clip.split != "train"]
    labels = records_corpus.LABELS
    whisper = whole / "whisper"
    write_records(
        clips, folder / "made", tag_labels=labels, extractor=FeatureExtractor(whisper), shards=1
    )
    return folder / "made"


def fewer_records(place: Path, fewer: Path) -> None:
    shutil.rmtree(place / "records")
    shutil.copytree(fewer, place / "records")


def other_answers(place: Path, fewer: Path) -> None:
    """The manifest that a shard of other answers would have, all lengths being the same."""
    del fewer
    path = place / "records" / MANIFEST
    told = json.loads(path.read_text())
    shard = told["splits"]["train"]["shards"][0]
    shard["sha256"] = shard["sha256"][::-1]
    path.write_text(json.dumps(told))


def test_the_same_inputs_are_gone_on_with_also_in_another_place(place, capsys):
    begun(place)
    found = goes_on(place)
    assert (found.step, found.changed) == (2, {})
    moved = Path(shutil.move(place, place.with_name("moved")))
    assert goes_on(moved).changed == {}
    assert "not checked" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, names",
    [
        (lambda place, _: other_weights(place, "llama"), ["config.weights.llama"]),
        (lambda place, _: other_weights(place, "whisper"), ["config.weights.whisper"]),
        (other_answers, ["config.data.records"]),
        (fewer_records, ["config.data.records", "order of the"]),
    ],
    ids=["llama", "whisper", "answers", "fewer"],
)
def test_a_folder_replaced_under_the_same_path_is_refused_by_name(
    place, fewer, change, names, capsys
):
    stored = "--config.data.features=on_the_fly"  # stored features name their own encoder
    begun(place, stored)
    before, _ = opened(place, stored)
    change(place, fewer)
    after, _ = opened(place, stored)
    with pytest.raises(UserError) as error:
        goes_on(place, stored)
    assert "\n" not in str(error.value)
    for name in (*names, "--config.checkpoint.allow_other_inputs=True"):
        assert name in str(error.value)
    old, new = inputs_of(before), inputs_of(after)
    differing = [name for name in old if old[name]["sha256"] != new[name]["sha256"]]
    assert len(differing) == len(names)
    for name in differing:
        assert old[name]["sha256"][:12] in str(error.value)
        assert new[name]["sha256"][:12] in str(error.value)
    # ... unless it is asked for, and then it is told and logged.
    found = goes_on(place, stored, "--config.checkpoint.allow_other_inputs=True")
    assert found.step == 2 and set(found.changed) == set(differing)
    assert all(name in capsys.readouterr().err for name in names[:1])


def test_another_tokenizer_is_another_input(place):
    begun(place)
    other_tokenizer(place)
    with pytest.raises(UserError, match="the tokenizer"):
        goes_on(place)


def test_the_command_refuses_before_it_writes(place):
    begun(place)
    other_weights(place, "llama")
    before = {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*")}
    mesh = ["--config.mesh.data=2"]
    with pytest.raises(UserError, match=r"config\.weights\.llama"):
        train.main(arguments(place, place / "run", *mesh))
    after = {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*")}
    assert after == before


def test_a_checkpoint_that_does_not_name_its_inputs_is_refused(place):
    begun(place, forget=(INPUTS,))
    with pytest.raises(UserError) as error:
        goes_on(place)
    for name in ("tokenizer", "config.data.records", "order of the data", "--config.init_from"):
        assert name in str(error.value)


def test_records_that_give_fewer_steps_than_were_done(place, fewer):
    stage, _ = opened(place, *EPOCH)
    begun(place, *EPOCH, step=stage.steps)
    fewer_records(place, fewer)
    shorter, _ = opened(place, *EPOCH)
    assert shorter.steps < stage.steps
    with pytest.raises(UserError, match=r"config\.data\.records"):
        goes_on(place, *EPOCH)
    with pytest.raises(UserError) as error:
        goes_on(place, *EPOCH, "--config.checkpoint.allow_other_inputs=True")
    assert f"step {stage.steps}" in str(error.value) and f"{shorter.steps} steps" in str(
        error.value
    )


def test_weights_of_the_hub_and_of_a_bucket_are_those_of_the_disk(
    place, bucket, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = inputs_of(opened(place)[0])
    whisper = bucket.take(place / "whisper", "whisper")
    elsewhere = ("--config.weights.llama=hf:org/llama@v1.1", f"--config.weights.whisper={whisper}")
    with served({"org/llama": place / "llama"}, cache=tmp_path / "hub") as hub:
        there = inputs_of(opened(place, *elsewhere)[0])
    assert {n: e["sha256"] for n, e in there.items()} == {n: e["sha256"] for n, e in here.items()}
    assert there["llama"]["where"] == f"hf:org/llama@{hub.commit('org/llama')}"
    assert there["whisper"]["where"] == whisper
