"""The whole road with real (random, tiny) weights: what is written is what the model answers."""

import dataclasses
import json

import numpy as np
import pytest

import ltu_jax
from ltu_jax import evaluate
from ltu_jax.models import build
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.models.whisper import WhisperConfig
from ltu_jax.weights.store import save_weights

WIDTH, LAYERS = 32, 2


def whisper_config() -> WhisperConfig:
    return WhisperConfig(
        n_mels=80,
        n_audio_ctx=1500,
        n_audio_state=WIDTH,
        n_audio_head=2,
        n_audio_layer=LAYERS,
        n_vocab=64,
        n_text_ctx=16,
        n_text_state=WIDTH,
        n_text_head=2,
        n_text_layer=1,
    )


def ltu_as_config() -> LTUASConfig:
    return LTUASConfig(
        tltr=TLTRConfig(d_model=WIDTH, time_heads=1, layer_heads=2),
        llama=LlamaConfig(
            vocab_size=320,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            rms_norm_eps=1e-6,
            rope_theta=10_000.0,
            rope_scaling=None,
            tie_word_embeddings=False,
            attention_bias=False,
        ),
        lora=LoRAConfig(rank=2, alpha=4.0, dropout=0.0, targets=("q_proj", "v_proj")),
        audio_layers=LAYERS,
        audio_tokens=25,
    )


@pytest.fixture
def weights(tmp_path, golden):
    """A complete LTU-AS weights folder and the Whisper one beside it."""
    made = {}
    for kind, config, fns, seed in (
        ("whisper", whisper_config(), build.whisper(whisper_config()), 0),
        ("ltu-as", ltu_as_config(), build.ltu_as(ltu_as_config()), 1),
    ):
        generator = np.random.default_rng(seed)
        params = {
            name: generator.normal(scale=0.2, size=leaf.shape).astype(np.float32)
            for name, leaf in fns.shapes.items()
        }
        files = {"tokenizer.model": golden / "text_cases" / "spm320.model"}
        save_weights(
            tmp_path / kind,
            kind=kind,
            config=dataclasses.asdict(config),
            params=params,
            source={"test": "random"},
            files=files if kind == "ltu-as" else {},
        )
        made[kind] = tmp_path / kind
    return made


def test_samples_are_the_answers_of_the_model_one_by_one(corpus, weights, tmp_path):
    out = tmp_path / "out"
    evaluate.main(
        [
            *("--checkpoint", str(weights["ltu-as"]), "--whisper", str(weights["whisper"])),
            *("--data", str(corpus), "--out", str(out), "--limit", "1"),
        ]
    )
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 4 * 1 * 5
    model = ltu_jax.load(weights["ltu-as"], whisper=weights["whisper"])
    checked = [one for one in samples if one["row"] == "sound" and one["mode"] != "audio"]
    for sample in checked:
        audio = sample["audio"]
        if audio is not None and audio.startswith("silence:"):
            audio = np.zeros(int(audio.removeprefix("silence:")) * 1600, np.float32)
        elif audio is not None:
            audio = corpus / "audio" / "test" / f"{audio}.flac"
        answer = model.answer(
            audio,
            sample["question"],
            spoken_text=sample["spoken_text"],
            mode="text" if audio is None else "joint",
            max_new_tokens=24,
        )
        assert sample["output"] == answer.text
        assert sample["tokens"] == len(answer.tokens)
        assert sample["finish_reason"] == answer.finish_reason
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["tasks"]["sound"]["joint"]["n"] == 1
