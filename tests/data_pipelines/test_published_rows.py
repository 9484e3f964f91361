"""The published JSON: absolute audio_ids, rows that disagree or are empty, labels in answers."""

import gc
import json
import random
import shutil
import subprocess
import sys
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines import write_records
from data_pipelines.manifests import file_index, official_rows, row_groups
from data_pipelines.manifests.audio_finder import AudioFinder, AudioGone, Rewrite
from data_pipelines.manifests.clip_manifests import ReadRules, read_clips
from data_pipelines.manifests.file_index import FileIndex
from data_pipelines.records import clip_lines
from data_pipelines.records.record_files import TAG_LABELS, RecordStore
from data_pipelines.records.schema import RecordError
from ltu_jax.core.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
THERE = "/data/sls/audioset/dave/audio"


def row(audio_id, **changes):
    values = {
        "instruction": "What is it?",
        "input": "",
        "audio_id": audio_id,
        "dataset": "as_20k",
        "task": "cla_label",
        "output": "Labels: Dog; Bark.",
    }
    return values | changes


def write(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path):
    for name in ("x/a.flac", "y/a.flac", "y/b.wav", "z/one/c.flac", "z/two/c.flac"):
        path = tmp_path / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(8000, np.float32), 16000)
    return tmp_path / "audio"


def finder_of(root, *rules, folder=None):
    index = (folder or root.parent) / "index.sqlite"
    return AudioFinder(
        root,
        rewrites=[Rewrite.parse(rule) for rule in rules],
        index=lambda: FileIndex(index, root=root),
    )


def test_absolute_audio_ids_are_found_as_is_rewritten_and_by_name(root):
    finder = finder_of(root, f"/data/sls={root}/nowhere", f"/data/sls/x={root}/x")

    def find(audio_id):
        return finder.find(audio_id, dataset="d", where="m.json, row 1")

    assert find("y/b.wav") == find(str(root / "y/b.wav")) == root / "y/b.wav"
    assert find("/data/sls/x/a.flac") == root / "x/a.flac"  # the longest rule that fits
    assert find("/data/other/y/a.flac") == root / "y/a.flac"  # of two, by the end of the path
    assert find("/data/two/c.flac") == root / "z/two/c.flac"
    assert find("/any/b.flac") == root / "y/b.wav"  # another ending of audio, as no name is equal
    for audio_id, named in (
        ("/any/c.flac", "z/one/c.flac"),  # two, neither is nearer
        ("/any/gone.flac", "gone.flac"),
        ("w/a.flac", "w/a.flac"),  # a relative one says where it lies
        ("/data/slsx/a.flac", "a.flac"),  # a rule is about whole folders
    ):
        with pytest.raises(AudioGone, match=r"m\.json, row 1") as error:
            find(audio_id)
        assert named in str(error.value)
    report = finder.report()
    assert report["clips"] == {"as is": 2, "rewritten": 1, "by index": 3, "missing": 4}
    assert report["indexed_files"] == 5
    with pytest.raises(UserError, match="/data/sls"):
        Rewrite.parse("/data/sls")


def test_an_index_goes_on_where_it_stopped_and_follows_the_folder(root, tmp_path, monkeypatch):
    path, listed, list_folder = tmp_path / "i.sqlite", [], FileIndex._list

    def listing(index, folder, *, changed):
        if len(listed) == 2 and not resumed:
            raise KeyboardInterrupt
        listed.append(folder)
        return list_folder(index, folder, changed=changed)

    monkeypatch.setattr(FileIndex, "_list", listing)
    monkeypatch.setattr(file_index, "_FILES_A_COMMIT", 0)
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        FileIndex(path, root=root)
    resumed = True
    index = FileIndex(path, root=root)
    assert len(index) == 5 and len(listed) == len(set(listed)) == 6  # each folder once
    index.close()
    soundfile.write(root / "y/new.wav", np.zeros(10), 16000)
    shutil.rmtree(root / "x")
    index = FileIndex(path, root=root)
    assert index.find("new.wav") == [root / "y/new.wav"]
    assert index.find("a.flac") == [root / "y/a.flac"]
    assert "z/one" not in listed[6:]
    with pytest.raises(UserError, match=r"i\.sqlite"):
        FileIndex(path, root=tmp_path)
    (tmp_path / "text").write_text("no database, but text that is long enough to be told from one")
    with pytest.raises(UserError, match="text"):
        FileIndex(tmp_path / "text", root=root)


def test_rows_that_disagree_or_are_empty_are_set_aside_with_their_reason(root, tmp_path):
    rows = [
        row("y/b.wav", input=" Hello"),
        row("y/b.wav", input="Hello", instruction="kept"),
        row("y/b.wav", output=" "),
        row("y/b.wav", input="Hello", instruction="kept too"),
        row("y/b.wav", input="Other"),
        row("y/a.flac"),
        "no row",
    ]
    aside = []
    path = write(tmp_path / "m.json", rows)
    rules = ReadRules(set_aside=lambda error: aside.append(str(error)))
    first, second = read_clips(path, audio=AudioFinder(root), rules=rules)
    assert [pair.instruction for pair in first.pairs] == ["kept", "kept too"]
    assert first.spoken_text == "Hello" and second.clip_id == "y/a.flac"
    for number, datum in ((1, "' Hello'"), (3, "output"), (5, "'Other'"), (7, "str")):
        (reason,) = [one for one in aside if f"m.json, row {number}:" in one]
        assert datum in reason
    assert len(aside) == 4
    path.write_text(path.read_text()[:-40])  # what follows is not known: no row, but the end
    with pytest.raises(RecordError, match=r"m\.json"):
        list(read_clips(path, audio=AudioFinder(root), rules=rules))


def test_a_manifest_in_many_buckets_has_the_clips_of_one(root, tmp_path, monkeypatch):
    rows = [row(f"y/{name}", dataset=d) for name in ("a.flac", "b.wav") for d in ("p", "q")] * 3
    path = write(tmp_path / "m.json", rows)

    def clips():
        return {clip.clip_id: clip for clip in read_clips(path, audio=AudioFinder(root))}

    wanted = clips()
    monkeypatch.setattr(row_groups, "_BUCKET", 100)
    monkeypatch.setattr(official_rows, "_CHUNK", 64)
    assert clips() == wanted and len(wanted) == 4


def test_what_a_killed_reading_left_is_cleared_by_the_next(root, tmp_path):
    path, scratch = write(tmp_path / "m.json", [row("y/a.flac"), row("y/b.wav")]), tmp_path / "out"
    scratch.mkdir()
    code = (
        "import os, sys; from data_pipelines.manifests.row_groups import grouped\n"
        "options = dict(default_split='train', set_aside=None, scratch=sys.argv[2])\n"
        "with grouped(sys.argv[1], **options) as groups:\n"
        "    next(groups.clips()), os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path), str(scratch)], cwd=ROOT)
    assert killed.returncode == -9 and len(list(scratch.iterdir())) == 1
    other = write(tmp_path / "other.json", [row("y/b.wav")])
    rules = ReadRules(scratch=scratch)
    assert len(list(read_clips(other, audio=AudioFinder(root), rules=rules))) == 1
    assert not list(scratch.iterdir())


def test_memory_does_not_grow_with_the_rows_that_are_left_out(root, tmp_path):
    def peak(bad: int) -> int:
        rows = [row("y/a.flac"), *({"instruction": f"{number} " * 40} for number in range(bad))]
        path = tmp_path / f"{bad}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
        arguments = ["--json", path, "--audio-root", root, "--out", tmp_path / f"out{bad}"]
        tracemalloc.start()
        try:
            with pytest.raises(UserError, match=f"{bad} of {bad + 1} rows cannot be used"):
                write_records.command([*map(str, arguments)])
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(300), peak(6000)  # whose reasons are a megabyte
    assert many < few + (200 << 10)
    assert len((tmp_path / "out6000.bad_rows.jsonl").read_text().splitlines()) == 6000


def test_validation_is_cut_by_clip_whatever_the_order(root, tmp_path):
    names = [f"y/{number}.wav" for number in range(300)]
    for name in names:
        shutil.copy(root / "y/b.wav", root / name)

    def splits(rows, share=0.2):
        path = write(tmp_path / "m.json", rows)
        clips = read_clips(path, audio=AudioFinder(root), rules=ReadRules(validation_share=share))
        return {clip.clip_id: clip.split for clip in clips}

    rows = [row(name, split="test") if index % 3 == 0 else row(name)
            for index, name in enumerate(names)]  # fmt: skip
    found = splits(rows)
    assert {found[name] for name in names[::3]} == {"test"}
    chosen = {name for name, split in found.items() if split == "val"}
    assert 20 < len(chosen) < 60 and "y/1.wav" in found
    random.Random(0).shuffle(rows)
    assert splits(rows) == found
    # A larger share takes those of a smaller one too; who has a split val keeps it.
    assert chosen < {name for name, split in splits(rows, 0.4).items() if split == "val"}
    assert list(splits([*rows[:9], row("y/a.flac", split="val")]).values()).count("val") == 1
    both = [row(name, dataset=d) for name in names for d in ("as_20k", "audioset")]
    of_audio = splits(both)
    assert all(of_audio[f"{name}@as_20k"] == of_audio[f"{name}@audioset"] for name in names)


def test_labels_come_from_tags_or_else_from_answers(root, tmp_path):
    rows = [
        row("x/a.flac", output="Labels: Dog, barking; Wind. "),
        row("x/a.flac", output="Labels: Wind; Rain"),
        row("x/a.flac", output="Labels: No", task="cla_label_des"),
        row("y/b.wav", tags=["cat"]),
        row("y/a.flac", output="A dog."),
    ]
    clips = read_clips(write(tmp_path / "m.json", rows), audio=AudioFinder(root))
    assert [clip.tags for clip in clips] == [("Dog, barking", "Wind", "Rain"), ("cat",), ()]


def test_the_command_takes_the_published_form(root, tmp_path, capsys, golden):
    rows = [row(f"{THERE}/y/a.flac"), row(f"{THERE}/y/a.flac", input="  ", instruction="odd")]
    rows += [
        row(f"{THERE}/y/b.wav", instruction=f"What? {n}", output="Labels: Cat") for n in range(30)
    ]
    path, out = write(tmp_path / "m.json", rows), tmp_path / "records"
    arguments = [
        "--json",
        path,
        "--audio-root",
        root,
        "--out",
        out,
        "--val-share",
        0,
        "--shards",
        1,
    ]
    assert write_records.command([*map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    assert "by index" in printed and "python -m data_pipelines.token_lengths" in printed
    assert len(RecordStore(out, split="train")) == 2
    assert json.loads((out / TAG_LABELS).read_text()) == ["Bark", "Cat", "Dog"]
    report = json.loads((tmp_path / "records.audio_report.json").read_text())
    assert report["clips"] == {"as is": 0, "rewritten": 0, "by index": 2, "missing": 0}
    (line,) = (tmp_path / "records.bad_rows.jsonl").read_text().splitlines()
    assert "m.json, row 2" in json.loads(line)["reason"]
    vocabulary = golden / "text_cases" / "spm320.model"
    assert write_records.command([*map(str, arguments), "--tokenizer", str(vocabulary)]) == 0
    assert len(list((out / "tokens").rglob("*.npz"))) == 1
    with pytest.raises(UserError, match="1 of 32 rows.*--max-bad-rows"):
        write_records.command([*map(str, arguments), "--max-bad-rows", "0.01"])


def test_the_command_holds_one_clip_at_a_time(tmp_path, monkeypatch):
    for number in range(20):
        soundfile.write(tmp_path / f"{number}.flac", np.full(1600, 0.1), 16000)
    write(tmp_path / "mine.json", [row(f"{number}.flac") for number in range(20)])
    alive, most = weakref.WeakSet(), []
    of = clip_lines.ClipLine.of

    def watched(clip):
        alive.add(clip)
        most.append(len(alive))
        return of(clip)

    monkeypatch.setattr(clip_lines.ClipLine, "of", watched)
    given = ["--json", tmp_path / "mine.json", "--out", tmp_path / "records", "--no-tokens"]
    assert write_records.command([*map(str, given), "--shards", "1"]) == 0
    gc.collect()
    assert len(most) == 20 and max(most) <= 2 and not alive
