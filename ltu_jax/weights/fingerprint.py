"""The numeric fingerprint of a Whisper encoder: what it makes of one fixed clip, in 64 numbers.

A hash of the weights tells two encoders apart, but also two files of the same one (float16 from
Hugging Face, float32 from OpenAI). This fingerprint is compared by distance instead: it is the same
across files, devices and summation orders, close across precisions, far for other weights.
"""

import dataclasses
import functools
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import jax
import numpy as np

from ltu_jax.core.axes import Float
from ltu_jax.models.whisper import POOL, Encoder, Whisper, WhisperConfig
from ltu_jax.preprocessing import audio
from ltu_jax.weights.store import Weights
from ltu_jax.weights.tensors import WeightsError

VERSION = 1  # of the clip and the summary; a change of either makes old fingerprints incomparable
KEY = "clip_fingerprint"  # under which files keep one
SECONDS = 10
_GROUPS, _PROJECTIONS = 4, 16

# Relative distance within which two encoders compute the same, by compute dtype. Measured on CPU
# with Whisper tiny.en and base: another summation order, or noise of 1e-6 on the log-mel, 4e-7 to
# 5e-6; float16 products against float32 1.4e-3 and 9e-4, bfloat16 1.3e-2 and 9e-3, with the
# weights in bfloat16 too 2.0e-2 and 1.2e-2. Against itself, in another batch or with noise of
# 1e-5: float16 9e-4 and 1.3e-3, bfloat16 4e-3 and 8e-3.
SAME = {"float32": 1e-4, "float16": 4e-3, "bfloat16": 5e-2}
# ... and within which it is the same encoder in another precision. Noise on every weight of 1 %
# makes 6e-2 and 4e-2, of 2 % 1.5e-1 and 1e-1; of 10 % on the last layer alone 3e-1 and 1.5e-1; a
# layer without its MLP 1.2 and 0.8; shuffled weights 1.4 and 1.7. (0.1 % makes 1e-2 and 5e-3: as
# much as storing weights in bfloat16, so the two cannot be told apart.)
PRECISION = 5e-2


class FeatureWarning(UserWarning):
    """Features of another precision than the model's own encoder computes."""


class Likeness(StrEnum):
    """How two fingerprints relate."""

    SAME = "same"
    PRECISION = "same encoder, another precision"
    OTHER = "another encoder"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Projections of the clip's features, 16 for each of up to 4 groups of layers.

    `dtype` is that of the products; `shape` is (W, A, D) of the features.
    """

    dtype: str
    shape: tuple[int, int, int]
    values: tuple[tuple[float, ...], ...]

    @property
    def code(self) -> str:
        """The signs as hexadecimal digits, for people; near zero a sign may flip."""
        bits = "".join("1" if value < 0 else "0" for group in self.values for value in group)
        return f"{int(bits, 2):0{len(bits) // 4}x}"

    def to_json(self) -> dict[str, Any]:
        """Return what a manifest, a checkpoint or a certificate keeps."""
        return {
            "version": VERSION,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "code": self.code,
            "values": [list(group) for group in self.values],
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any] | None) -> "Fingerprint | None":
        """Read what `to_json` returned; None where there is none, or one of another version."""
        if not entry or entry["version"] != VERSION:
            return None
        return cls(
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            values=tuple(tuple(group) for group in entry["values"]),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A verdict, and the largest relative distance of a layer group that led to it."""

    verdict: Likeness
    distance: float

    def warning(self, *, there: str, here: str) -> str:
        """Say in one line what differs from what."""
        return (
            f"features were computed by another encoder or precision: {there} and {here} differ "
            f"by {self.distance:.1e} on the fixed clip ({self.verdict}; float32 noise stays below "
            f"{SAME['float32']:.0e}, other precisions below {PRECISION:.0e})"
        )


def compare(first: Fingerprint, second: Fingerprint) -> Comparison:
    """Compare two fingerprints; see `SAME` and `PRECISION`.

    Two of the same low precision are the same as far as that precision tells.
    """
    if first.shape != second.shape:
        return Comparison(verdict=Likeness.OTHER, distance=float("inf"))
    a, b = np.array(first.values), np.array(second.values)
    scale = np.maximum(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    distance = float(np.max(np.linalg.norm(a - b, axis=1) / np.maximum(scale, 1e-12)))
    same = SAME[first.dtype] if first.dtype == second.dtype else SAME["float32"]
    if not np.isfinite(distance) or distance > PRECISION:
        return Comparison(verdict=Likeness.OTHER, distance=distance)
    verdict = Likeness.SAME if distance <= same else Likeness.PRECISION
    return Comparison(verdict=verdict, distance=distance)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Return SplitMix64 of uint64 counters: random bits that no library version changes."""
    x = numbers + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def random_numbers(count: int, *, start: int = 0) -> Float[np.ndarray, "N"]:
    """Return `count` float64 numbers, uniform in -1..1, the same everywhere."""
    counters = np.arange(start, start + count, dtype=np.uint64)
    return (_mixed(counters) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0


@functools.cache
def clip() -> Float[np.ndarray, "C"]:
    """Make 10 s at 16 kHz: a sweep, silence, noise in syllables, a gliding voice, silence."""
    t = np.arange(SECONDS * audio.SAMPLE_RATE) / audio.SAMPLE_RATE
    noise = random_numbers(len(t))
    sweep = 0.3 * np.sin(2 * np.pi * (80 * t + 1250 * t**2))
    syllables = 0.2 * noise * (1 - np.cos(8 * np.pi * t)) / 2
    phase = 2 * np.pi * (110 * t + 15 * (t - 6) ** 2)
    voice = sum(0.2 / h * np.sin(h * phase) for h in range(1, 21)) * (1 + np.cos(6 * np.pi * t)) / 2
    samples = np.where(t < 3, sweep, 0) + np.where((t >= 3.5) & (t < 6), syllables, 0)
    samples += np.where((t >= 6) & (t < 9), voice, 0) + np.where(t < 9.5, 1e-3 * noise, 0)
    return samples.astype(np.float32)


def of_features(features: Float[np.ndarray, "W A D"], *, dtype: str) -> Fingerprint:
    """Summarise the features of `clip`.

    Each layer is divided by the median of its magnitudes and squashed by tanh, so that Whisper's
    few huge channels do not speak for all; then random signs sum each group of layers.
    """
    x = np.asarray(features, np.float64)
    values = []
    for layers in np.array_split(np.arange(len(x)), min(len(x), _GROUPS)):
        part = x[layers]
        scale = np.median(np.abs(part), axis=(1, 2), keepdims=True)
        squashed = np.tanh(part / np.maximum(scale, 1e-12)).ravel()
        bits = _mixed(np.arange(squashed.size, dtype=np.uint64))
        signs = ((1 - 2 * ((bits >> np.uint64(k)) & np.uint64(1)).astype(np.float64))
                 for k in range(_PROJECTIONS))  # fmt: skip
        sums = (float(squashed @ sign) / squashed.size**0.5 for sign in signs)
        values.append(tuple(round(value, 7) for value in sums))
    return Fingerprint(dtype=dtype, shape=x.shape, values=tuple(values))


_KNOWN: dict[tuple[str, ...], Fingerprint] = {}


def of_encoder(weights: Weights, *, dtype: str) -> Fingerprint:
    """Return the fingerprint of an opened Whisper; computed once for each hash and dtype.

    Args:
        weights: of kind "whisper".
        dtype: of the products, by name.

    Raises:
        WeightsError: an encoder too short for one audio token.
    """
    key = (weights.sha256, str(dtype), str(jax.config.jax_default_matmul_precision))
    if key not in _KNOWN:
        config = WhisperConfig.from_dict(weights.config)
        step = 2 * POOL
        frames = min(SECONDS * 100, 2 * config.n_audio_ctx // step * step)
        if not frames:
            raise WeightsError(
                f"{weights.named} hears {config.n_audio_ctx} encoder steps; an audio token needs "
                f"{POOL}, so it has no features to fingerprint"
            )
        encoder = Whisper(config, dtype=dtype).encoder
        params = {path: np.asarray(weights.params[path], np.float32) for path in encoder.shapes}
        log_mel = audio.model_log_mel(clip(), n_mels=config.n_mels, frames=frames).log_mel
        features = jax.jit(encoder.pure(Encoder.features))(params, log_mel[None])[0]
        _KNOWN[key] = of_features(np.asarray(features, np.float32), dtype=str(dtype))
    return _KNOWN[key]
