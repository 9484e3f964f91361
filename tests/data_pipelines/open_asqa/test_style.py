"""Speaking style: made-up voices land in their class, near a bound in none, whatever is killed."""

import itertools
import json

import numpy as np
import pytest

from data_pipelines.measures.speaking_style import SpeakingStyle
from data_pipelines.open_asqa.style_classes import ClipVoice, classify, make_bounds
from ltu_jax.core.errors import UserError
from tests.support import asqa_folder
from tests.support.asqa_folder import rows, run
from tests.support.voices_made_up import voice

NAMES = {
    "pitch": ("very low", "relatively low", "medium", "relatively high", "very high"),
    "speed": ("very slow", "slow", "medium", "fast", "very fast"),
    "volume": ("very low", "low", "medium", "high", "very high"),
}
SECONDS = 1.2
COUNT = 16
OFFICIAL = {"male": (95, 120, 135, 180), "female": (160, 200, 220, 270)}


def planted(number: int) -> dict[str, float]:
    """The figures of a clip: every axis in an order of its own."""
    gender = "male" if number < COUNT // 2 else "female"
    return {
        "gender": gender,
        "pitch": 84 * 1.1**number if gender == "male" else 150 * 1.1 ** (number - COUNT // 2),
        "speed": (4 + (5 * number) % COUNT) / SECONDS,
        "volume": -36.0 + 1.3 * ((7 * number) % COUNT),
    }


@pytest.fixture(scope="module")
def clips():
    made = {}
    for number in range(COUNT):
        figures = planted(number)
        samples = voice(f0=figures["pitch"], seconds=SECONDS, dbfs=figures["volume"])
        text = " ".join(["go"] * round(figures["speed"] * SECONDS))
        made[f"{number:02d}"] = (samples, {"gold_text": text, "gender": figures["gender"]})
    made["broken"] = (None, {"gender": "male", "gold_text": "Nobody hears this."})
    return made


@pytest.fixture
def folder(tmp_path, clips):
    asqa_folder.make(tmp_path, "libritts", clips)
    return tmp_path


def expected(axis: str, value: float, bounds, *, guard: float) -> str | None:
    """The class of a figure by the definition; None so near to a change that measuring decides."""
    near = {"pitch": 0.015 * value, "speed": 0.03 * value, "volume": 0.5}[axis]
    answers = set()
    for place in (value - near, value, value + near):
        widths = [high - low for low, high in itertools.pairwise(bounds)]
        beside = zip([widths[0], *widths], [*widths, widths[-1]], strict=True)
        inside = any(
            abs(place - bound) < guard * min(pair)
            for bound, pair in zip(bounds, beside, strict=True)
        )
        answers.add("" if inside else NAMES[axis][sum(place > bound for bound in bounds)])
    return answers.pop() if len(answers) == 1 else None


def test_voices_land_in_their_class_and_those_near_a_bound_in_none(folder):
    run("style", folder, "--workers", 1, "--least-clips", 8)
    found = rows(folder, "libritts", "style.jsonl")
    values = [planted(number) for number in range(COUNT)]
    checked = dict.fromkeys(NAMES, 0)
    without = 0
    for number, own in enumerate(values):
        for axis in NAMES:
            peers = [v[axis] for v in values if axis != "pitch" or v["gender"] == own["gender"]]
            bounds = np.percentile(peers, (10, 30, 70, 90))
            truth = expected(axis, own[axis], bounds, guard=0.2)
            if truth is None:
                continue
            row = found[f"{number:02d}"]
            assert row.get(axis, "") == truth, (number, axis, row)
            assert (axis in row) != (axis in row.get("without", {}))
            checked[axis] += 1
            without += not truth
    assert min(checked.values()) >= COUNT // 3 and without >= 3
    assert set(found["broken"]["without"].values()) == {"no audio"}
    bounds = json.loads((folder / "libritts" / "style_bounds.json").read_text())
    assert bounds["guard"] == 0.2 and set(bounds["scales"]["pitch"]) == {"all", "female", "male"}


def test_other_bounds_need_no_other_measuring_and_official_ones_are_those_of_ltu_as(folder):
    run("style", folder, "--workers", 1)
    assert "pitch" not in rows(folder, "libritts", "style.jsonl")["00"]  # 16 clips are too few
    measured = (folder / "voices-1.jsonl").read_bytes()
    run("style", folder, "--workers", 1, "--bounds", "official", "--guard", 0)
    assert (folder / "voices-1.jsonl").read_bytes() == measured
    found = rows(folder, "libritts", "style.jsonl")
    checked = 0
    for number in range(COUNT):
        own = planted(number)
        bounds = OFFICIAL[own["gender"]]
        truth = expected("pitch", own["pitch"], bounds, guard=0)
        if truth is not None:
            row = found[f"{number:02d}"]
            assert row["pitch"] == truth
            place = NAMES["pitch"].index(truth)
            assert row["pitch_hz"] == list((None, *bounds, None)[place : place + 2])
            checked += 1
    assert checked >= COUNT // 2
    questions = (folder / "libritts" / "closed_ended.jsonl").read_text()
    assert questions.count('"pitch_cla"') == sum("pitch" in row for row in found.values())


def test_any_number_of_workers_and_any_kill_give_the_same_bytes(tmp_path, clips):
    few = dict(list(clips.items())[:5])
    given = ("--least-clips", 3)

    def fresh(name):
        asqa_folder.make(tmp_path / name, "libritts", few)
        return tmp_path / name

    whole = fresh("whole")
    run("style", whole, "--workers", 2, *given)
    truth = asqa_folder.results(whole)
    assert len(truth) == 4
    kills = 0
    for after in range(1, 20):
        place = fresh(f"killed-{after}")
        arguments = ("style", place, "--workers", 1, *given)
        if not asqa_folder.killed(arguments, after=after, prepare=lambda: None):
            break
        kills += 1
        run(*arguments)
        assert asqa_folder.results(place) == truth
    assert kills >= len(few) + 2


def clip_voice(*, f0_hz=120.0, dbfs=-20.0, peak=0.3, gender="male", **others) -> ClipVoice:
    style = SpeakingStyle(f0_hz=f0_hz, syllables_per_second=4.0, dbfs=dbfs)
    return ClipVoice(style=style, peak=peak, gender=gender, **others)


def source(**changes) -> list[ClipVoice]:
    """A hundred clips of natural levels, but for what is changed."""
    rng = np.random.default_rng(0)
    drawn = {
        "f0_hz": rng.uniform(80, 300, 100), "dbfs": rng.normal(-25, 5, 100),
        "peak": rng.uniform(0.05, 0.9, 100),
    } | changes  # fmt: skip
    return [
        clip_voice(**{name: float(values[place]) for name, values in drawn.items()})
        for place in range(100)
    ]


def classes(voice, voices, *, mode="percentile", guess_gender=True):
    bounds = make_bounds(voices, mode=mode, guard=0.2, least_clips=50)
    return classify(voice, bounds, guess_gender=guess_gender)


def test_the_level_of_a_clipped_or_normalised_recording_says_nothing():
    natural = source()
    assert classes(clip_voice(dbfs=-40.0), natural)["volume"] == "very low"
    row = classes(clip_voice(dbfs=-40.0, clipped=0.01), natural)
    assert "volume" not in row and row["without"]["volume"] == "clipped"
    assert row["pitch"] and row["dbfs"] == -40.0

    peaks = np.where(np.arange(100) < 30, 0.95, np.linspace(0.05, 0.9, 100))
    some = source(peak=peaks)
    assert classes(clip_voice(dbfs=-40.0, peak=0.95), some)["without"]["volume"] == "normalised"
    assert classes(clip_voice(dbfs=-40.0, peak=0.3), some)["volume"] == "very low"

    equal = source(dbfs=np.random.default_rng(1).normal(-23, 0.5, 100))
    assert classes(clip_voice(dbfs=-40.0), equal)["without"]["volume"] == "normalised"


def test_a_gender_that_the_source_does_not_tell_is_told_by_a_clear_pitch_and_says_so():
    voices = source()
    for f0, gender in ((100.0, "male"), (165.0, ""), (230.0, "female")):
        row = classes(clip_voice(f0_hz=f0, gender=""), voices)
        assert row.get("gender", "") == gender
        assert ("gender_by" in row) == bool(gender)
        assert "gender" not in classes(clip_voice(f0_hz=f0, gender=""), voices, guess_gender=False)
        assert "gender" not in classes(clip_voice(f0_hz=f0), voices)
    # A pitch of unknown gender is compared with everybody's, not with a gender's that it told.
    assert classes(clip_voice(f0_hz=85.0, gender=""), voices)["pitch"] == "very low"
    row = classes(clip_voice(f0_hz=165.0, gender=""), voices, mode="official")
    assert row["without"]["pitch"] == "gender unknown"


def test_bounds_are_those_of_training_clips():
    trained = source()
    tests = [clip_voice(f0_hz=1_000.0 + n, trained=False) for n in range(100)]
    both, alone = (
        make_bounds(voices, mode="percentile", guard=0.2, least_clips=50).to_json()
        for voices in (trained + tests, trained)
    )
    assert both == alone


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--guard", 0.5), "--guard is 0.5"),
        (("--only", "clotho"), "--only clotho: .*it has libritts"),
        (("--workers", 0), "--workers 0|workers"),
    ],
)
def test_what_cannot_be_is_named(folder, arguments, named):
    with pytest.raises(UserError, match=named):
        run("style", folder, *arguments)
