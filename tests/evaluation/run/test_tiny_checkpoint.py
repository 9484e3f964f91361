"""The whole road with real (random, tiny) weights: what is written is what the model answers."""

import itertools
import json
import types

import miniatures
import numpy as np
import pytest
import soundfile

import ltu_jax
import ltu_jax.inference
from data_pipelines.records.whisper_features import fingerprint
from ltu_jax import evaluate
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.benchmarks import BENCHMARKS
from ltu_jax.weights.store import load_weights

pytestmark = pytest.mark.usefixtures("few_resamples", "undrawn")


def test_samples_are_the_answers_of_the_model_one_by_one(corpus, tiny_weights, tmp_path):
    out = tmp_path / "out"
    evaluate.main(
        [
            *(
                "--checkpoint",
                str(tiny_weights["ltu-as"]),
                "--whisper",
                str(tiny_weights["whisper"]),
            ),
            *("--data", str(corpus), "--out", str(out), "--limit", "1", "--decodings", "greedy"),
        ]
    )
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 4 * 1 * 5
    model = ltu_jax.load(tiny_weights["ltu-as"], whisper=tiny_weights["whisper"])
    checked = [one for one in samples if one["row"] == "sound" and one["mode"] != "audio"]
    for sample in checked:
        audio = sample["heard"]
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
    assert metrics["rows"]["sound"]["n"] == 1
    whisper = load_weights(tiny_weights["whisper"], kind="whisper").sha256
    weights = metrics["config"]["identity"]["weights"]
    assert weights["whisper"] == whisper
    assert weights["features"] == fingerprint(whisper_sha256=whisper, dtype="float32")


def test_answers_end_where_they_are_told_to(corpus, tiny_weights, tmp_path):
    out = tmp_path / "out"
    command = ["--checkpoint", str(tiny_weights["ltu-as"]), "--whisper",
               str(tiny_weights["whisper"]), "--data", str(corpus), "--out", str(out),
               "--limit", "1", "--decodings", "greedy", "--modes", "text"]  # fmt: skip
    evaluate.main([*command, "--max-new-tokens", "3"])
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert {sample["tokens"] for sample in samples} == {3}
    assert {sample["finish_reason"] for sample in samples} == {"length"}
    limits = json.loads((out / "config.json").read_text())["identity"]["max_new_tokens"]
    assert set(limits.values()) == {3}
    with pytest.raises(UserError, match="--max-new-tokens 0"):
        evaluate.main([*command, "--max-new-tokens", "0"])


def test_windows_are_asked_about_by_audio_text_and_other_audio(tiny_weights, tmp_path, monkeypatch):
    data, out, hertz = tmp_path / "data", tmp_path / "out", itertools.count(200, 100)

    def render(path, **_):
        time = np.arange(16_000) / 16_000
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * next(hertz) * time), 16_000)

    def transcribe(self, clips, *, batch_size):
        return [types.SimpleNamespace(spoken_text="Room two is free.") for _ in clips]

    data.mkdir()
    miniatures.FOLDERS["real"](data, render)
    monkeypatch.setattr(ltu_jax.inference.Model, "transcribe", transcribe)
    evaluate.main(
        [
            *("--checkpoint", str(tiny_weights["ltu-as"])),
            *("--whisper", str(tiny_weights["whisper"]), "--decodings", "greedy"),
            *("--benchmarks", "real", "--data", str(data), "--out", str(out)),
            *("--limit", "1", "--max-new-tokens", "4", "--modes", "audio,text,shuffled"),
        ]
    )
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    asked = itertools.product(BENCHMARKS["real"].rows, ("audio", "text", "shuffled"))
    assert sorted((one["row"], one["mode"]) for one in samples) == sorted(asked)
    for one in samples:
        assert one["spoken_text"] == "Room two is free."
        assert one["spoken_text_source"].startswith("Whisper (")
        assert (one["spoken_text"] in one["prompt"]) == (one["mode"] != "audio")
        assert (one["heard"] is None) == (one["mode"] == "text")
        own = one["heard"] == one["clip_id"]
        assert own == (one["mode"] == "audio")
