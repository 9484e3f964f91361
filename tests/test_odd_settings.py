"""Odd arguments of the API and of `ask`: each is one error, before any work, that names it."""

import dataclasses
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import soundfile

import ltu_jax
from ltu_jax import ask
from ltu_jax.core import errors, memory
from ltu_jax.core.errors import UserError
from ltu_jax.generation import limits
from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.generation.transcription import OPENAI, QUIET
from ltu_jax.inference import AnswerMode, EncodedClip, Request
from ltu_jax.preprocessing.audio import Audio
from tests.support import tiny_ltu_as

POSITIONS = 256
CLIP = np.zeros(16_000, np.float32)
FEATURES = np.ones((tiny_ltu_as.LAYERS, 25, tiny_ltu_as.WIDTH), np.float32)


@pytest.fixture(scope="module")
def tiny(golden, tmp_path_factory):
    """Folders of a tiny model whose base says how many positions it has."""
    made = tiny_ltu_as.save(
        tmp_path_factory.mktemp("tiny"), tokenizer=golden / "text_cases" / "spm320.model"
    )
    header = json.loads((made["ltu-as"] / "config.json").read_text())
    header["max_position_embeddings"] = POSITIONS
    (made["ltu-as"] / "config.json").write_text(json.dumps(header))
    return made


@pytest.fixture(scope="module")
def idle(tiny):
    """A model in which nothing may run: what is refused must be refused before."""
    model = ltu_jax.load(tiny["ltu-as"], whisper=tiny["whisper"])
    whisper = SimpleNamespace(config=model.listener.whisper.config, encoder=None)
    listener = dataclasses.replace(model.listener, whisper=whisper)
    network = SimpleNamespace(config=model.model.config)
    return dataclasses.replace(model, listener=listener, model=network)


def request(**changes):
    fields = {"question": "Hi", "spoken_text": "", "audio_features": FEATURES}
    return Request(**{**fields, **changes})


def heard(**changes):
    fields = {"features": FEATURES, "spoken_text": "", "seconds": 1.0, "seconds_dropped": 0.0}
    return EncodedClip(**{**fields, "mode": AnswerMode.JOINT, **changes})


def batch(*requests, **options):
    return lambda model: model.answer_batch(list(requests), **options)


def answer(audio=CLIP, question="Hi", **options):
    return lambda model: model.answer(audio, question, **{"spoken_text": "", **options})


def bad(array, value):
    array = array.copy()
    array.flat[5] = value
    return array


def logits(ids=((1, 2, 3),), features=FEATURES[None], **change):
    ids = np.asarray(ids)
    mask = change.get("mask", np.ones(ids.shape, int))
    return lambda model: model.logits(ids, mask, features, layout="train")


ODD_CALLS = {
    "a million new tokens": (answer(max_new_tokens=10**6), "max_new_tokens=1000000"),
    "no new tokens": (answer(max_new_tokens=0), "max_new_tokens=0"),
    "minus one": (answer(max_new_tokens=-1), "max_new_tokens=-1"),
    "one and a half": (answer(max_new_tokens=1.5), "max_new_tokens=1.5"),
    "eight as a float": (answer(max_new_tokens=8.0), "max_new_tokens=8.0"),
    "true": (answer(max_new_tokens=True), "max_new_tokens=True"),
    "a number as text": (answer(max_new_tokens="8"), "max_new_tokens='8'"),
    "20,000 words": (answer(question="word " * 20_000), f"{POSITIONS:,} positions"),
    "a book of spoken text": (answer(spoken_text="word " * 9_000), "spoken_text"),
    "bytes as a question": (answer(question=b"What?"), "question is bytes"),
    "no question": (answer(question=None), "question is NoneType"),
    "half a character": (answer(question="caf\udce9"), "half a character"),
    "spoken text in bytes": (answer(spoken_text=b"hello"), "spoken_text is bytes"),
    "spoken text as a list": (answer(spoken_text=["a"]), "spoken_text is list"),
    "greedy by name": (answer(sampling="greedy"), "sampling is str 'greedy'"),
    "sampling as a dict": (answer(sampling={"top_p": 0.9}), "sampling is dict"),
    "an unknown mode": (answer(mode="Joint"), "mode 'Joint'"),
    "a mode by number": (answer(mode=1), "mode 1"),
    "stereo the wrong way round": (answer(np.zeros((2, 16_000), np.float32)), "[2, 16000]"),
    "PCM numbers": (answer(np.zeros(16_000, np.int16)), "int16"),
    "samples that are no numbers": (answer(bad(CLIP, np.nan)), "nan"),
    "an Audio that is no numbers": (
        answer(Audio(samples=bad(CLIP, np.inf), source_rate=16_000, source_channels=1, seconds=1)),
        "inf",
    ),
    "an open file": (answer(sys.stdin), "audio is"),
    "a rate and samples": (answer((16_000, CLIP)), "audio is tuple"),
    "an empty name": (answer(""), "audio is ''"),
    "a number as audio": (answer(3), "audio is int 3"),
    "a folder": (answer(os.sep), "is a folder"),
    "a name as a list of clips": (lambda m: m.audio_features_batch("/a.wav"), "clips is str"),
    "a clip as a list of clips": (lambda m: m.audio_features_batch(CLIP), "clips is ndarray"),
    "a broken clip in a list": (
        lambda m: m.audio_features_batch([CLIP, bad(CLIP, np.nan)]), "clips[1]",
    ),
    "no clips": (lambda m: m.audio_features_batch([]), "no clips"),
    "batches of nothing": (lambda m: m.audio_features_batch([CLIP], batch_size=0), "batch_size=0"),
    "one request": (lambda m: m.answer_batch(request()), "requests is Request"),
    "a text as requests": (lambda m: m.answer_batch("Hi"), "requests is str"),
    "a text in requests": (batch(request(), "Hi"), "requests[1] is str"),
    "an empty question": (batch(request(), request(question=" ")), "requests[1].question"),
    "bytes in a request": (batch(request(question=b"?")), "requests[0].question is bytes"),
    "no spoken text": (batch(request(spoken_text=None)), "requests[0].spoken_text"),
    "a long question among others": (
        batch(request(), request(question="word " * 9_000)), "requests[1].question",
    ),
    "features that are no numbers": (
        batch(request(audio_features=bad(FEATURES, np.nan))), "nan",
    ),
    "features of another Whisper": (
        batch(request(audio_features=FEATURES[..., :-1])), "[2, 25, 31]",
    ),
    "features in whole numbers": (batch(request(audio_features=FEATURES.astype(int))), "int64"),
    "half batches": (batch(request(), batch_size=0.5), "batch_size=0.5"),
    "too many configs": (
        batch(request(), sampling=[SamplingConfig()] * 2), "2 sampling configs for 1",
    ),
    "a config that is none": (batch(request(), sampling=[3]), "sampling[0] is 3"),
    "heard is a path": (lambda m: m.stream("clip.wav", "Hi"), "clip is str"),
    "heard without text": (lambda m: m.stream(heard(spoken_text=None), "Hi"), "clip.spoken_text"),
    "heard of another size": (
        lambda m: m.stream(heard(features=FEATURES[:, :3]), "Hi"), "[2, 3, 32]",
    ),
    "ids beyond the vocabulary": (logits([[1, 10**6]]), "input_ids[0, 1] is 1000000"),
    "negative ids": (logits([[-1, 2]]), "input_ids[0, 0] is -1"),
    "ids as floats": (logits([[1.0, 2.0]]), "float64"),
    "a weighted mask": (logits(mask=np.full((1, 3), 0.5)), "attention_mask"),
    "NaN features": (logits(features=bad(FEATURES, np.nan)[None]), "audio_features hold nan"),
    "features of two rows": (logits(features=np.stack([FEATURES] * 2)), "[2, 2, 25, 32]"),
    "no ids": (logits(np.zeros((1, 0), int)), "[1, 0]"),
    "more ids than positions": (logits(np.ones((1, 300), int)), "300 positions"),
    "no devices": (lambda m: m.over([]), "devices"),
    "a device twice": (lambda m: m.over(jax.devices()[:1] * 2), "devices"),
    "no path": (lambda m: ltu_jax.load(""), "path is ''"),
    "a model as a path": (lambda m: ltu_jax.load(m), "path is Model"),
    "bytes as a folder": (lambda m: ltu_jax.load("x", whisper=b"y"), "whisper is bytes"),
    "another dtype": (lambda m: ltu_jax.load("x", dtype=np.float16), "dtype"),
    "another rule": (lambda m: ltu_jax.load("x", transcription="loud"), "transcription 'loud'"),
    "temperature in words": (lambda m: SamplingConfig(temperature="hot"), "temperature='hot'"),
    "temperature of nearly nothing": (lambda m: SamplingConfig(temperature=1e-30), "1e-30"),
    "half a top-k": (lambda m: SamplingConfig(top_k=1.5), "top_k=1.5"),
    "no top-p": (lambda m: SamplingConfig(top_p=None), "top_p=None"),
    "a true seed": (lambda m: SamplingConfig(seed=True), "seed=True"),
    "no temperatures": (lambda m: dataclasses.replace(OPENAI, temperatures=()), "temperatures"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_CALLS)
def test_an_odd_call_is_one_error_before_any_work(idle, name):
    call, datum = ODD_CALLS[name]
    with pytest.raises(UserError) as caught:
        call(idle)
    assert datum in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers(idle):
    """Counts from arrays are whole numbers too."""
    idle.check_question("Hi", max_new_tokens=np.int64(8))
    assert SamplingConfig(top_k=np.int32(5), temperature=np.float32(0.5)).top_k == 5


def test_a_question_that_just_fits_is_asked(idle):
    """The bound that an error names is the one that holds."""
    audio = idle.config.audio_tokens
    ids, usual = idle._prompts.one("Hi", "", with_audio=True, max_new_tokens=None)
    most = POSITIONS - audio - len(ids)
    assert usual == most < 400
    idle.check_question("Hi", max_new_tokens=most)
    with pytest.raises(UserError, match=f"at most {most}"):
        idle.check_question("Hi", max_new_tokens=most + 1)


# --- memory ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endless(idle):
    """The same without a known number of positions."""
    model = dataclasses.replace(idle, positions=None)
    assert model._limits.positions is None
    return model


def test_memory_bounds_what_positions_do_not(endless, monkeypatch):
    few = endless._limits.needed(limits.AnswerSize(rows=1, prompt=100, audio=25, new=512, copies=2))
    monkeypatch.setattr(memory, "at_hand", lambda: few)
    endless.check_question("Hi", max_new_tokens=100)
    with pytest.raises(UserError) as caught:
        endless.check_question("Hi", max_new_tokens=100_000)
    assert "max_new_tokens=100000" in str(caught.value)
    most = int(str(caught.value).rpartition("at most ")[2].replace(",", ""))
    endless.check_question("Hi", max_new_tokens=most)
    with pytest.raises(UserError, match=r"question \('word.*at most [\d,]+ tokens fit"):
        endless.check_question("word " * 5_000, max_new_tokens=1)
    with pytest.raises(UserError, match="batch_size=64 needs.*at most"):
        endless.answer_batch([request()] * 64, max_new_tokens=1, batch_size=64)
    monkeypatch.setattr(memory, "at_hand", lambda: 200 << 20)
    with pytest.raises(UserError, match="batch_size=48 needs"):
        endless.audio_features_batch([CLIP] * 40, batch_size=64)


def test_without_known_positions_there_is_a_bound(endless):
    with pytest.raises(UserError, match="max_new_tokens=1000000"):
        endless.check_question("Hi", max_new_tokens=10**6)


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "clip.wav"
    soundfile.write(path, CLIP, 16_000)
    return str(path)


ODD_COMMANDS = {
    "minus one": (["--max-new-tokens", "-1"], ["Hi"], "--max-new-tokens -1"),
    "a million": (["--max-new-tokens", "1000000"], ["Hi"], "--max-new-tokens 1000000"),
    "9,000 words": ([], ["Hi", "word " * 9_000], "question 2 "),
    "a long spoken text": (["--spoken-text", "word " * 9_000], ["Hi"], "--spoken-text "),
    "temperature": (["--temperature", "nan"], ["Hi"], "--temperature nan"),
    "penalty": (["--repetition-penalty", "0"], ["Hi"], "--repetition-penalty 0"),
    "seed": (["--temperature", "1", "--seed", "-1"], ["Hi"], "--seed -1"),
    "top-k": (["--temperature", "1", "--top-k", "-3"], ["Hi"], "--top-k -3"),
    "no Whisper": ([], ["Hi"], "--whisper DIR"),
    "unused words": (["--mode", "audio", "--spoken-text", "x"], ["Hi"], "--spoken-text"),
    "a transcriber that is none": (["--transcriber", "NO"], ["Hi"], "NO"),
    "latin-1": ([], ["Was ist das f\udcfcr ein Ger\udce4usch?"], "argument"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_COMMANDS)
def test_ask_names_its_options(capsys, tiny, clip_file, name):
    options, questions, datum = ODD_COMMANDS[name]
    with pytest.raises(SystemExit) as end:
        ask.main(["--checkpoint", str(tiny["ltu-as"]), *options, "--", clip_file, *questions])
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == ""
    assert err.startswith("error: ") and datum in err and err.count("\n") == 1
    assert "max_new_tokens" not in err and "ltu_jax.load(" not in err


def test_utf_8_bytes_in_an_ascii_locale_are_read(tmp_path):
    """What Python kept as half characters is read as UTF-8; a file's name stays as it is."""
    there = tmp_path / os.fsdecode(b"caf\xe9.wav")
    there.write_bytes(b"")
    half = "Größe".encode().decode("ascii", "surrogateescape")
    given = [half, "plain", str(there), f"--data={there}"]
    assert errors.arguments(given) == ["Größe", *given[1:]]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_a_terminal_of_another_encoding_shows_every_answer(encoding):
    """In a process of its own: the encoding of its stdout is set before Python starts."""
    code = (
        "from ltu_jax.core import errors\n"
        "def run():\n"
        "    print('> 犬は♪?')\n"
        "    raise errors.UserError('nicht gut: Größe ♫')\n"
        "errors.main(run)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=False,
    )
    assert done.returncode == 2 and b"Traceback" not in done.stderr
    assert done.stdout.decode(encoding).encode().decode("unicode_escape").strip() == "> 犬は♪?"
    assert done.stderr.startswith(b"error: nicht gut")


# --- two Whispers ---------------------------------------------------------------------------------


def test_one_whisper_hears_and_another_writes(tiny, whisper_tiny_dir):
    """The one that writes may be of any size, and by default follows the data's own rule."""
    model = ltu_jax.load(tiny["ltu-as"], whisper=tiny["whisper"], transcriber=whisper_tiny_dir)
    assert model.listener.whisper.config.n_audio_state == tiny_ltu_as.WIDTH
    assert model.transcriber.whisper.config.n_audio_state == 384 and model.rule == QUIET
    (heard,) = model.transcribe([np.zeros(160_000, np.float32)], batch_size=1)
    assert heard.no_speech_prob > 0.9 and heard.spoken_text == ""
    officially = dataclasses.replace(OPENAI, temperatures=(0.0,))
    (heard,) = model.transcribe([np.zeros(160_000, np.float32)], batch_size=1, options=officially)
    assert heard.spoken_text == "you"
    loud = ltu_jax.load(tiny["ltu-as"], transcriber=whisper_tiny_dir, transcription="openai")
    assert loud.rule == OPENAI and loud.listener is None and loud.transcriber is not None
