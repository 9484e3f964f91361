"""All sources in their published forms: what is read, and what is refused by name.

`LTU_JAX_UPDATE_GOLDEN=1 pytest tests/data_pipelines/open_asqa/test_sources.py` writes anew what is
read of each fixture, whole: a change is a visible difference.
"""

import json
import os
import re
from pathlib import Path

import pytest

from data_pipelines.metadata.table_files import RecordProblems
from data_pipelines.open_asqa.closed_ended import ClipFindings, closed_pairs
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.source_clip import SoundEvent, SourceClip
from ltu_jax.core.errors import UserError
from tests.support import published_metadata as published
from tests.support.published_metadata import video


def read(name, folder):
    problems = RecordProblems()
    return list(SOURCES[name].read(folder, problems)), problems.found


@pytest.fixture
def made(tmp_path, request):
    name = request.param
    published.MAKERS[name](tmp_path)
    return name, *read(name, tmp_path)


# Source -> clips, refused rows, and some fields of one clip.
EXPECTED = {
    "as_strong": (20, 0, 3, {
        "clip_id": f"{video(3)}_3.5",
        "labels": ("Speech", "Dog", "Gurgling"),
        "captions": ("A dog barks 3 times.",),
        "events": (
            SoundEvent(start=0.0, end=10.0, label="Speech"),
            SoundEvent(start=0.3, end=1.55, label="Dog"),
            SoundEvent(start=1.4, end=1.421, label="Gurgling"),
        ),
    }),
    "audioset": (25, 0, 10, {"dataset": "as_2m", "labels": ("Singing", "Gurgling, bubbling")}),
    "vggsound": (16, 0, 0, {"labels": ("Bird chirping, tweeting",), "dataset": "vggsound_train"}),
    "fsd50k": (20, 0, 10, {"labels": ("Bark", "Dog", "Animal"), "dataset": "fsd50k_tr"}),
    "audiocaps": (21, 0, 0, {"captions": ("A dog barks, then 0 cars",)}),
    "freesound": (15, 0, 0, {"clip_id": "1001", "captions": ("Sound 1 is heard.",)}),
    "clotho": (20, 0, 0, {"files": ("Santa Motor 0", "Santa_Motor_0"), "tags": ("café", "motor")}),
    "soundbible": (20, 0, 19, {"dataset": "sound_bible"}),
    "iemocap": (20, 0, 1, {
        "clip_id": "Ses01F_impro01_M001", "gender": "male", "emotion": "happy",
        "gold_text": "Excuse me 1.",
    }),
    "libritts": (20, 1, 0, {"clip_id": "16_208_000000_000000", "gender": "male"}),
    "voxceleb2": (20, 0, 0, {"clip_id": "id00012/v1/00000", "age": 44, "gender": "male"}),
    "mosei": (12, 1, 0, {
        "start": 0.0, "end": 5.5, "emotion": "happy", "score": -2, "negative": True,
    }),
    "joint_audioset": (17, 0, 1, {"labels": ("Singing", "Gurgling, bubbling")}),
    "real": (14, 0, 13, {
        "clip_id": "b__song_part2", "files": ("b__song_part2", "b__song"), "start": 85.0,
        "end": 95.0, "split": "val", "labels": ("Music",), "licence": "GPL-2",
        "recordings": ("real:21",),
    }),
    "real_speech": (2, 0, 0, {
        "gold_text": "zebra", "gender": "male", "licence": "GPL-3+",
        "recordings": ("real:c__zebra",),
    }),
    "real_windows": (10, 0, 4, {
        "clip_id": "val-w4", "files": ("audio/val/w4",), "split": "val", "dataset": "real_joint",
        "labels": ("Dog", "Rain", "Speech"), "absent": ("Cat", "Thunder"), "gender": "male",
        "gold_text": "Where did you put the printer?", "licence": "CC0 and GPL-2", "f0_hz": 101.5,
        "recordings": ("real:val4",), "window_kind": "sounds",
    }),
    "fma": (13, 0, 0, {"genres": ("Folk", "Singer-Songwriter"), "title": "Song, 0"}),
}  # fmt: skip


@pytest.mark.parametrize("made", EXPECTED, indirect=True)
def test_what_a_source_says(made):
    name, clips, problems = made
    count, refused, number, facts = EXPECTED[name]
    assert (len(clips), len(problems)) == (count, refused)
    assert {field: getattr(clips[number], field) for field in facts} == facts
    assert len({clip.clip_id for clip in clips}) == count
    datasets = ", ".join(SOURCES[name].datasets)
    for clip in clips:
        assert SourceClip.from_json(clip.to_json()) == clip
        assert clip.dataset in datasets and clip.licence and clip.where


def findings(clip: SourceClip) -> ClipFindings:
    """What is found of any clip; its labels are described."""
    return ClipFindings(
        spoken_text="Come here, boy: now.",
        style={"pitch": "very high", "speed": "slow", "volume": "medium"},
        descriptions={label: ("loud",) for label in clip.labels},
    )


GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "open_asqa_sources"


@pytest.mark.parametrize("made", EXPECTED, indirect=True)
def test_all_that_a_fixture_gives(made, tmp_path):
    """Every clip with its closed-ended answers, and every refused row."""
    name, clips, problems = made
    rows = [
        clip.to_json()
        | {"answers": [
            [pair.task, pair.answer]
            for pair in closed_pairs(clip, findings(clip), tasks=SOURCES[name].tasks, seed="0")
        ]}
        for clip in clips
    ]  # fmt: skip
    rows += [{"refused": str(problem)} for problem in problems]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    text = text.replace(f"{tmp_path}/", "")
    file = GOLDEN / f"{name}.jsonl"
    if os.environ.get("LTU_JAX_UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def after_colon(answer: str) -> str:
    return answer.split(": ", 1)[1].rstrip(".")


# Task -> how the official evaluation reads an answer, and what of a clip it must find.
OFFICIAL = {
    "cla_label": (lambda a: tuple(a.split(": ", 1)[1].split("; ")), lambda c: c.labels),
    "cla_label_des": (
        lambda a: tuple(one.split(" -> ")[1] for one in a.split(": ", 1)[1].split("; ")),
        lambda c: c.labels,
    ),
    "gender_cla": (after_colon, lambda c: c.gender),
    "age_cla": (lambda a: int(re.findall(r"\d+", a)[-1]), lambda c: c.age),
    "emotion_cla": (lambda a: a[a.index(":") + 1 : a.index(".")].strip(), lambda c: c.emotion),
    "emotion_bin": (lambda a: after_colon(a) == "negative", lambda c: c.negative),
    "emotion_score": (lambda a: int(after_colon(a)), lambda c: c.score),
    "emotion_detail": (
        lambda a: (a.split(",")[0].lower(), int(re.search(r"-?\d", a)[0])),
        lambda c: (c.emotion, c.score),
    ),
    "genre_cla": (lambda a: tuple(after_colon(a).split(", ")), lambda c: c.genres),
    "ASR": (lambda a: a.split(": ", 1)[1], lambda c: findings(c).spoken_text),
    "pitch_cla": (after_colon, lambda c: findings(c).style["pitch"]),
    "speed_cla": (after_colon, lambda c: findings(c).style["speed"]),
    "energy_cla": (after_colon, lambda c: findings(c).style["volume"]),
}


@pytest.mark.parametrize("made", EXPECTED, indirect=True)
def test_the_label_comes_back_out_of_every_answer(made):
    name, clips, _ = made
    for clip in clips:
        captions = []
        pairs = closed_pairs(clip, findings(clip), tasks=SOURCES[name].tasks, seed="0")
        if SOURCES[name].tasks:
            assert pairs
        for pair in pairs:
            if pair.task == "caption":
                captions.append(pair.answer.split("Audio caption: ")[-1])
            elif pair.task in OFFICIAL:
                read_back, known = OFFICIAL[pair.task]
                assert read_back(pair.answer) == known(clip), pair
            else:  # derived from the events again, and from the windows, in tests of their own
                assert pair.task.startswith("temporal") or name == "real_windows", pair
        assert tuple(captions) == clip.captions or "caption" not in SOURCES[name].tasks


def test_windows_without_events_and_their_datasets(tmp_path):
    published.MAKERS["real_windows"](tmp_path)
    clips = {clip.clip_id: clip for clip in read("real_windows", tmp_path)[0]}
    told = {name: (clip.dataset, clip.labels) for name, clip in clips.items()}
    assert told["train-w0"] == ("real_windows_other", ("Dog", "Rain"))
    assert told["train-w5"] == ("real_joint_other", ("Dog", "Rain", "Speech"))
    assert told["val-w6"] == ("real_voices", ("Speech",))  # a voice is no silence
    assert told["train-w7"] == ("real_windows", ("Silence",))
    assert told["train-w8"] == ("real_windows", ("Noise",))


# Source -> file that is damaged, what of it is replaced by what, and what the refusal must name.
BROKEN = {
    "as_strong": ("strong/audioset_train_strong.tsv", "0.300\t1.550", "1.550\t0.300", ".tsv:8"),
    "audioset": ("balanced_train_segments.csv", "/m/0bt9lr", "/m/nowhere", "/m/nowhere"),
    "vggsound": ("vggsound.csv", ",3,", ",3.5,", "'3.5'"),
    "fsd50k": ("FSD50K.ground_truth/dev.csv", '105,"Bark', '105,"Barc', "'Barc'"),
    "audiocaps": ("train.csv", '"A dog barks, then 7 cars"', '" "', "train.csv:9"),
    "freesound": ("fsd_final.json", '"id": "1003"', '"id": "1002"', "'1002'"),
    "clotho": ("clotho_captions_development.csv", "Santa Motor 4 says 2", "", "caption_3"),
    "soundbible": ("sb_final.json", '"duration": 11.0', '"duration": "long"', "'long'"),
    "iemocap": (
        "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt", "\thap\t", "\tglad\t", "'glad'",
    ),
    "libritts": ("speakers.tsv", "16\tM\ttrain-clean-360\n", "", "16"),
    "voxceleb2": ("final_dataframe_extended.csv", "31.0,31.0", "31.5,31.5", "'31.5'"),
    "mosei": ("CMU_MOSEI_Labels.csv", ",4,3.600,9.5,1,1,4,1,", ",4,3.600,9.5,1,1,7,1,", "label6"),
    "joint_audioset": ("balanced_train_segments.csv", "30.000, 40", "30.000, 20", "30.0"),
    "real": ("recordings.tsv", "dog_3.ogg\tDog\t\tDog / wolf\t3.5", "dog_3.ogg\tDog\t\t\tlong",
             "'long'"),
    "real_speech": ("recordings.tsv", "\tmale\t", "\tman\t", "'man'"),
    "real_windows": ("windows.jsonl", '"absent": ["Cat", ', '"absent": ["Dog", ', "'Dog'"),
    "fma": ("tracks.csv", "[17, 103]", "[17, 9]", "genre 9"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_named_and_left_out_or_ends_the_reading(name, tmp_path):
    file, old, new, named = BROKEN[name]
    published.MAKERS[name](tmp_path)
    path = tmp_path / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    try:
        clips, problems = read(name, tmp_path)
    except UserError as error:
        assert named in str(error) and path.name in str(error)
        return
    count, refused, _, _ = EXPECTED[name]
    assert len(problems) > refused and len(clips) < count
    assert any(named in problem for problem in problems)


# Damage to a whole file: an open quote at its head, one at its end, and JSON of other kinds.
DAMAGE = (
    lambda old: b'"' + old,
    lambda old: old + b'"' + b"x" * 140_000,
    lambda old: b"5",
    lambda old: b'[{"id": "a", "child_ids": [{}]}]',
    lambda old: b'{"data": [{"id": 3, "caption": "x", "duration": 3, "tags": 5}]}',
    lambda old: b"[" * 100_000,
)


@pytest.mark.parametrize("name", SOURCES)
def test_a_damaged_file_is_an_error_or_a_refused_row_whatever_is_wrong(name, tmp_path):
    published.MAKERS[name](tmp_path)
    entry = SOURCES[name]
    if entry.related_classes is not None:
        (tmp_path / "ontology.json").write_text("[]")
    files = [one for names in (*entry.files, *entry.optional) for one in names.split("|")]
    for path in [path for file in files for path in tmp_path.rglob(file)]:
        whole, (clips, refused) = path.read_bytes(), read(name, tmp_path)
        for damage in DAMAGE:
            path.write_bytes(damage(whole))
            try:
                left, problems = read(name, tmp_path)
                if entry.related_classes is not None:
                    entry.related_classes(tmp_path)
            except UserError as error:
                assert str(path) in str(error) or name == "voxceleb2"
            else:
                assert problems != refused or left != clips
        path.write_bytes(whole)


@pytest.mark.parametrize("name", [name for name in SOURCES if SOURCES[name].files])
def test_a_missing_file_is_named(name, tmp_path):
    published.MAKERS[name](tmp_path)
    missing = SOURCES[name].files[0].partition("|")[0]
    for path in tmp_path.rglob(missing):
        path.unlink()
    with pytest.raises(UserError, match=missing if name != "libritts" else "SPEAKERS.txt"):
        read(name, tmp_path)


def test_two_files_of_one_name_must_be_alike(tmp_path):
    published.vggsound(tmp_path)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "vggsound.csv").write_bytes((tmp_path / "vggsound.csv").read_bytes())
    assert len(read("vggsound", tmp_path)[0]) == 16
    (tmp_path / "copy" / "vggsound.csv").write_text("x,1,dog,train\n")
    with pytest.raises(UserError, match=r"vggsound\.csv and .*vggsound\.csv differ"):
        read("vggsound", tmp_path)
