"""Modes against a listener that hears perfectly; resuming; nothing asked or encoded twice."""

import json

import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation import answers
from ltu_jax.evaluation.answers import Given, collect, given, read_samples
from ltu_jax.evaluation.benchmarks import Mode, read_benchmark
from ltu_jax.evaluation.grading import figures

MODES = tuple(Mode)


@pytest.fixture
def benchmark(corpus):
    return read_benchmark(corpus, name="mini", split="test")


def run(benchmark, model, out, *, modes=MODES, batch_size=8):
    answers.start(out, {"checkpoint": "a"})
    return collect(
        benchmark,
        modes=modes,
        load=lambda: model,
        out=out,
        features=out / "features",
        batch_size=batch_size,
    )


def test_what_each_mode_hears(benchmark):
    item = next(item for item in benchmark.items if item.item_id == "clip01-sound")
    partner = benchmark.partner[item.item_id]
    said = "We bought seven green apples."
    inputs = {mode: given(benchmark, item, mode) for mode in Mode}
    rest = {"question": "What do you hear?", "max_new_tokens": 24}
    assert inputs == {
        Mode.JOINT: Given(audio="clip01", spoken_text=said, **rest),
        Mode.AUDIO: Given(audio="clip01", spoken_text="", **rest),
        Mode.TEXT: Given(audio=None, spoken_text=said, **rest),
        Mode.SHUFFLED: Given(audio=partner, spoken_text=said, **rest),
        Mode.SILENCE: Given(audio="silence:15", spoken_text=said, **rest),
    }
    assert partner != "clip01"


def test_controls_expose_what_is_not_heard(benchmark, listener, tmp_path):
    collected = run(benchmark, listener(), tmp_path)
    tasks = figures(benchmark, collected.outputs, modes=MODES)
    value = {row: {mode: entry[mode]["value"] for mode in MODES} for row, entry in tasks.items()}
    assert value["sound"] == {"joint": 1, "audio": 1, "text": 0, "shuffled": 0, "silence": 0}
    assert value["gender"]["joint"] == 1
    assert value["gender"]["silence"] == 0
    assert value["spoken_text"]["joint"] == value["spoken_text"]["text"] == 0
    assert value["spoken_text"]["audio"] > 0.8
    only_joint = {"joint": 1, "audio": 0, "text": 0, "shuffled": 0, "silence": 0}
    assert value["joint_questions"] == only_joint


def test_equal_inputs_are_answered_once_and_clips_encoded_once(benchmark, listener, tmp_path):
    model = listener()
    collected = run(benchmark, model, tmp_path)
    distinct = {given(benchmark, item, mode) for item in benchmark.items for mode in MODES}
    assert collected.computed == len(model.asked) == len(distinct) < 48 * 5
    assert model.encoded == 12 + 3  # clips, and silences of 1.0, 1.5 and 2.0 s
    assert len(read_samples(tmp_path / "samples.jsonl")) == 48 * 5
    assert max(model.batches) == 8


def test_a_killed_run_goes_on_without_computing_twice(benchmark, listener, tmp_path):
    whole = run(benchmark, listener(), tmp_path / "whole")
    first = listener(stop_after=4)
    with pytest.raises(KeyboardInterrupt):
        run(benchmark, first, tmp_path / "killed")
    with open(tmp_path / "killed" / "samples.jsonl", "a") as file:
        file.write('{"item_id": "clip')  # the process died in the middle of a line
    second = listener()
    collected = run(benchmark, second, tmp_path / "killed")
    assert len(first.asked) + len(second.asked) == whole.computed
    assert second.encoded == 0
    assert collected.outputs == whole.outputs

    def nothing_to_load():
        raise AssertionError("loaded a model although every answer is there")

    again = collect(
        benchmark,
        modes=MODES,
        load=nothing_to_load,
        out=tmp_path / "killed",
        features=tmp_path / "killed" / "features",
        batch_size=8,
    )
    assert again.outputs == whole.outputs
    assert again.computed == 0


def test_modes_can_be_added_later(benchmark, listener, tmp_path):
    run(benchmark, listener(), tmp_path, modes=(Mode.TEXT,))
    model = listener()
    collected = run(benchmark, model, tmp_path, modes=(Mode.TEXT, Mode.SILENCE))
    assert set(mode for _, mode in collected.outputs) == {Mode.TEXT, Mode.SILENCE}
    assert collected.computed == len(model.asked) > 0


def test_answers_of_another_checkpoint_are_put_aside(benchmark, listener, tmp_path):
    run(benchmark, listener(), tmp_path)
    assert not answers.start(tmp_path, {"checkpoint": "a"})
    assert answers.start(tmp_path, {"checkpoint": "b"})
    assert read_samples(tmp_path / "samples.jsonl") == []
    assert len(read_samples(tmp_path / "samples.old.jsonl")) == 48 * 5


def test_samples_carry_input_output_and_grade(benchmark, listener, tmp_path):
    run(benchmark, listener(), tmp_path, modes=(Mode.JOINT,))
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    sample = next(one for one in map(json.loads, lines) if one["item_id"] == "clip00-sound")
    assert sample == {
        "item_id": "clip00-sound",
        "clip_id": "clip00",
        "row": "sound",
        "mode": "joint",
        "audio": "clip00",
        "spoken_text": "The cat sat on the mat.",
        "question": "What do you hear?",
        "reference": "This is the sound of a dog.",
        "label": "dog",
        "output": "A dog.",
        "tokens": 2,
        "finish_reason": "eos",
        "parsed": "dog",
        "right": True,
        "edits": None,
        "words": None,
        "edits_vs_whisper": None,
        "words_vs_whisper": None,
    }


def test_a_broken_sample_is_named(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"mode": "joint"}\n{"mode": "loud"}\n')
    with pytest.raises(UserError, match="samples.jsonl:2 is not a sample"):
        read_samples(path)
