"""Questions about windows: what is there and what is not, in the same words; a text is copied."""

import re
from collections import Counter

from data_pipelines.metadata import class_phrases
from data_pipelines.open_asqa import build_folder, style_step
from data_pipelines.open_asqa.__main__ import command
from data_pipelines.open_asqa.closed_ended import ClipFindings, closed_pairs
from data_pipelines.open_asqa.closed_file import write_closed_ended
from data_pipelines.open_asqa.open_ended.clip_conversation import ClipConversation, WriterSettings
from data_pipelines.open_asqa.open_ended.material import KnownClip
from data_pipelines.open_asqa.open_ended.prompt_files import prompt_of
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.source_clip import SourceClip
from data_pipelines.real import recording_table, window_plan
from data_pipelines.real.window_plan import CLASSES
from ltu_jax.core.jsonl import write_jsonl
from ltu_jax.evaluation.scoring import sound_groups
from tests.support.small_build import make_build

NAME = "real_windows"
FORMS = {
    "cla_label": r"Labels: [^;]+(; [^;]+)*",
    "cla_label_des": r"Labels with acoustic features: .+ -> .+",
    "cla_heard": r"[A-Z].*\.",
    "cla_presence": r"Yes, .+ is heard\.|No, .+ is not heard\.",
    "cla_background": r"Background sound: [^;]+(; [^;]+)*\.",
    "ASR_background": r"Background sound: .+\. Spoken text: .+",
    "instrument_cla": r"Instruments: [^;]+(; [^;]+)*\.",
    "count_cla": r"Number of sounds: \d\.",
    "nobody_cla": r"Nobody speaks\.",
    "gender_cla": r"Speaker gender: (fe)?male\.",
    "pitch_cla": r"Speech pitch: .+\.",
    "speed_cla": r"Speech speed: .+\.",
    "ASR": r"Spoken text: .+",
}


def window(number=0, **changed) -> SourceClip:
    facts = {"source": NAME, "clip_id": f"train-w{number}", "dataset": NAME, "files": ("w",)}
    facts |= {"where": "windows.jsonl:1", "licence": "CC0", "window_kind": "sounds"}
    return SourceClip(**facts | changed)


def ask(clip, text="", style=None):
    found = ClipFindings(
        spoken_text=text,
        style=style or {},
        descriptions={label: ("loud",) for label in clip.labels},
    )
    return closed_pairs(clip, found, tasks=SOURCES[NAME].tasks, seed="0")


def answers(clip, **known):
    found = {}
    for pair in ask(clip, **known):
        assert re.fullmatch(FORMS[pair.task], pair.answer), pair
        assert "{" not in pair.question
        found.setdefault(pair.task, []).append(pair.answer)
    return found


def test_a_voice_over_two_sounds():
    clip = window(
        labels=("Dog", "Piano", "Speech"), absent=("Cat", "Rain"), gender="female", gold_text="Hi."
    )
    found = answers(clip, text="Hi there.", style={"pitch": "low", "speed": "fast"})
    assert found.keys() == FORMS.keys() - {"nobody_cla"}
    assert found["cla_label"] == ["Labels: Dog; Piano; Speech"]
    assert found["cla_heard"] == ["A dog and a piano are heard. A woman speaks."]
    assert found["cla_background"] == ["Background sound: Dog; Piano."]
    assert found["ASR_background"] == ["Background sound: Dog; Piano. Spoken text: Hi there."]
    assert found["instrument_cla"] == ["Instruments: Piano."]
    assert found["count_cla"] == ["Number of sounds: 2."]
    told = [answer.partition(",")[0] for answer in found["cla_presence"][:4]]
    assert told == ["Yes", "Yes", "No", "No"]


def test_windows_in_which_nothing_or_nobody_is_heard():
    for kind, label, sentence in (
        ("silence", "Silence", "Nothing is heard."), ("noise", "Noise", "Only noise is heard."),
    ):  # fmt: skip
        found = answers(window(window_kind=kind, labels=(label,), absent=("Cat", "Rain")))
        assert found["cla_heard"] == [sentence] and found["cla_label"] == [f"Labels: {label}"]
        assert found["count_cla"] == ["Number of sounds: 0."]
        assert all(answer.startswith("No, ") for answer in found["cla_presence"])
        assert not found.keys() & {"ASR", "gender_cla", "cla_background", "ASR_background"}
    alone = answers(window(labels=("Speech",), gender="male", gold_text="Hi."), text="Hi.")
    assert alone["cla_heard"] == ["A man speaks, and nothing else is heard."]
    assert alone["cla_background"] == ["Background sound: none."]
    assert alone["ASR"] == ["Spoken text: Hi."] and "ASR_background" not in alone
    over = answers(window(window_kind="noise", labels=("Noise", "Speech")), text="Hi.")
    assert over["cla_heard"] == ["Somebody speaks over noise."]
    assert over["ASR_background"] == ["Background sound: Noise. Spoken text: Hi."]
    asked = [ask(window(number, labels=("Dog",), absent=("Cat",))) for number in range(600)]
    for task, least in (("nobody_cla", 70), ("instrument_cla", 70)):
        assert least < sum(pair.task == task for pairs in asked for pair in pairs) < 130
    music = [ask(window(number, labels=("Music",))) for number in range(100)]
    assert not any(pair.task == "instrument_cla" for pairs in music for pair in pairs)


def test_what_is_there_and_what_is_not_are_asked_alike():
    sides = recording_table.validation_sides(recording_table.recordings())
    planned = window_plan.plan(sides.train, of_class=20, voices={}, speech=0, more=0.4, seed=1)
    absent = window_plan.AbsentClasses(planned, seed=1)
    said, pairs = class_phrases.phrases(), class_phrases.kin()
    assert {"Music", "Guitar"} in pairs and set().union(*pairs) <= set(CLASSES)
    told, wordings = {"Yes": Counter(), "No": Counter()}, {"Yes": set(), "No": set()}
    for number, one in enumerate(planned):
        clip = window(number, labels=one.classes, absent=tuple(absent.of(one, count=2)))
        for pair in ask(clip):
            if pair.task != "cla_presence" or "peech" in pair.answer:
                continue
            verdict, _, rest = pair.answer.partition(", ")
            told[verdict][rest.partition(" is ")[0]] += 1
            wordings[verdict].add(pair.wording)
            if verdict == "No":
                words = rest.partition(" is ")[0]
                name = next((one for one, own in said.items() if own == words), words)
                assert not any({name, label} in pairs for label in clip.labels)
    assert told["Yes"].total() == told["No"].total()
    assert wordings["Yes"] == wordings["No"] and len(wordings["No"]) == 64
    # A class is affirmed about as often as it is denied: its name does not tell the answer.
    names = told["Yes"].keys() | told["No"].keys()
    share = [told["Yes"][name] / (told["Yes"][name] + told["No"][name]) for name in names]
    assert sorted(share)[len(share) // 10] > 0.3 and sorted(share)[-len(share) // 10] < 0.7


def test_phrases_are_read_as_the_group_of_their_class():
    phrases = class_phrases.phrases()
    assert phrases.keys() == {*CLASSES, "Speech"}
    labels = sound_groups.words().labels
    groups = {name: labels.get(label) for label, name in window_plan.CLASS_OF.items()}
    wrong = {
        name: sound_groups.named_group(phrase)
        for name, phrase in phrases.items()
        if name != "Speech" and sound_groups.named_group(phrase) != groups[name]
    }
    assert not wrong


def test_the_text_of_whisper_is_copied_and_that_of_the_voice_stays_beside_it(tmp_path):
    build = make_build(tmp_path, sources=(NAME,), clips=3)

    def texts():
        write_closed_ended(build, NAME, "0")
        return [
            (line["clip_id"], line["answer"].partition("Spoken text: ")[2], line["text_by"],
             line.get("gold_text"))
            for line in build.lines(NAME, build_folder.CLOSED_ENDED) if line["task"] == "ASR"
        ]  # fmt: skip

    gold = {f"c0000{number}": f"I have {number} of them." for number in range(3)}
    assert texts() == [(name, text, "people", None) for name, text in gold.items()]
    heard = [
        {"clip_id": name, "text": text, "raw": "", "reason": ""}
        for name, text in (("c00000", "I have no of them."), ("c00001", ""))
    ]
    write_jsonl(build.file(NAME, build_folder.SPOKEN_TEXT), heard)
    assert texts() == [
        ("c00000", "I have no of them.", "whisper", "I have 0 of them."),
        ("c00002", "I have 2 of them.", "people", None),
    ]


def test_what_whisper_invents_where_nobody_speaks_is_not_asked_for(tmp_path):
    build = make_build(tmp_path, sources=(NAME,), clips=1)
    clips = [window(0, labels=("Dog",)), window(1, labels=("Silence",), window_kind="silence")]
    write_jsonl(build.file(NAME, build_folder.CLIPS), [clip.to_json() for clip in clips])
    invented = [
        {"clip_id": clip.clip_id, "text": "Thank you.", "raw": "Thank you.", "reason": ""}
        for clip in clips
    ]
    write_jsonl(build.file(NAME, build_folder.SPOKEN_TEXT), invented)
    write_closed_ended(build, NAME, "0")
    lines = list(build.lines(NAME, build_folder.CLOSED_ENDED))
    assert {line["clip_id"] for line in lines} == {clip.clip_id for clip in clips}
    assert not any("Thank you" in line["answer"] for line in lines)
    known = KnownClip(clip=clips[0], spoken_text="Thank you.")
    written = ClipConversation(known, prompt_of(NAME), WriterSettings(model="m"))
    assert written.material.keys() == {"sounds"}


def test_style_is_that_of_the_voice_before_sounds_were_added(tmp_path, monkeypatch):
    build = make_build(tmp_path, sources=(NAME,), clips=1)
    clips = [
        window(
            number, audio="/nowhere.flac", labels=("Dog", "Speech"), gender="female",
            gold_text="There are many people in here.", f0_hz=180.0 + number,
            speech_seconds=1.0 + number / 10,
        )
        for number in range(40)
    ]  # fmt: skip
    clips.append(window(99, audio="/nowhere.flac", labels=("Dog",)))
    clips.sort(key=lambda clip: clip.clip_id)
    write_jsonl(build.file(NAME, build_folder.CLIPS), [clip.to_json() for clip in clips])
    monkeypatch.setattr(style_step, "_measured", None)  # no audio is measured
    command(["style", str(tmp_path), "--workers", "1", "--least-clips", "10"])
    rows = {row["clip_id"]: row for row in build.lines(NAME, build_folder.STYLE)}
    assert rows["train-w0"]["pitch"] == "very low" and rows["train-w0"]["speed"] == "very fast"
    assert rows["train-w39"]["pitch"] == "very high" and rows["train-w39"]["speed"] == "very slow"
    assert set(rows["train-w99"]["without"].values()) == {"nobody speaks"}
    assert all("volume" not in row for row in rows.values())
    asked = {line["task"] for line in build.lines(NAME, build_folder.CLOSED_ENDED)}
    assert {"pitch_cla", "speed_cla"} <= asked and "energy_cla" not in asked
