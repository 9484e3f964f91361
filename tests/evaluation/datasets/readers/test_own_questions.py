"""The user's own JSONL: every key, and every way to get one wrong."""

import json

import pytest
from miniatures import JSONL as MINIMAL

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Item, Task
from ltu_jax.evaluation.datasets.readers.own_questions import read

PLAIN = {
    "audio": "clips/dog.wav",
    "question": "What do you hear?",
    "answer": "dog",
    "task": "classification",
    "labels": ["dog", "cat"],
}
FULL = {
    "audio": "/other/disk/talk.flac",
    "question": "What is said?",
    "answer": "The cat sat on the mat.",
    "task": "spoken_text",
    "id": "talk-3",
    "cluster": "speaker 7",
    "spoken_text": "the cat sat on the mat",
    "start": 1.5,
    "end": 4,
    "groups": {"noise": "high", "room": "kitchen"},
}


def write(folder, *records):
    path = folder / "mine.jsonl"
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_line_with_what_is_needed(tmp_path):
    corpus = read(write(tmp_path, PLAIN), split="all")
    assert corpus.items == (
        Item(
            item_id="line 1",
            clip_id="clips/dog.wav",
            row="classification",
            question="What do you hear?",
            references=("dog",),
            choices=("dog", "cat"),
        ),
    )
    assert corpus.clips == {
        "clips/dog.wav": AudioClip(
            clip_id="clips/dog.wav", audio=tmp_path / "clips/dog.wav", cluster="clips/dog.wav"
        )
    }


def test_a_line_with_everything(tmp_path):
    corpus = read(write(tmp_path, FULL), split="all")
    clip_id = "/other/disk/talk.flac from 1.5 s to 4.0 s"
    assert corpus.items[0] == Item(
        item_id="talk-3",
        clip_id=clip_id,
        row="spoken_text",
        question="What is said?",
        references=("The cat sat on the mat.",),
        groups={"noise": "high", "room": "kitchen"},
    )
    clip = corpus.clips[clip_id]
    assert (str(clip.audio), clip.cluster) == ("/other/disk/talk.flac", "speaker 7")
    assert (clip.start, clip.end, clip.spoken_text) == (1.5, 4.0, "the cat sat on the mat")


@pytest.mark.parametrize("task", list(Task))
def test_every_task_can_be_asked(tmp_path, task):
    record = {"audio": "a.wav", "question": "?", "task": task.value, **MINIMAL[task.value]}
    item = read(write(tmp_path, record), split="all").items[0]
    answer = MINIMAL[task.value]["answer"]
    assert item.row == task.value
    assert item.references == tuple(answer if isinstance(answer, list) else [str(answer)])


def test_questions_about_one_part_share_its_clip(tmp_path):
    later = {**PLAIN, "start": 2.0}
    again = {**PLAIN, "question": "Which animal is it?"}
    corpus = read(write(tmp_path, PLAIN, later, "", again), split="all")
    assert [item.item_id for item in corpus.items] == ["line 1", "line 2", "line 4"]
    assert [item.clip_id for item in corpus.items] == [
        "clips/dog.wav",
        "clips/dog.wav from 2.0 s to its end",
        "clips/dog.wav",
    ]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**PLAIN, "anwser": "dog"}, r"unknown key 'anwser'; known: audio, question, answer"),
        ({**PLAIN, "audio": ""}, r"field 'audio' is ''"),
        ({**PLAIN, "question": " "}, r"field 'question' is ' '"),
        ({**PLAIN, "task": "sound"}, r"task is 'sound': use one of classification, multilabel"),
        ({**PLAIN, "answer": "wolf"}, r"answer 'wolf' is none of 'dog', 'cat'"),
        ({**PLAIN, "answer": None}, r"field 'answer' is None"),
        ({**PLAIN, "answer": ["dog"]}, r"field 'answer' is \['dog'\]"),
        ({**PLAIN, "labels": ["dog"]}, r"labels are \['dog'\]: give two or more"),
        ({**PLAIN, "labels": ["dog", "dog"]}, r"labels are \['dog', 'dog'\]: .* each once"),
        ({**PLAIN, "labels": "dog"}, r"labels is 'dog': give a list of texts"),
        ({**PLAIN, "task": "open"}, r"task 'open' has no labels"),
        ({**PLAIN, "start": -1}, r"start is -1: give seconds"),
        ({**PLAIN, "end": "3"}, r"end is '3': give seconds"),
        ({**PLAIN, "end": 10**400}, r"end is 10+: give seconds"),
        ({**PLAIN, "start": 3, "end": 3}, r"start is 3.0 s, end is 3.0 s: nothing lies between"),
        ({**PLAIN, "groups": ["noise"]}, r"groups is \['noise'\]"),
        ({**PLAIN, "groups": {"noise": 3}}, r"groups: field 'noise' is 3"),
        ({**FULL, "spoken_text": None}, r"field 'spoken_text' is None"),
        ({**FULL, "task": "age", "answer": "young"}, r"answer is 'young': give the age as a whole"),
        ({**FULL, "task": "age", "answer": True}, r"field 'answer' is True"),
        ({**FULL, "task": "gender", "answer": "F"}, r"answer 'F' is none of 'female', 'male'"),
        ({**FULL, "task": "caption", "answer": []}, r"answer is \[\]: give a list of texts"),
        ("[1]", r"give one JSON object a line"),
        ('{"audio": ', r"is not valid JSON"),
        ({**FULL, "cluster": "speaker 8", "id": "x"}, r"clip '.*talk.flac from .*' contradicts"),
        (FULL, r"'talk-3' is listed twice"),
    ],
)
def test_a_broken_line_is_named(tmp_path, record, message):
    with pytest.raises(UserError, match=rf"mine\.jsonl:2\b.*{message}"):
        read(write(tmp_path, FULL, record), split="all")


def test_a_missing_or_empty_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"mine.jsonl does not exist"):
        read(tmp_path / "mine.jsonl", split="all")
    with pytest.raises(UserError, match=r"mine.jsonl has nothing of split 'all'"):
        read(write(tmp_path), split="all")
    with pytest.raises(UserError, match=r"is a folder"):
        read(tmp_path, split="all")
