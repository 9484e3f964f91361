"""AIR-Bench foundation: records of Foundation_meta.json and the folders they point into."""

import json

import pytest
from miniatures import AIR_BENCH_AGE as AGE
from miniatures import AIR_BENCH_GROUNDING as GROUNDING
from miniatures import AIR_BENCH_VOICE as VOICE

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Item
from ltu_jax.evaluation.datasets.readers.air_bench import read

INSTRUCTION = (
    "Choose the most suitable answer from options A, B, C, and D to respond the question in next "
    "line, you may only choose A or B or C or D.\n"
)


def write(folder, records):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Foundation_meta.json").write_text(json.dumps(records))
    return folder


def test_a_question_with_the_official_prompt(tmp_path):
    corpus = read(write(tmp_path, [AGE]), split="test")
    clip_id = "Speaker_Age_Prediction_common_voice_13.0_en/common_voice_en_17283.mp3"
    assert corpus.items == (
        Item(
            item_id="Speaker_Age_Prediction_common_voice_13.0_en/5973",
            clip_id=clip_id,
            row="air_bench",
            question=INSTRUCTION + "Which age range do you believe best matches the speaker's "
            "voice?\nA. teens to twenties\nB. thirties to fourties\nC. fifties to sixties\n"
            "D. seventies to eighties",
            references=("thirties to fourties",),
            choices=(
                "teens to twenties",
                "thirties to fourties",
                "fifties to sixties",
                "seventies to eighties",
            ),
            groups={"task_name": "Speaker_Age_Prediction", "dataset_name": "common_voice_13.0_en"},
        ),
    )
    assert corpus.clips == {
        clip_id: AudioClip(clip_id=clip_id, audio=tmp_path / clip_id, cluster=clip_id)
    }


def test_options_that_a_question_lacks_are_none_in_the_prompt_only(tmp_path):
    items = read(write(tmp_path, [VOICE, GROUNDING]), split="test").items
    assert items[0].question.endswith("\nA. real\nB. fake\nC. None\nD. None")
    assert items[0].choices == ("real", "fake")
    assert items[1].question.endswith("\nC. 4 s to 5 s\nD. None")
    assert len(items[1].choices) == 3


def test_audio_of_the_grounding_task_is_flac(tmp_path):
    clips = read(write(tmp_path, [GROUNDING]), split="test").clips
    audio = tmp_path / "Audio_Grounding_AudioGrounding/Yb0RFKhbpFJA.flac"
    assert [clip.audio for clip in clips.values()] == [audio]


def test_two_questions_about_one_file_are_one_clip(tmp_path):
    again = {**AGE, "uniq_id": 5974, "answer_gt": "teens to twenties"}
    corpus = read(write(tmp_path / "Foundation", [AGE, again]).parent, split="test")
    assert len(corpus.items) == 2
    assert len(corpus.clips) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer_gt": "B"}, r"meta.json, record 2: answer_gt 'B' is none of the choices"),
        (
            {"choice_b": None, "choice_c": None},
            r"record 2: choices are \['teens to twenties', None",
        ),
        ({"task_name": None}, r"record 2: field 'task_name' is None"),
        ({"path": ""}, r"record 2: field 'path' is ''"),
        ({"uniq_id": None}, r"record 2: field 'uniq_id' is None"),
    ],
)
def test_a_broken_record_is_named(tmp_path, change, message):
    write(tmp_path, [VOICE, {**AGE, **change}])
    with pytest.raises(UserError, match=message):
        read(tmp_path, split="test")


def test_a_record_that_is_there_twice_is_named(tmp_path):
    write(tmp_path, [VOICE, VOICE])
    with pytest.raises(UserError, match=r"record 2: 'Synth.*/77' is listed twice"):
        read(tmp_path, split="test")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no Foundation_meta.json"):
        read(tmp_path, split="test")
