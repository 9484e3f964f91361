"""Questions about windows that no training has heard: each by its side, kind and what is in it."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from data_pipelines.metadata.table_files import UnusableRecords
from data_pipelines.open_asqa import draw
from data_pipelines.real.window_plan import CLASSES
from ltu_jax import evaluate
from ltu_jax.core.errors import UserError
from ltu_jax.core.jsonl import write_jsonl
from ltu_jax.evaluation.datasets.dataset import read_dataset
from ltu_jax.evaluation.datasets.readers import real_windows
from ltu_jax.evaluation.scoring import sound_groups

SPEECH = {
    "name": "am_adam_1", "text": "The bus is late.", "gender": "male", "voice": "am_adam",
    "accent": "American English", "f0_hz": 110.0, "speech_seconds": 1.4,
}  # fmt: skip


def window(window_id, *classes, **changed):
    """A line of windows.jsonl: held out, somebody's recording, nobody speaks."""
    return {
        "window_id": window_id, "file": f"audio/val/{window_id}.flac", "split": "val",
        "kind": "sounds", "classes": list(classes), "groups": ["Dog / wolf"], "absent": ["Cat"],
        "clusters": [f"c-{window_id}"], "licences": ["CC0"], "ships": True, "speech": None,
    } | changed  # fmt: skip


DOG = window("val-dog", "Dog")
# Wind is in no group; a bell may be heard in an alarm, so nobody denies it.
WIND = window("val-wind", "Wind", groups=[], absent=["Rain"], ships=False)
ALARM = window("val-alarm", "Alarm", groups=["Door / tools / machine / domestic"], absent=["Bell"])
QUIET = {"groups": [], "absent": [], "clusters": []}
NOISE = window("val-noise", kind="noise", **QUIET)
SPOKEN = window("val-spoken_1", "Dog", speech=SPEECH)
VOICE = window("val-spoken_2", kind="silence", speech=SPEECH, **QUIET)
ALONE = window("val-spoken_3", speech=SPEECH, clusters=["7", "9"], groups=[], absent=[])
TRAIN = window("train-dog", "Dog", split="train")


def write(folder, *lines):
    write_jsonl(folder / "windows.jsonl", lines)
    return folder


def ask(folder, *lines):
    return real_windows.read(write(folder, *lines), split="val")


def told(corpus):
    return [(item.item_id, item.references, item.choices[:2]) for item in corpus.items]


def test_each_window_is_asked_what_is_known_of_it(tmp_path):
    corpus = ask(tmp_path, TRAIN, DOG, WIND, ALARM, NOISE, SPOKEN, VOICE, ALONE)
    some = ("Bird & fowl", "Wild animals")
    answers, genders = ("yes", "no"), ("female", "male")
    machine = "Door / tools / machine / domestic"
    assert told(corpus) == [
        ("val-dog-sound", ("Dog / wolf",), some),
        ("val-dog-presence_affirmed", ("yes", "a dog", "Dog"), answers),
        ("val-dog-presence_denied", ("no", "a cat", "Cat"), answers),
        ("val-wind-presence_affirmed", ("yes", "wind", "Wind"), answers),
        ("val-wind-presence_denied", ("no", "rain", "Rain"), answers),
        ("val-alarm-sound", (machine,), some),
        ("val-alarm-presence_affirmed", ("yes", "an alarm", "Alarm"), answers),
        ("val-noise-silence", ("Nothing is heard.",), ()),
        ("val-spoken_1-spoken_text", ("The bus is late.",), ()),
        ("val-spoken_1-gender", ("male",), genders),
        ("val-spoken_1-joint_questions", ("Dog / wolf",), some),
        ("val-spoken_2-spoken_text", ("The bus is late.",), ()),
        ("val-spoken_2-gender", ("male",), genders),
        ("val-spoken_3-spoken_text", ("The bus is late.",), ()),
        ("val-spoken_3-gender", ("male",), genders),
    ]
    assert {name: clip.cluster for name, clip in corpus.clips.items()} == {
        "val-dog": "c-val-dog", "val-wind": "c-val-wind", "val-alarm": "c-val-alarm",
        "val-noise": "val-noise", "val-spoken_1": "c-val-spoken_1", "val-spoken_2": "am_adam",
        "val-spoken_3": "7+9",
    }  # fmt: skip
    assert all(clip.spoken_text is None for clip in corpus.clips.values())
    assert corpus.clips["val-dog"].audio == tmp_path / "audio" / "val" / "val-dog.flac"
    groups = {item.item_id: dict(item.groups) for item in corpus.items}
    assert groups["val-dog-sound"] == {"class": "Dog", "ships": "yes"}
    assert groups["val-noise-silence"] == {"kind": "noise", "ships": "yes"}
    denied = groups["val-wind-presence_denied"]
    assert denied.pop("wording") in ("trained", "new")
    assert denied == {"asked": "Rain", "heard": "Wind", "ships": "no"}


def test_what_is_heard_and_what_is_not_are_asked_about_in_the_same_words(tmp_path):
    corpus = ask(tmp_path, *(window(f"val-{n}", "Dog") for n in range(200)))
    asked = {}
    for item in corpus.items:
        if item.row != "sound":
            plain = item.question
            for name in item.references[1:]:
                plain = plain.replace(name, "...")
            asked.setdefault(item.clip_id, set()).add((plain, item.groups["wording"]))
        else:
            assert item.question == "What do you hear?"
    assert all(len(one) == 1 for one in asked.values())
    counts = Counter(wording for one in asked.values() for wording in one)
    assert len(counts) == 10 and min(counts.values()) >= 8
    assert (
        counts["Can you hear ...?", "trained"] and counts['Is "..." heard in the clip?', "trained"]
    )
    again = ask(tmp_path, *(window(f"val-{n}", "Dog") for n in range(200)))
    assert again == corpus


def test_wordings_are_those_of_training_or_none_of_them():
    path = Path(real_windows.__file__).with_name("real_questions.toml")
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    known = draw.wordings()
    names = {
        "presence": ("cla_presence", "temporal_presence"), "spoken_text": ("ASR",),
        "gender": ("gender_cla",), "joint": ("ASR_background",),
    }  # fmt: skip
    everything = {text for texts in known.values() for text in texts}
    assert table["heard"] in known["cla_heard"]
    for name, tasks in names.items():
        texts = {text for task in tasks for text in known[task]}
        for kind in ("trained", "new"):
            plain = {
                text.replace("{phrase}", "{event}").replace("{name}", "{event}")
                for text in table[name][kind]
            }
            assert plain and (plain <= texts if kind == "trained" else not plain & everything)


def test_the_shuffled_mode_hears_another_group_class_or_gender(tmp_path):
    lines = []
    for number, name in enumerate(sorted(CLASSES)[:12] * 3):
        group = sound_groups.words().groups[number % 6]
        speech = SPEECH | {"gender": ("female", "male")[number % 2]}
        for clip, said in ((f"val-{number}", None), (f"val-spoken_{number}", speech)):
            lines.append(window(clip, name, groups=[group], absent=["Typing"], speech=said))
    dataset = read_dataset(write(tmp_path, *lines), name="real", split=None)
    by_clip = {line["window_id"]: line for line in lines}
    assert set(dataset.rows) == {
        "sound", "presence_affirmed", "presence_denied", "spoken_text", "gender", "joint_questions",
    }  # fmt: skip
    for item in dataset.items:
        own, other = by_clip[item.clip_id], by_clip[dataset.partner[item.item_id]]
        assert own != other
        if item.row in ("sound", "joint_questions"):
            assert own["groups"] != other["groups"]
        elif item.row.startswith("presence"):
            assert own["classes"] != other["classes"]
        elif item.row == "gender":
            assert own["speech"]["gender"] != other["speech"]["gender"]


def test_broken_lines_are_named_together_and_the_rest_is_asked(tmp_path):
    lines = [
        DOG, window("val-a", "Dog", kind="loud"), window("val-b", "Dog", groups=["Dogs"]),
        window("val-c", "Dog", clusters=["c-train-dog"]), TRAIN, NOISE,
        window("val-d", "Dog", file="../d.flac"),
    ]  # fmt: skip
    lines.insert(0, TRAIN)
    with pytest.raises(UnusableRecords) as caught:
        ask(tmp_path, *lines)
    told = ("3.*kind is 'loud'", "4.*'Dogs' is none of the 18 groups", "5.*cluster", "8.*file is")
    assert len(caught.value.problems) == len(told)
    for problem, expected in zip(caught.value.problems, told, strict=True):
        assert re.search(expected, problem), problem
    assert [item.clip_id for item in caught.value.rest.items] == ["val-dog"] * 3 + ["val-noise"]


def test_what_cannot_be_asked_is_an_error(tmp_path, tone, capsys):
    with pytest.raises(UserError, match="windows.jsonl does not exist"):
        real_windows.read(tmp_path, split="val")
    write(tmp_path, DOG, NOISE)
    with pytest.raises(UserError, match="real has no split 'train': use one of val"):
        real_windows.read(tmp_path, split="train")
    with pytest.raises(UserError, match="real has no split 'test'; it has val"):
        read_dataset(tmp_path, name="real", split="test")
    tone(tmp_path / "audio" / "val" / "val-dog.flac")
    assert evaluate.main(["--check", "--benchmarks", "real", "--data", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "1 of them missing or broken" in printed and "val-noise" in printed
    write(tmp_path, DOG, DOG)
    with pytest.raises(UserError, match="3 item ids occur more than once, 'val-dog-sound' first"):
        read_dataset(tmp_path, name="real", split="val")
    write(tmp_path, TRAIN)
    with pytest.raises(UserError, match="has no items of real, split val"):
        read_dataset(tmp_path, name="real", split="val")
