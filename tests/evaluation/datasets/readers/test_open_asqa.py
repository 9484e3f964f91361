"""Open-ASQA: rows of the published list, read in a stream and drawn by their content."""

import json

import pytest
from miniatures import open_asqa_row as row

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Item
from ltu_jax.evaluation.datasets.readers import open_asqa
from ltu_jax.evaluation.datasets.readers.open_asqa import read


def write(path, rows, **how):
    path.write_text(json.dumps(rows, **how), encoding="utf-8")
    return path


def test_open_ended_rows_with_their_spoken_text(tmp_path):
    closed = row(2, task="ASR", instruction="What is said?", output="Spoken text: Good afternoon.")
    silent = row(3, input="", audio_id="/data/fma/000002.mp3", dataset="FMA")
    path = write(tmp_path / "qa.json", [row(1), closed, silent], indent=1)
    corpus = read(path, split="all")
    assert corpus.items[0] == Item(
        item_id="row 1",
        clip_id="audioset/clip1.flac",
        row="open_asqa",
        question="What can be inferred from the sound 1?",
        references=("Somebody greets 1 people.",),
        groups={"dataset": "audioset", "task": "open-ended question"},
    )
    assert [item.item_id for item in corpus.items] == ["row 1", "row 3"]
    assert corpus.clips["audioset/clip1.flac"] == AudioClip(
        clip_id="audioset/clip1.flac",
        audio=tmp_path / "audioset/clip1.flac",
        cluster="audioset/clip1.flac",
        spoken_text="Good afternoon.",
    )
    silent_clip = corpus.clips["/data/fma/000002.mp3"]
    assert str(silent_clip.audio) == "/data/fma/000002.mp3"
    assert silent_clip.spoken_text == ""


def test_another_transcript_of_the_same_audio_is_another_clip(tmp_path):
    same, other = row(1, output="A greeting."), row(1, input="Good morning.")
    corpus = read(write(tmp_path / "qa.json", [row(1), same, other]), split="all")
    assert [item.clip_id for item in corpus.items] == [
        "audioset/clip1.flac",
        "audioset/clip1.flac",
        "audioset/clip1.flac, transcript 2",
    ]
    assert {clip.cluster for clip in corpus.clips.values()} == {"audioset/clip1.flac"}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_rows_are_the_same_whatever_pieces_the_file_is_read_in(
    tmp_path, monkeypatch, chunk, indent
):
    rows = [row(n, output=f'"é\u2028 [{n}]}}, {{') for n in range(20)]
    path = write(tmp_path / "qa.json", rows, indent=indent, ensure_ascii=False)
    monkeypatch.setattr(open_asqa, "_CHUNK", chunk)
    found = [item.references[0] for item in read(path, split="all").items]
    assert found == [row["output"] for row in json.loads(path.read_text(encoding="utf-8"))]


def test_the_sample_depends_on_content_not_on_place(tmp_path, monkeypatch):
    monkeypatch.setattr(open_asqa, "SAMPLE", 10)
    rows = [row(n) for n in range(200)]
    first = read(write(tmp_path / "a.json", rows), split="sample")
    second = read(write(tmp_path / "b.json", rows[::-1]), split="sample")
    numbers = [int(item.item_id.removeprefix("row ")) for item in first.items]
    assert len(numbers) == 10
    assert numbers == sorted(numbers)
    assert {item.question for item in first.items} == {item.question for item in second.items}
    # Not the first ten: a file is sorted by dataset.
    assert max(numbers) > 100


def test_a_small_file_is_sampled_whole(tmp_path):
    path = write(tmp_path / "qa.json", [row(n) for n in range(5)])
    assert read(path, split="sample") == read(path, split="all")


def test_a_folder_with_one_json(tmp_path):
    write(tmp_path / "qa.json", [row(1)])
    assert len(read(tmp_path, split="all").items) == 1
    write(tmp_path / "more.json", [row(1)])
    with pytest.raises(UserError, match=r"has more.json, qa.json: name the file itself"):
        read(tmp_path, split="all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": " "}, r"qa.json, record 2: field 'output' is ' '"),
        ({"input": None}, r"qa.json, record 2: field 'input' is None"),
        ({"task": 3}, r"qa.json, record 2: field 'task' is 3"),
    ],
)
def test_a_broken_record_is_named(tmp_path, change, message):
    path = write(tmp_path / "qa.json", [row(1), row(2, **change)])
    with pytest.raises(UserError, match=message):
        read(path, split="all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-1], r"record 3: the end of the file where ',' or '\]' should be"),
        (lambda text: text[:-20], r"record 2 is not valid JSON"),
        (lambda text: text.replace("}, {", "} {"), r"record 2: '{' where ',' or '\]' should be"),
        (lambda text: text[:-1] + ",]", r"record 3 is not valid JSON"),
        (lambda text: text[1:-1], r"does not begin with '\['"),
        (lambda text: "[1]", r"record 1 is '1': it should be an object"),
        (lambda text: "[]", r"has nothing of split 'all'"),
        (lambda text: text.replace("open-ended question", "ASR"), r"has nothing of split 'all'"),
    ],
)
def test_a_broken_file_is_named(tmp_path, change, message):
    path = tmp_path / "qa.json"
    path.write_text(change(json.dumps([row(1), row(2)])))
    with pytest.raises(UserError, match=message):
        read(path, split="all")


def test_a_syntax_error_stops_before_the_end_of_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(open_asqa, "_CHUNK", 100)
    monkeypatch.setattr(open_asqa, "_LONGEST", 1000)
    path = tmp_path / "qa.json"
    # Bytes that are not UTF-8 lie beyond what may be read, and would be another error.
    path.write_bytes(b'[{"instruction": oops' + b" " * 100_000 + b"\xff")
    with pytest.raises(UserError, match=r"record 1 is not valid JSON"):
        read(path, split="all")


def test_a_file_that_is_not_text_or_not_there_is_named(tmp_path):
    (tmp_path / "qa.json").write_bytes(b"[\xff\xfe]")
    with pytest.raises(UserError, match=r"qa.json is not UTF-8 text"):
        read(tmp_path, split="all")
    with pytest.raises(UserError, match=r"none.json does not exist"):
        read(tmp_path / "none.json", split="all")
