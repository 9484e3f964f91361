"""Windows of the corpus: from one side alone, in turn, and mixed at the levels of the plan."""

from collections import Counter

import numpy as np
import pytest

from data_pipelines.real import recording_table, window_mix, window_plan
from data_pipelines.real.window_plan import PlannedWindow, SoundLayer
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.scoring import sound_groups

SIDES = recording_table.validation_sides(recording_table.recordings())
VOICES = {f"voice{n}": 2.0 + n for n in range(5)}


def make(given=SIDES.train, **changed):
    options = {"of_class": 12, "voices": VOICES, "speech": 0.5, "more": 0.4, "seed": 1} | changed
    return window_plan.plan(given, **options)


def test_sixty_classes_of_which_every_label_is_in_the_table():
    labels = {one.label for one in recording_table.recordings()}
    assert len(window_plan.CLASSES) == 60 and set(window_plan.CLASS_OF) <= labels
    groups = sound_groups.words().labels
    for label, name in window_plan.CLASS_OF.items():  # what is merged is of one group
        others = [other for other, own in window_plan.CLASS_OF.items() if own == name]
        assert len({groups.get(other) for other in (label, *others)}) == 1


def test_a_plan_is_of_its_own_side_and_the_same_again():
    train, held = make(), make(SIDES.held_out)
    assert make() == train and make(seed=2) != train
    clusters = [{name for window in one for name in window.clusters} for one in (train, held)]
    assert clusters[0] and clusters[1] and not clusters[0] & clusters[1]
    assert len({window.window_id for window in train}) == len(train)
    ships = {one.clip for one in SIDES.train if one.ships}
    for window in train:
        clips = {clip for layer in window.layers for clip in layer.clips}
        assert window.ships == (clips <= ships)


def test_shares_turns_and_caps():
    windows = make(of_class=60)
    firsts = Counter(window.classes[0] for window in windows)
    assert set(firsts.values()) == {60}
    share = sum(bool(window.speech) for window in windows) / len(windows)
    assert share == pytest.approx(0.5, abs=0.03)
    said = Counter(window.speech for window in windows if window.speech)
    assert max(said.values()) - min(said.values()) <= 1
    layers = Counter(len(window.layers) for window in windows)
    assert layers[2] / len(windows) == pytest.approx(0.4 * 0.8, abs=0.03)
    for window in windows:  # sounds of one group are not asked apart
        assert len(window.classes) == len(window.layers)
        alone = {"Wind", "Explosion", "Gunshot, gunfire", "Music"} & set(window.classes)
        assert len(window.groups) + len(alone) == len(window.layers)
    for name, own in window_plan.usable(SIDES.train, seed=1).items():
        assert max(Counter(one.package for one in own).values()) <= 40, name
        assert all(one.trusted for one in own)
    dogs = [window for window in windows if window.classes[0] == "Dog"]
    own = {one.cluster for one in window_plan.usable(SIDES.train, seed=1)["Dog"]}
    first = [window.clusters[0] for window in dogs[: len(own)]]
    assert set(first) == own  # each recording once before any comes again
    with pytest.raises(UserError, match="voices is empty"):
        make(voices={})


def test_absent_classes_are_not_heard_and_half_are_near():
    windows = make(of_class=30, more=0.2)
    group_of = {window.classes[0]: window.groups for window in windows if len(window.classes) == 1}
    near = total = 0
    absent = window_plan.AbsentClasses(windows, seed=3)
    for window in windows:
        chosen = absent.of(window, count=2)
        assert len(set(chosen)) == 2 and not set(chosen) & set(window.classes)
        if window.groups == ("Livestock",) or window.groups == ("Water / rain / thunder / fire",):
            total += 2
            near += sum(bool(set(group_of[name]) & set(window.groups)) for name in chosen)
    assert 0.4 < near / total < 0.75


def tone(seconds, hertz=500.0, level=1.0):
    return level * np.sin(2 * np.pi * hertz * np.arange(round(16_000 * seconds)) / 16_000)


def test_the_voice_is_as_far_above_the_sounds_as_planned():
    window = PlannedWindow(
        window_id="w", classes=("Dog",), groups=(), layers=(SoundLayer(clips=("a",), start=1.0),),
        speech="v", speech_start=2.0, speech_decibels=6.0,
    )  # fmt: skip
    samples = window_mix.mix(
        window, load=lambda name: tone(4, 500, 0.1), load_speech=lambda name: tone(3, 2_000)
    )
    assert samples.shape == (160_000,) and samples.dtype == np.float32
    assert np.abs(samples).max() == pytest.approx(0.9)
    assert not samples[:16_000].any() and not samples[80_001:].any()
    spectrum = np.abs(np.fft.rfft(samples[40_000:56_000]))
    assert 20 * np.log10(spectrum[2_000] / spectrum[500]) == pytest.approx(6.0, abs=0.2)


def test_strings_parts_and_levels_of_layers():
    layers = (
        SoundLayer(clips=("a", "b"), gaps=(0.5,), start=1.0),
        SoundLayer(clips=("long",), part=1.0, decibels=-20.0),
    )
    window = PlannedWindow(window_id="w", classes=("Typing", "Rain"), groups=(), layers=layers)
    long = np.concatenate([np.zeros(16_000 * 5), np.ones(16_000 * 10)])
    sources = {"a": np.ones(1_600), "b": 0.2 * np.ones(1_600), "long": long}
    samples = window_mix.mix(window, load=sources.__getitem__, load_speech=None) / 0.9 * 1.1
    assert samples[16_000:17_600] == pytest.approx(1.1, abs=1e-6)
    assert samples[17_700:25_500] == pytest.approx(0.1, abs=1e-6)
    assert samples[25_700:27_100] == pytest.approx(1.1, abs=1e-6)
    assert samples[0] == samples[-1] == 0.0


def test_silence_stays_silence():
    window = PlannedWindow(window_id="w", classes=(), groups=(), layers=(SoundLayer(clips=("a",)),))
    assert not window_mix.mix(window, load=lambda name: np.zeros(50), load_speech=None).any()


def test_noise_is_as_loud_and_as_steep_as_planned_and_silence_is_hardly_heard():
    kinds = window_plan.quiet(12, voices=VOICES, speech=0.0, seed=4)
    for one in kinds["noise"]:
        samples = window_mix.mix(one, load=None, load_speech=None)
        assert 20 * np.log10(np.abs(samples).max()) == pytest.approx(one.noise.decibels, abs=0.01)
        power = np.abs(np.fft.rfft(samples)) ** 2  # bins of 0.1 Hz: 200 to 400 Hz, 3.2 to 6.4 kHz
        fall = np.log2(power[2_000:4_000].mean() / power[32_000:64_000].mean()) / 4
        assert fall == pytest.approx(one.noise.slope, abs=0.1)
    loudest = [
        np.abs(window_mix.mix(one, load=None, load_speech=None)).max() for one in kinds["silence"]
    ]
    assert 1 <= loudest.count(0) <= 8 and max(loudest) < 10 ** (-55 / 20) * 1.001
    spoken = window_plan.quiet(9, voices=VOICES, speech=1.0, seed=4)["silence"]
    assert {one.speech for one in spoken} == set(VOICES)
    mixed = window_mix.mix(spoken[0], load=None, load_speech=lambda name: tone(2.0))
    assert np.abs(mixed).max() == pytest.approx(0.9)
