"""Answers have the official forms, and the official ways to read them find the label again."""

import re

import pytest

from data_pipelines.open_asqa import draw
from data_pipelines.open_asqa.closed_ended import ClipFindings, closed_pairs
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.source_clip import SoundEvent, SourceClip

# Task -> the form of its answers.
FORMS = {
    "cla_label": r"Labels: [^;]+(; [^;]+)*",
    "cla_label_des": r"Labels with acoustic features: [^;]+ -> [^;]+(; [^;]+ -> [^;]+)*",
    "caption": r"Audio caption: .+",
    "gender_cla": r"Speaker gender: (male|female)\.",
    "gender_emotion_cla": r"Speaker gender: (male|female)\. Speech emotion: \w+\.",
    "age_cla": r".* \d+\.",
    "pitch_cla": r"Speech pitch: .+\.",
    "speed_cla": r"Speech speed: .+\.",
    "energy_cla": r"Speech volume: .+\.",
    "emotion_cla": r"Speech emotion: \w+\.",
    "emotion_bin": r"Sentiment polarity: (non-)?negative\.",
    "emotion_score": r"Sentiment score: -?[0-3]\.",
    "emotion_detail": r"[A-Z]\w+, with a sentiment score of -?[0-3] \([a-z ]+\)\.",
    "genre_cla": r"Music genre: .+\.",
    "ASR": r"Spoken text: .+",
}


def clip(**facts) -> SourceClip:
    values = {"source": "as_strong", "clip_id": "a", "dataset": "x", "files": ("a",)}
    return SourceClip(**values | {"where": "t:1", "licence": "l"} | facts)


EVERYTHING = clip(
    labels=("Dog", "Gurgling, bubbling"),
    events=(SoundEvent(start=0.5, end=1, label="Dog"),),
    captions=("A dog barks.", "Water and a dog."),
    gender="female",
    age=43,
    emotion="happy",
    score=2,
    negative=False,
    genres=("Folk", "Singer-Songwriter"),
)
FOUND = ClipFindings(
    spoken_text="Come here, boy: now.",
    style={"pitch": "very high", "speed": "slow", "volume": "medium"},
    descriptions={"Dog": ("sharp and short",), "Gurgling, bubbling": ("low and wet", "soft")},
)


def pairs_of(made=EVERYTHING, found=FOUND, tasks=(*FORMS, "temporal"), seed="0"):
    return closed_pairs(made, found, tasks=tasks, seed=seed)


def test_every_task_has_its_form():
    pairs = pairs_of()
    with_emotion = ClipFindings(gender_with_emotion=True)
    pairs += pairs_of(found=with_emotion)
    assert {pair.task for pair in pairs if not pair.task.startswith("temporal")} == set(FORMS)
    for pair in pairs:
        if pair.task in FORMS:
            assert re.fullmatch(FORMS[pair.task], pair.answer), pair
        assert "{" not in pair.question


def test_the_official_ways_to_read_find_the_labels():
    answers = {pair.task: pair.answer for pair in pairs_of()}
    assert answers["cla_label"].split(": ")[1].split("; ") == ["Dog", "Gurgling, bubbling"]
    assert answers["caption"].split("Audio caption: ")[-1] in EVERYTHING.captions
    assert int(re.findall(r"\d+", answers["age_cla"])[-1]) == 43
    assert re.search(r":(.*?)\.", answers["emotion_cla"])[1].strip() == "happy"
    assert answers["genre_cla"].split(": ")[-1].rstrip(".").split(", ") == list(EVERYTHING.genres)
    assert answers["ASR"].split("Spoken text: ")[-1] == FOUND.spoken_text
    assert answers["emotion_detail"] == "Happy, with a sentiment score of 2 (positive)."


def test_only_what_is_known_is_asked():
    assert pairs_of(clip(), ClipFindings()) == []
    half = ClipFindings(descriptions={"Dog": ("sharp",)})
    assert {pair.task for pair in pairs_of(clip(labels=("Dog", "Cat")), half)} == {"cla_label"}
    assert {pair.task for pair in pairs_of(tasks=("ASR", "age_cla"))} == {"ASR", "age_cla"}


@pytest.mark.parametrize("task", ["cla_label", "gender_cla", "caption"])
def test_all_wordings_occur_and_half_of_the_sound_questions_have_the_prefix(task):
    texts = []
    for number in range(1_000):
        made = clip(clip_id=str(number), labels=("Dog",), captions=("A dog.",), gender="male")
        texts += [p.question for p in closed_pairs(made, ClipFindings(), tasks=(task,), seed="0")]
    prefixed = sum(text.startswith("Closed-ended question: ") for text in texts)
    assert {t.removeprefix("Closed-ended question: ") for t in texts} == set(draw.wordings()[task])
    assert 430 < prefixed < 570 if task != "gender_cla" else prefixed == 0


def test_a_draw_depends_on_seed_clip_and_task_alone():
    one = pairs_of()
    assert pairs_of() == one
    assert pairs_of(tasks=("ASR",)) == [pair for pair in one if pair.task == "ASR"]
    assert pairs_of(seed="1") != one


def test_every_task_of_a_source_has_thirty_wordings():
    tasks = {task for source in SOURCES.values() for task in source.tasks}
    for task, own in draw.wordings().items():
        assert len(set(own)) >= 30, task
        assert task in tasks or task.startswith("temporal")


def test_a_clip_survives_its_json():
    assert SourceClip.from_json(EVERYTHING.to_json()) == EVERYTHING
    assert SourceClip.from_json(clip(events=()).to_json()) == clip(events=())
