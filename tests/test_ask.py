"""The command line `python -m ltu_jax.ask`: what it shows, and what it refuses."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import soundfile

import ltu_jax
from ltu_jax import ask, checkpoint
from ltu_jax.convert import import_weights
from ltu_jax.core.trees import merge
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.training.state import TrainState
from ltu_jax.weights import store
from ltu_jax.weights.open import base_entry

RATE = 16_000
WIDTH = 16


@pytest.fixture(scope="module")
def bases(golden, tmp_path_factory):
    """A small LLaMA and a random Whisper as weights directories."""
    folder = tmp_path_factory.mktemp("bases")
    source = folder / "source"
    source.mkdir()
    dims = json.loads((golden / "ltu_as_tiny_a" / "config.json").read_text())["dims"]
    settings = {name: dims[name] for name in ("num_attention_heads", "rms_norm_eps")}
    (source / "config.json").write_text(
        json.dumps(settings | {"model_type": "llama", "rope_theta": 10_000.0})
    )
    spm = (golden / "text_cases" / "spm320.model").read_bytes()
    (source / "tokenizer.model").write_bytes(spm)
    whole = import_weights(
        "ltu-as",
        weights=[golden / "ltu_as_tiny_a" / "weights.safetensors"],
        llama=source,
        out=folder / "ltu-as",
        audio_layers=6,
    )
    weights = store.load_weights(whole)
    params = {
        path: weights.params[path]
        for path in weights.params
        if path.startswith("llama.") and ".lora_" not in path
    }
    store.save_weights(
        folder / "llama",
        kind="llama",
        config=weights.config["llama"],
        params=params,
        source={},
        files=[whole / "tokenizer.model"],
    )
    whisper = WhisperConfig(
        n_mels=80,
        n_audio_ctx=1500,
        n_audio_state=WIDTH,
        n_audio_head=2,
        n_audio_layer=2,
        n_vocab=51864,
        n_text_ctx=448,
        n_text_state=WIDTH,
        n_text_head=2,
        n_text_layer=1,
    )
    random = jax.jit(Whisper(whisper).init)(jax.random.key(1))
    store.save_weights(
        folder / "whisper",
        kind="whisper",
        config=dataclasses.asdict(whisper),
        params={path: np.asarray(leaf) for path, leaf in random.items()},
        source={},
    )
    return folder


@pytest.fixture(scope="module")
def run_dir(bases):
    """A training run with one checkpoint: random adapter over the small LLaMA."""
    llama = store.load_weights(bases / "llama", kind="llama")
    config = LTUASConfig(
        tltr=TLTRConfig(d_model=WIDTH, time_heads=1, layer_heads=4),
        llama=LlamaConfig.from_dict(llama.config),
        lora=LoRAConfig(rank=2, alpha=4, dropout=0.05, targets=("q_proj", "v_proj")),
        audio_layers=2,
        audio_tokens=25,
    )
    params = jax.jit(LTUAS.functional(config).init)(jax.random.key(2))
    adapter = {path: leaf for path, leaf in params.items() if path not in llama.params}
    assert len(merge(adapter, dict(llama.params))) == len(params)
    folder = bases / "run"
    checkpoint.save(
        folder,
        state=TrainState(step=jax.numpy.int32(7), trainable=adapter, opt_state={}),
        adapter=adapter,
        metadata={
            "kind": "ltu-as-checkpoint",
            "stage": "stage3",
            "model": dataclasses.asdict(config),
            "base": {
                "llama": base_entry(llama, relative_to=folder / "checkpoints" / "7"),
                "whisper": base_entry(
                    store.load_weights(bases / "whisper"), relative_to=folder / "checkpoints" / "7"
                ),
            },
        },
        keep=1,
    )
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "clip.wav"
    samples = 0.1 * np.random.default_rng(0).normal(size=12 * RATE)
    soundfile.write(path, samples, RATE)
    return path


def shell(capsys, *arguments):
    """Exit status, stdout and stderr of the command line."""
    with pytest.raises(SystemExit) as end:
        ask.main([str(argument) for argument in arguments])
    return end.value.code, *capsys.readouterr()


def test_answers_are_streamed_and_dropped_seconds_reported(capsys, run_dir, clip):
    status, out, err = shell(
        capsys, "--checkpoint", run_dir, "--spoken-text", "good morning", "--max-new-tokens", 6,
        clip, "What is the sound?", "Hi",
    )  # fmt: skip
    assert status == 0, err
    assert "12.0 s; the model hears the first 10.0 s, 2.0 s are dropped" in err
    assert "spoken text (given): good morning" in err
    assert out.count("> ") >= 2 and "6 tokens" in err
    model = ltu_jax.load(run_dir)
    for question in ("What is the sound?", "Hi"):
        want = model.answer(clip, question, spoken_text="good morning", max_new_tokens=6)
        assert f"> {question}\n{want.text}\n" in out


def test_audio_mode_and_sampling(capsys, run_dir, clip):
    arguments = (
        "--checkpoint", run_dir, "--mode", "audio", "--temperature", 1, "--top-p", 0.95, "--top-k",
        500, "--repetition-penalty", 1.1, "--seed", 3, "--max-new-tokens", 8, clip, "Hi",
    )  # fmt: skip
    status, out, err = shell(capsys, *arguments)
    assert status == 0, err
    assert "spoken text" not in err
    assert shell(capsys, *arguments)[1] == out
    arguments = [9 if argument == 3 else argument for argument in arguments]
    assert shell(capsys, *arguments)[1] != out


def test_a_checkpoint_needs_its_base_weights(capsys, run_dir, bases, clip):
    moved = bases / "elsewhere"
    (bases / "llama").rename(moved)
    try:
        asked = ("--checkpoint", run_dir, "--spoken-text", "", "--max-new-tokens", 2, clip, "Hi")
        status, _, err = shell(capsys, *asked)
        assert status == 2 and "language model" in err and "missing" in err
        status, _, err = shell(capsys, "--llama", moved, *asked)
        assert status == 0, err
        status, _, err = shell(capsys, "--llama", bases / "whisper", *asked)
        assert status == 2 and "is not the language model" in err
    finally:
        moved.rename(bases / "llama")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.wav", "Hi"], "missing.wav: no such file"),
        (["CLIP", " "], "question 1 is empty"),
        (["--top-k", "5", "CLIP", "Hi"], "--top-k needs --temperature above 0"),
        (["--temperature", "-1", "CLIP", "Hi"], "--temperature -1.0"),
        (["--temperature", "1", "--top-p", "2", "CLIP", "Hi"], "--top-p 2.0"),
        (["--max-new-tokens", "0", "CLIP", "Hi"], "--max-new-tokens 0"),
        (["--checkpoint", "no/run", "CLIP", "Hi"], "no/run does not exist"),
        (["CLIP", "Hi"], "tokenizer.json"),
    ],
)
def test_mistakes_are_one_line(capsys, run_dir, clip, arguments, message):
    arguments = [str(clip) if argument == "CLIP" else argument for argument in arguments]
    status, out, err = shell(capsys, "--checkpoint", run_dir, *arguments)
    assert status == 2 and out == ""
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as end:
        ask.main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for option in ("--checkpoint", "--whisper", "--llama", "--mode", "--spoken-text", "--seed",
                   "--temperature", "--top-p", "--top-k", "--repetition-penalty", "--dtype",
                   "--max-new-tokens"):  # fmt: skip
        assert option in out
