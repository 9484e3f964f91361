"""`python -m ltu_jax.train` with the ablation configs, at toy size: what it is trained on."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from ltu_jax import checkpoint, train
from ltu_jax.core.errors import UserError
from ltu_jax.training.run_folder import refuse_other_config
from tests.support.tiny_stage import CONFIG, ROOT, arguments, make_place

pytestmark = pytest.mark.slow
DATASETS = {"audio_only": "mini_sound", "speech_only": "mini_speech"}
STEPS = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Toy weights and records, and the stage 3 of each ablation as a config file."""
    folder = make_place(tmp_path_factory.mktemp("ablations"))
    for name in DATASETS:
        text = CONFIG.replace("from configs import", f"from configs.ablations import {name} as")
        (folder / f"{name}.py").write_text(text.replace('"mini"', '"stage3-mini"'))
    return folder


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))


def command(place: Path, name: str, run_dir: Path, *more: str) -> list[str]:
    one = [f"--config.mesh.{axis}=1" for axis in ("data", "fsdp", "tensor")]
    short = [f"--config.steps={STEPS}", "--config.log.validate_batches=0"]
    _, *shared = arguments(place, run_dir, *one, *short)
    return [f"--config={place / name}.py", *shared, *more]


def logged(run_dir: Path, key: str) -> list:
    rows = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [row[key] for row in rows if key in row]


@pytest.mark.parametrize("name", DATASETS)
def test_an_ablation_is_trained_on_its_datasets(place, name, capsys):
    run_dir, dataset = place / name, DATASETS[name]
    assert train.main(command(place, name, run_dir), devices=jax.devices()[:1]) == 0
    (other,) = set(DATASETS.values()) - {dataset}
    (counts,) = logged(run_dir, "datasets")
    clips, pairs = (4, 11) if name == "audio_only" else (3, 7)
    assert counts["taken"] == {dataset: {"clips": clips, "pairs": pairs}}
    assert list(counts["left_out"]) == [other]
    printed = capsys.readouterr().out
    assert f"stage3: trained on {dataset} {clips} clips {pairs} pairs; left out {other}" in printed
    losses = logged(run_dir, "loss")
    assert len(losses) == STEPS and np.isfinite(losses).all()
    _, metadata = checkpoint.read_metadata(run_dir)
    assert metadata["config"]["data"]["datasets"] == [name.removesuffix("_only")]


def test_a_run_is_not_continued_on_other_datasets(place, tmp_path):
    everything = {"data": {"tasks": "all", "datasets": ["all"]}}
    listed = {"data": {"tasks": ["all"], "datasets": ["all"]}}
    refuse_other_config(everything, listed, run_dir=tmp_path)
    audio = {"data": {"tasks": "all", "datasets": ["audio"]}}
    with pytest.raises(UserError, match=r"data.datasets: \['all'\] -> \['audio'\]"):
        refuse_other_config(everything, audio, run_dir=tmp_path)
    with pytest.raises(UserError, match=r"data.datasets: '\(no such key\)' -> \['audio'\]"):
        refuse_other_config({"data": {"tasks": "all"}}, audio, run_dir=tmp_path)


def test_an_unknown_dataset_stops_the_command_before_training(place, tmp_path):
    wrong = command(place, "audio_only", tmp_path, "--config.data.datasets=('audio','music')")
    with pytest.raises(UserError) as error:
        train.main(wrong, devices=jax.devices()[:1])
    assert "data.datasets: 'music' is no group and no dataset there" in str(error.value)
    assert "\n" not in str(error.value) and not (tmp_path / "checkpoints").exists()
