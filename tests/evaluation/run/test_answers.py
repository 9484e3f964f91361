"""Modes against a listener that hears perfectly; resuming; nothing asked or encoded twice."""

import json

import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.dataset import read_dataset
from ltu_jax.evaluation.datasets.item import EvaluationMode
from ltu_jax.evaluation.run import answers
from ltu_jax.evaluation.run.answers import ModelInput, collect, model_input
from ltu_jax.evaluation.run.clips import read_clip_facts, transcribe_clips
from ltu_jax.evaluation.run.samples import GREEDY, SAMPLING, SampleKey, finish, read_samples
from ltu_jax.preprocessing.text import prompt

MODES = tuple(EvaluationMode)


@pytest.fixture
def questions(corpus):
    return read_dataset(corpus, name="mini", split="test")


def known(questions, model, out):
    out.mkdir(exist_ok=True)
    return transcribe_clips(
        list(questions.clips.values()),
        model=model,
        path=out / "clips.jsonl",
        known=read_clip_facts([out / "clips.jsonl"]),
        whisper="Whisper",
        batch_size=4,
        allow_missing=False,
    )


def run(questions, model, out, *, modes=MODES, decodings=(GREEDY,), process=(0, 1), batch_size=8):
    return collect(
        questions,
        wanted=list(answers.sample_keys(questions, modes=modes, decodings=decodings)),
        clips=known(questions, model, out),
        model=model,
        out=out,
        samples=read_samples(out),
        batch_size=batch_size,
        process=process,
    )


def outputs(collected):
    return {key: sample["output"] for key, sample in collected.samples.items()}


def test_what_each_mode_hears(questions, listener, tmp_path):
    item = next(item for item in questions.items if item.item_id == "clip01-sound")
    partner = questions.partner[item.item_id]
    said = "We bought seven green apples."
    clips = known(questions, listener(), tmp_path)

    def key(mode):
        return SampleKey(item_id=item.item_id, mode=mode, decoding=GREEDY, draw=0)

    inputs = {mode: model_input(questions, item, key(mode), clips) for mode in EvaluationMode}
    rest = {"question": "What do you hear?", "max_new_tokens": 24, "draw": None}
    assert inputs == {
        EvaluationMode.JOINT: ModelInput(audio="clip01", spoken_text=said, **rest),
        EvaluationMode.AUDIO: ModelInput(audio="clip01", spoken_text="", **rest),
        EvaluationMode.TEXT: ModelInput(audio=None, spoken_text=said, **rest),
        EvaluationMode.SHUFFLED: ModelInput(audio=partner, spoken_text=said, **rest),
        EvaluationMode.SILENCE: ModelInput(audio="silence:15", spoken_text=said, **rest),
    }
    assert partner != "clip01"


def test_sampling_draws_each_input_by_its_own_seed(questions, listener, tmp_path):
    model = listener()
    run(questions, model, tmp_path, modes=(EvaluationMode.JOINT,), decodings=(SAMPLING,))
    configs = [config for batch in model.sampling for config in batch]
    assert len(configs) == len({config.seed for config in configs}) == 48 * 3
    assert {(c.temperature, c.top_p, c.top_k, c.repetition_penalty) for c in configs} == {
        (0.1, 0.95, 500, 1.1)  # the published decoding
    }
    again = listener()
    run(questions, again, tmp_path / "again", modes=(EvaluationMode.JOINT,), decodings=(SAMPLING,))
    assert {config.seed for config in configs} == {c.seed for b in again.sampling for c in b}
    assert {key.draw for key in read_samples(tmp_path)} == {0, 1, 2}


def test_equal_inputs_are_answered_once_and_clips_encoded_once(questions, listener, tmp_path):
    model = listener()
    collected = run(questions, model, tmp_path)
    clips = read_clip_facts([tmp_path / "clips.jsonl"])
    items = {item.item_id: item for item in questions.items}
    distinct = {
        model_input(questions, items[key.item_id], key, clips)
        for key in answers.sample_keys(questions, modes=MODES, decodings=(GREEDY,))
    }
    assert collected.computed == len(model.asked) == len(distinct) < 48 * 5
    assert model.encoded == 12 + 3  # clips, and silences of 1.0, 1.5 and 2.0 s
    assert model.transcribed == 0  # this corpus brings its words
    assert len(read_samples(tmp_path)) == 48 * 5
    assert max(model.batches) == 8


def test_a_killed_run_goes_on_without_computing_twice(questions, listener, tmp_path):
    whole = run(questions, listener(), tmp_path / "whole")
    first = listener(stop_after=4)
    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        run(questions, first, killed)
    with open(killed / "samples.0.jsonl", "a") as file:
        file.write('{"item_id": "clip')  # the process died in the middle of a line
    second = listener()
    collected = run(questions, second, killed)
    assert len(first.asked) + len(second.asked) == whole.computed
    assert first.encoded + second.encoded == 12 + 3
    assert outputs(collected) == outputs(whole)
    nothing = listener()
    again = run(questions, nothing, killed)
    assert outputs(again) == outputs(whole)
    assert again.computed == nothing.encoded == len(nothing.asked) == 0


def test_finished_files_do_not_tell_that_a_run_was_killed(questions, listener, tmp_path):
    order = list(answers.sample_keys(questions, modes=MODES, decodings=(GREEDY,)))
    for name, stop in (("whole", None), ("killed", 3)):
        out = tmp_path / name
        if stop is not None:
            with pytest.raises(KeyboardInterrupt):
                run(questions, listener(stop_after=stop), out)
        run(questions, listener(), out)
        finish(out, read_samples(out), order)

    def lines(name):
        records = map(json.loads, (tmp_path / name / "samples.jsonl").read_text().splitlines())
        return [{**record, "latency_ms": None} for record in records]

    assert lines("whole") == lines("killed")
    assert [record["item_id"] for record in lines("killed")] == [key.item_id for key in order]
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert left == {"samples.jsonl", "clips.jsonl"}


def test_processes_share_the_work_and_answer_as_one(questions, listener, tmp_path):
    whole = run(questions, listener(), tmp_path / "one")
    out, models = tmp_path / "two", [listener(), listener()]
    for number, model in enumerate(models):
        run(questions, model, out, process=(number, 2))
    assert sum(len(model.asked) for model in models) == whole.computed
    assert all(model.asked for model in models)
    assert sum(model.encoded for model in models) == 12 + 3
    assert {key: one["output"] for key, one in read_samples(out).items()} == outputs(whole)


def test_modes_can_be_added_later(questions, listener, tmp_path):
    run(questions, listener(), tmp_path, modes=(EvaluationMode.TEXT,))
    model = listener()
    collected = run(questions, model, tmp_path, modes=(EvaluationMode.TEXT, EvaluationMode.SILENCE))
    assert {key.mode for key in collected.samples} == {EvaluationMode.TEXT, EvaluationMode.SILENCE}
    assert collected.computed == len(model.asked) > 0


def test_samples_carry_input_output_and_where_they_come_from(questions, listener, tmp_path):
    run(questions, listener(), tmp_path, modes=(EvaluationMode.JOINT,))
    sample = next(
        one for key, one in read_samples(tmp_path).items() if key.item_id == "clip00-sound"
    )
    clip = read_clip_facts([tmp_path / "clips.jsonl"])["clip00"]
    assert sample.pop("latency_ms") >= 0
    assert sample == {
        "item_id": "clip00-sound",
        "row": "sound",
        "mode": "joint",
        "decoding": "greedy",
        "draw": 0,
        "seed": None,
        "clip_id": "clip00",
        "heard": "clip00",
        "audio": str(questions.clips["clip00"].audio),
        "audio_sha256": clip.sha256,
        "seconds": 1.0,
        "seconds_cut": 0.0,
        "spoken_text": "The cat sat on the mat.",
        "spoken_text_source": "data",
        "question": "What do you hear?",
        "prompt": prompt("What do you hear?", "The cat sat on the mat."),
        "reference": ["dog"],
        "output": "A dog.",
        "tokens": 2,
        "finish_reason": "eos",
    }


@pytest.mark.parametrize("line", ['{"mode": "loud"}', "[1]", "{]"])
def test_a_broken_sample_is_named(tmp_path, line):
    (tmp_path / "samples.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match="samples.jsonl:1 is not a"):
        read_samples(tmp_path)
