"""Voices of known pitch, pace and level; sounds that are none; recordings that were cut."""

import numpy as np
import pytest
import soundfile

from benchmarks import recordings
from data_pipelines.measures.clipping import full_scale
from data_pipelines.measures.speaking_style import StyleScale, guarded, speaking_style
from data_pipelines.measures.voice_measures import measure_voice
from ltu_jax.preprocessing.audio import load_audio
from tests.support.voices_made_up import RATE, voice


@pytest.mark.parametrize("f0", [75, 110, 160, 230, 340])
@pytest.mark.parametrize("noise_db", [-90, -45])
def test_pitch_pace_and_level_are_those_of_the_voice(f0, noise_db):
    made = voice(f0=f0, seconds=2.0, dbfs=-20, noise_dbfs=noise_db)
    measured = measure_voice(made)
    assert measured.f0_hz == pytest.approx(f0, rel=0.02)
    assert measured.speech_seconds == pytest.approx(2.0, rel=0.05)
    assert measured.dbfs == pytest.approx(-20, abs=0.7)
    style = speaking_style(measured, text="one two three four five six")
    assert style.syllables_per_second == pytest.approx(3, rel=0.05)
    assert speaking_style(measured, text="Yes.").syllables_per_second is None


def test_pauses_within_words_are_speech_and_those_between_sentences_are_not():
    one = voice(f0=120, seconds=1.0, dbfs=-20, padded=0.0)
    short, long = np.zeros(int(0.15 * RATE)), np.zeros(int(0.6 * RATE))
    joined = measure_voice(np.concatenate([long, one, short, one, long, one, long]))
    assert joined.speech_seconds == pytest.approx(3.15, rel=0.05)


@pytest.mark.parametrize("what", ["silence", "noise", "hum"])
def test_what_is_no_voice_has_no_pace_and_noise_no_pitch(what):
    time = np.arange(2 * RATE) / RATE
    samples = {
        "silence": np.zeros(2 * RATE),
        "noise": 0.1 * np.random.default_rng(0).standard_normal(2 * RATE),
        "hum": 0.1 * np.sin(2 * np.pi * 100 * time),
    }[what]
    measured = measure_voice(samples)
    assert measured.speech_seconds is None and measured.dbfs is None
    if what != "hum":
        assert measured.f0_hz is None


def test_a_word_alone_has_no_pitch():
    assert measure_voice(voice(f0=120, seconds=0.3, dbfs=-20)).f0_hz is None
    assert measure_voice(np.zeros(0)).f0_hz is None


def test_real_recordings_have_the_pitch_of_their_speakers_and_a_human_pace(request):
    """All speakers are men; Kennedy nearly shouts, at 200 to 280 Hz."""
    spoken = recordings.recordings(request.config.rootpath / "assets")
    for one in spoken:
        voice_of = measure_voice(one.samples)
        style = speaking_style(voice_of, text=one.reference)
        if one.seconds > 1.5:
            low, high = (200, 280) if one.name == "jfk" else (75, 130)
            assert low < style.f0_hz < high, one.name
        assert style.syllables_per_second is None or 2 < style.syllables_per_second < 6
        assert voice_of.speech_seconds < one.seconds


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_flat_tops_are_found_in_the_file_whatever_its_rate(tmp_path, rate):
    time = np.arange(rate) / rate
    tone = np.sin(2 * np.pi * 200 * time)
    for gain in (0.5, 3.0):
        path = tmp_path / f"{gain}.wav"
        soundfile.write(path, np.clip(gain * tone, -1, 1), rate, subtype="PCM_16")
        found = full_scale(path, load_audio(path))
        # Share of a sine above 1 / gain: 1 - 2 asin(1 / gain) / pi.
        cut = 0.0 if gain < 1 else 1 - 2 * np.arcsin(1 / gain) / np.pi
        assert found.clipped == pytest.approx(cut, abs=0.01)
        assert found.peak == pytest.approx(min(gain, 1.0), abs=1e-3)


def test_bands_are_a_share_of_the_narrower_class_beside_their_bound():
    scale = guarded("abcde", (95, 120, 135, 180), guard=0.2)
    expected = ((90, 100), (117, 123), (132, 138), (171, 189))
    assert np.allclose(scale.bands, expected)
    for value in np.arange(80, 200, 0.5):
        inside = [low < value < high for low, high in expected]
        place = sum(value >= high for _, high in expected)
        assert scale.name_of(value) == ("" if any(inside) else "abcde"[place])


def test_without_a_guard_every_figure_has_a_class():
    scale = guarded("abcde", (95, 120, 135, 180), guard=0.0)
    assert [scale.name_of(value) for value in (95, 95.1, 121, 180, 180.1)] == list("abcde")[:1] + [
        *"bcde"
    ]
    assert StyleScale(names=("low", "high"), bands=((1, 2),)).name_of(1.5) == ""
