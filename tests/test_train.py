"""`python -m ltu_jax.train`: the whole curriculum at toy size, resuming, and refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

import ltu_jax
from ltu_jax import checkpoint, train
from ltu_jax.convert import export_weights
from ltu_jax.core.errors import UserError
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.training import saving
from ltu_jax.weights import store
from ltu_jax.weights.fingerprint import KEY, Fingerprint
from ltu_jax.weights.store import save_weights
from tests.support import tiny_stage
from tests.support.tiny_stage import LLAMA

ROOT = Path(__file__).resolve().parent.parent

WHISPER = {**tiny_stage.WHISPER, "n_audio_layer": 2}

CONFIG = f"""
from ml_collections import ConfigDict
from configs import curriculum

def get_config(preset=""):
    config = curriculum.get_config("mini")
    config.mesh.data = 4
    config.mesh.tensor = 2
    for name in curriculum.STAGES:
        stage = config[name]
        stage.model.whisper = ConfigDict({WHISPER!r})
        stage.model.tltr = ConfigDict(dict(d_model=16, time_heads=1, layer_heads=8))
        if stage.model.llama is not None:
            stage.model.llama = ConfigDict({LLAMA!r})
        stage.steps = 4
        stage.data.rows_per_batch = 4
        stage.data.features = "on_the_fly"
        stage.data.workers = 0
        stage.data.cutoff = 108
        stage.data.lengths = (216,)  # one shape, one program
        stage.optimizer.warmup_steps = 1
        stage.log.every = 1
        stage.log.validate_batches = 1 if name in ("tagging", "stage3") else 0
        stage.checkpoint.every = 0
    config.stage3.log.samples = 2
    config.stage3.log.sample_tokens = 4
    config.stage3.optimizer.accumulation = 1
    config.stage3.data.clips_per_row = 2
    config.stage3.data.pairs_per_clip = 8
    config.stage3.optimizer.loss_mean = "token"
    return config[preset] if preset else config
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Toy weights, records and a config file in one folder."""
    folder = tiny_stage.make_place(tmp_path_factory.mktemp("place"))
    whisper = Whisper(WhisperConfig(**WHISPER))
    save_weights(
        folder / "whisper-2",
        kind="whisper",
        config=WHISPER,
        params={path: np.asarray(leaf) for path, leaf in whisper.init(jax.random.key(0)).items()},
        source={},
    )
    (folder / "tiny.py").write_text(CONFIG)
    return folder


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))


def arguments(place: Path, run_dir: Path, *more: str) -> list[str]:
    return [
        f"--config={place / 'tiny.py'}",
        f"--config.run_dir={run_dir}",
        f"--config.records={place / 'records'}",
        f"--config.weights.llama={place / 'llama'}",
        f"--config.weights.whisper={place / 'whisper-2'}",
        *more,
    ]


def stage_arguments(place: Path, stage: str, run_dir: Path, *more: str) -> list[str]:
    llama = [] if stage == "tagging" else [f"--config.weights.llama={place / 'llama'}"]
    return [
        f"--config={place / 'tiny.py'}:{stage}",
        f"--config.run_dir={run_dir}",
        f"--config.data.records={place / 'records'}",
        f"--config.weights.whisper={place / 'whisper-2'}",
        *llama,
        *more,
    ]


@pytest.fixture(scope="module")
def trained(place) -> Path:
    """A whole curriculum, trained once."""
    before = os.getcwd()
    os.chdir(ROOT)
    try:
        assert train.main(arguments(place, place / "run")) == 0
    finally:
        os.chdir(before)
    return place / "run"


def logged(run_dir: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def test_a_new_interpreter_trains_by_the_documented_command(place, trained, tmp_path):
    command = [sys.executable, "-m", "ltu_jax.train"]
    more = (f"--config.init_from={trained / 'tagging'}", "--config.steps=2")
    given = stage_arguments(place, "stage1", tmp_path / "run", *more)
    done = subprocess.run(
        [*command, *given], cwd=ROOT, env=tiny_stage.environment(devices=8),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [step for step, _ in logged(tmp_path / "run")] == [1, 2]


def test_each_stage_goes_on_from_the_one_before(trained):
    stages = {}
    for name in ("tagging", "stage1", "stage2", "stage3"):
        metadata, params = checkpoint.load_adapter(trained / name)
        assert (metadata["stage"], metadata["step"]) == (name, 4)
        stages[name] = params
    tltr = [path for path in stages["stage1"] if path.startswith("tltr.")]
    for path in tltr:  # stage 1 trains the projection alone
        np.testing.assert_array_equal(stages["stage1"][path], stages["tagging"][path])
    assert not any(".lora_" in path for path in stages["stage1"])
    assert any((stages["stage2"][p] != stages["stage1"][p]).any() for p in tltr)
    lora_b = "llama.layers.self_attn.q_proj.lora_b"
    assert stages["stage2"][lora_b].any() and (stages["stage3"][lora_b] != 0).any()
    assert not any("label_head" in path for path in stages["stage1"])


def test_a_checkpoint_says_what_it_is(trained, place):
    folder, metadata = checkpoint.read_metadata(trained / "stage3")
    assert metadata["kind"] == "ltu-as-checkpoint"
    assert metadata["model"]["llama"] == LLAMA and metadata["whisper_config"] == WHISPER
    for name, where in (("llama", "llama"), ("whisper", "whisper-2")):
        base = metadata["base"][name]
        assert (folder / base["path"]).resolve() == (place / where).resolve()
        assert len(base["sha256"]) == 64
    assert metadata["config"]["optimizer"]["learning_rate"] == 1e-3
    assert len(metadata["feature_fingerprint"]) == 64
    heard = Fingerprint.from_json(metadata[KEY])
    assert heard.shape == (2, 25, 16) and heard.dtype == "float32"


def test_logs_tables_and_curves(trained):
    summary = json.loads((trained / "stage3" / "summary.json").read_text())
    assert summary["step"] == 4 and np.isfinite(summary["val_loss"])
    tagging = json.loads((trained / "tagging" / "summary.json").read_text())
    assert 0 <= tagging["val_map"] <= 1
    assert (trained / "loss.png").is_file()
    rows = [json.loads(x) for x in (trained / "stage3" / "log.jsonl").read_text().splitlines()]
    shown = [row["samples"] for row in rows if "samples" in row][-1]
    assert len(shown) == 2 and "### Response:" in shown[0]["prompt"]
    assert {"clip", "expected", "answer"} <= set(shown[0])


def test_a_finished_curriculum_is_left_alone(trained, place, capsys):
    before = (trained / "stage3" / "log.jsonl").read_text()
    assert train.main(arguments(place, trained)) == 0
    assert "stage3: already complete" in capsys.readouterr().out
    assert (trained / "stage3" / "log.jsonl").read_text() == before


def test_a_stopped_stage_resumes_with_identical_losses(trained, place, tmp_path):
    run_dir = tmp_path / "stage3"
    again = stage_arguments(place, "stage3", run_dir, f"--config.init_from={trained / 'stage2'}")

    def interrupted(stage, *, start_step):
        for step, batch in enumerate(stage.pipeline.batches(start_step=start_step), start_step):
            if step == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    assert train.main(again, batches=interrupted) == train.RESUME == 75
    assert checkpoint.steps_in(run_dir) == [2]
    assert not (run_dir / "summary.json").exists()
    assert train.main(again) == 0
    assert logged(run_dir) == logged(trained / "stage3")


def test_a_kill_between_the_last_checkpoint_and_the_summary(trained, place, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(trained, run_dir, symlinks=True)
    before = json.loads((run_dir / "stage3" / "summary.json").read_text())
    (run_dir / "stage3" / "summary.json").unlink()
    assert train.main(arguments(place, run_dir)) == 0
    after = json.loads((run_dir / "stage3" / "summary.json").read_text())
    same = ("stage", "step", "first_loss", "last_loss", "val_loss")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}


@pytest.mark.parametrize("becomes", [KeyboardInterrupt, ImportError])
def test_a_signal_before_training_asks_to_be_resumed(becomes, place, tmp_path, capsys):
    class Interrupted(list):
        """Devices that are asked for when the signal comes."""

        def __iter__(self):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt:
                raise becomes from None  # as the import of a C extension does
            return super().__iter__()

    before = signal.getsignal(signal.SIGTERM)
    command = stage_arguments(place, "tagging", tmp_path / "run")
    assert train.main(command, devices=Interrupted(jax.devices())) == train.RESUME
    assert "stopped by a signal before anything was to be saved" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == before and not (tmp_path / "run").exists()


def test_a_disk_without_room_is_told_before_training(place, monkeypatch, tmp_path):
    full = types.SimpleNamespace(total=10**9, free=10**6)
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(UserError, match=r"has 1\.0 MB free, and 1 more checkpoints of up to"):
        train.main(stage_arguments(place, "tagging", tmp_path / "run"))
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_run_of_another_config_is_not_continued(trained, place):
    other = arguments(place, trained, "--config.stage3.optimizer.learning_rate=0.5")
    with pytest.raises(UserError) as error:
        train.main(other)
    assert "holds a run of another config (optimizer.learning_rate: 0.001 -> 0.5)" in str(
        error.value
    )


def test_missing_7b_weights():
    with pytest.raises(UserError) as error:
        train.main(["--config=configs/stage3.py"])
    message = str(error.value)
    assert "stage3 cannot start" in message
    for part in (
        "config.weights.llama: no weights in 'weights/vicuna-7b-v1.1'",
        "lmsys/vicuna-7b-v1.1: config.json, tokenizer.model and the weight files",
        "python -m ltu_jax.convert --from hf-llama",
        "config.weights.whisper: no weights in 'weights/whisper-large-v1'",
        "openai/whisper-large",
        "python -m ltu_jax.convert --from hf-whisper",
    ):
        assert part in message


def test_rows_of_a_later_stage_are_checked_before_the_first_one_trains():
    wrong = ("--config.stage3.data.micro_rows=1", "--config.stage3.optimizer.loss_mean=micro")
    with pytest.raises(UserError, match=r"data\.micro_rows is 1, but layout"):
        train.main(["--config=configs/curriculum.py:mini", *wrong])


def test_stage_1_from_a_random_tltr_is_refused_unless_asked(place, tmp_path):
    start = stage_arguments(place, "stage1", tmp_path / "run", "--config.init_from=")
    with pytest.raises(UserError, match="would start from a TLTR that has learned nothing"):
        train.main(start)
    assert train.main([*start, "--config.allow_random_tltr=True", "--config.steps=2"]) == 0


def test_a_hugging_face_directory_is_trained_over_as_it_lies(trained, place, tmp_path):
    export_weights("hf", checkpoint=place / "llama", out=tmp_path / "hf")
    assert not store.is_weights_dir(tmp_path / "hf")
    start = f"--config.init_from={trained / 'stage1'}"
    over = f"--config.weights.llama={tmp_path / 'hf'}"
    assert train.main([*stage_arguments(place, "stage2", tmp_path / "run", start), over]) == 0
    losses = logged(tmp_path / "run")
    assert losses == logged(trained / "stage2") and len(losses) == 4
    # the run answers by itself: it names the Hugging Face directory as its base
    model = ltu_jax.load(tmp_path / "run")
    assert model.tokenizer is not None and model.listener is not None


def test_a_checkpoint_of_another_size(trained, place, tmp_path):
    smaller = [
        *stage_arguments(place, "stage2", tmp_path, f"--config.init_from={trained / 'stage1'}"),
        "--config.model.llama.hidden_size=16",
        f"--config.weights.llama={place / 'narrow'}",
    ]
    llama = Llama.functional(LlamaConfig(**{**LLAMA, "hidden_size": 16}))
    save_weights(
        place / "narrow",
        kind="llama",
        config={**LLAMA, "hidden_size": 16},
        params={p: np.asarray(v) for p, v in llama.init(jax.random.key(0)).items()},
        source={},
        files=[place / "llama" / "tokenizer.model"],
    )
    with pytest.raises(UserError, match=r"is of another size: audio_proj.bias is \(32,\) there"):
        train.main(smaller)


def test_weights_of_another_architecture(place, tmp_path):
    wrong = [
        *stage_arguments(place, "stage2", tmp_path),
        "--config.model.llama.num_hidden_layers=3",
    ]
    with pytest.raises(UserError) as error:
        train.main(wrong)
    assert (
        "is of another architecture than config.model.llama: num_hidden_layers is 2 there"
        in str(error.value)
    )


@pytest.mark.parametrize(
    "given, message",
    [
        (
            ["--config=configs/stage3.py:mini", "--config.optimizer.learning_rat=1"],
            'unknown config key learning_rat Did you mean "learning_rate"',
        ),
        (["--config=configs/stage3.py:large"], "unknown config preset 'large'; known: '', 'mini'"),
        (["--config=configs/stage9.py"], "there is no file configs/stage9.py"),
        ([], "--config is missing"),
        (["--config=configs/stage1.py", "--config.steps=ten"], "--config.steps=ten: invalid"),
        (["--config=configs/stage1.py", "fast"], "unexpected argument 'fast'"),
        (
            ["--config=configs/stage1.py:mini", "--config.compute.dtype=int8"],
            "compute.dtype is 'int8'; use float32, bfloat16, float16",
        ),
        (
            ["--config=configs/stage1.py:mini", "--config.optimizer.schedule=square"],
            "optimizer.schedule is 'square'; use one of linear, cosine, constant",
        ),
    ],
)
def test_bad_command_lines(given, message):
    with pytest.raises(UserError) as error:
        train.main(given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
