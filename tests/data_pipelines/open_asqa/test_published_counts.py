"""Counts beside what is published, and lists of the clips that a published file has."""

import json
from collections import Counter

import pytest

from data_pipelines.open_asqa import published_counts
from data_pipelines.open_asqa.__main__ import command
from data_pipelines.open_asqa.build_folder import BuildFolder
from data_pipelines.open_asqa.ids_step import clip_name
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.statistics_step import SourceCounts, compared, of_folder, of_rows
from data_pipelines.records.schema import RecordError
from ltu_jax.core.jsonl import write_jsonl
from tests.support.published_metadata import video


def test_the_printed_counts_have_the_printed_sums():
    counts = {
        name: SourceCounts(clips=1, tasks=Counter(published_counts.printed(name)))
        for name in SOURCES
    }
    report = compared(counts)
    assert report["classification"] == {"ours": 2_072_481, "printed": 2_072_481}
    assert report["speech_closed"] == {"ours": 940_760, "printed": 940_760}
    assert not any("why" in task for own in report["sources"].values() for task in own["tasks"])
    assert report["sources"]["iemocap"]["closed"] == 4_290 * 6
    assert report["sources"]["mosei"]["printed_closed"] == 18_198 * 9
    assert report["sources"]["as_strong"]["printed_closed"] is None  # of captions a sum is known


def test_where_the_poster_and_the_print_disagree_is_said():
    found = published_counts.disagreements()
    assert [text.partition(":")[0] for text in found] == ["libritts", "voxceleb2", "mosei"]
    assert "167,000" in found[0] and "107,990" in found[0]


def test_the_poster_has_its_sums():
    rows = published_counts.POSTER.values()
    assert abs(sum(row.closed for row in rows) - 2_951_000) < 2_000
    assert abs(sum(row.open for row in rows) - 6_690_000) < 3_000


def row(dataset, task, audio_id):
    return {
        "instruction": "What?", "input": "", "audio_id": audio_id, "dataset": dataset,
        "task": task, "output": "That.",
    }  # fmt: skip


ROWS = [
    row("as_20k", "cla_label", "/a/x.flac"),
    row("as_20k", "open-ended question", "/a/x.flac"),
    row("as_2m", "cla_label_des", "/a/y.flac"),
    row("audioset", "open-ended question", "/a/x.flac"),
    row("mosei_tr", "gender_cla", "/m/1.wav"),
    row("mosei", "open-ended question", "/m/1.wav"),
    row("mine", "cla_label", "/m/1.wav"),
]


def test_rows_of_a_file_are_counted_by_source(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS))
    counts = of_rows(path)
    assert {name: own.clips for name, own in counts.items()} == {
        "audioset": 2, "joint_audioset": 1, "mosei": 1, "mine": 1,
    }  # fmt: skip
    assert counts["audioset"].tasks == Counter(
        {"cla_label": 1, "cla_label_des": 1, "open-ended question": 1}
    )
    report = compared(counts)
    assert list(report["sources"]) == ["audioset", "mosei", "joint_audioset", "mine"]
    assert report["sources"]["mosei"]["closed"] == report["sources"]["mosei"]["open"] == 1
    assert report["classification"]["ours"] == 4
    path.write_text(json.dumps([*ROWS, {"task": "cla_label"}]))
    with pytest.raises(RecordError, match="row 8"):
        of_rows(path)


def test_a_build_is_counted_with_what_filter_accepted(tmp_path):
    folder = BuildFolder(tmp_path)
    (tmp_path / "fma").mkdir()
    write_jsonl(folder.file("fma", "clips.jsonl"), [{"clip_id": "1"}, {"clip_id": "2"}])
    write_jsonl(folder.file("fma", "closed_ended.jsonl"), [{"task": "genre_cla"}])
    write_jsonl(folder.file("fma", "open_ended.jsonl"), [{}, {}, {}])
    assert of_folder(folder)["fma"].tasks["open-ended question"] == 3
    write_jsonl(folder.file("fma", "accepted.jsonl"), [{}])
    counts = of_folder(folder)["fma"]
    assert counts.clips == 2
    assert counts.tasks == Counter({"genre_cla": 1, "open-ended question": 1})


def test_statistics_are_printed_and_written(tmp_path, capsys):
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    numbers = tmp_path / "numbers.json"
    assert command(["statistics", str(tmp_path / "rows.json"), "--json", str(numbers)]) == 0
    printed = [line.split()[:4] for line in capsys.readouterr().out.splitlines()]
    assert ["mosei", "gender_cla", "1", "18,198"] in printed
    report = json.loads(numbers.read_text())
    assert report["sources"]["mine"]["poster"] is None
    assert report["sources"]["mosei"]["tasks"]["gender_cla"]["why"]


# Dataset of a row, its audio_id, and the name of the clip.
FORMS = [
    ("as_strong_train", f"/data/as_strong/audio/{video(1)}_30000.flac", f"{video(1)}_30000"),
    ("as_20k", f"/data/as/bal/Y{video(2)}.wav", f"Y{video(2)}"),
    ("as_2m", f"/data/as/unbal/{video(0)}.flac", video(0)),
    ("vggsound_train", f"/vgg/{video(3)}_000030.flac", f"{video(3)}_000030"),
    ("fsd50k_tr", "/fsd/dev/12345.wav", "12345"),
    ("audiocaps_train", f"/ac/train/{video(4)}.wav", video(4)),
    ("freesound_10s", "/fs/180913.flac", "180913"),
    ("clotho_development", "/c/Santa Motor_4.5.wav", "Santa Motor_4.5"),
    ("sound_bible", "/sb/1001.flac", "1001"),
    ("iemocap_tr", "/i/Session1/Ses01F_impro01_F000.wav", "Ses01F_impro01_F000"),
    ("libritts", "/l/14/208/14_208_000001_000000.wav", "14_208_000001_000000"),
    ("voxceleb_tr", f"/v/id00012/{video(5)}/00001.m4a", f"id00012/{video(5)}/00001"),
    ("voxceleb", f"/v/id00012_{video(1)}_00002.wav", f"id00012/{video(1)}/00002"),
    ("mosei_dev", f"/m/{video(6)}_3.wav", f"{video(6)}_3"),
    ("audioset", f"C:\\as\\{video(7)}.flac", video(7)),
    ("FMA", "/fma_large/000/000002.mp3", "000002"),
]


def test_lists_of_clips_come_out_of_a_published_file(tmp_path):
    rows = [row(dataset, "t", audio_id) for dataset, audio_id, _ in FORMS]
    (tmp_path / "rows.json").write_text(json.dumps([*rows, *rows, row("mine", "t", "/x")]))
    out = tmp_path / "lists"
    assert command(["ids", "--from", str(tmp_path / "rows.json"), "--out", str(out)]) == 0
    lists = {path.stem: path.read_text().split("\n")[:-1] for path in out.glob("*.txt")}
    assert set(lists) == set(published_counts.POSTER)
    assert sorted(name for own in lists.values() for name in own) == sorted(f[2] for f in FORMS)
    assert lists["audioset"] == sorted([f"Y{video(2)}", video(0)])


@pytest.mark.parametrize(("dataset", "audio_id", "name"), FORMS)
def test_the_name_of_a_clip(dataset, audio_id, name):
    source = next(
        key for key, own in SOURCES.items() if dataset in ", ".join(own.datasets).split(", ")
    )
    assert clip_name(source, audio_id) == name
