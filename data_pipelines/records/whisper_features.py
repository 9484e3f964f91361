"""Whisper features stored in records: the numbers that the training step computes, made once.

The same method (`models.whisper.Encoder.features`) on the same log-mel window. Two names of the
encoder travel with them, so that those of another one are refused instead of used: an
exact one (`fingerprint`: weights file, precision, window), and what it makes of a fixed clip
(`weights/fingerprint.py`), by which another file of the same encoder is known.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import sha256_json
from ltu_jax.core.paths import as_path
from ltu_jax.models.whisper import POOL
from ltu_jax.preprocessing import audio
from ltu_jax.preprocessing.audio import CLIP_FRAMES
from ltu_jax.weights.fingerprint import (
    KEY,
    Comparison,
    FeatureWarning,
    Fingerprint,
    Likeness,
    clip,
    compare,
    of_features,
)

_VERSION = 1  # of the computation; a change of its numbers changes every fingerprint


def fingerprint(*, whisper_sha256: str, dtype: str) -> str:
    """Name the features of an encoder: hex SHA-256 over weights, dtype, window and pooling."""
    parts = {
        "version": _VERSION,
        "whisper": whisper_sha256,
        "dtype": dtype,
        "frames": CLIP_FRAMES,
        "pooled": POOL,
    }
    return sha256_json(parts)


def check_encoder(
    stored: Mapping[str, Any],
    *,
    name: str,
    clip_fingerprint: Callable[[], Fingerprint] | None,
    records: str,
    show: bool,
) -> None:
    """Require that a model may read stored features.

    Another file of the same encoder passes with a line that says so, another precision of it with
    a warning.

    Args:
        stored: what the records' manifest says about them (`FeatureExtractor.describe`).
        name: `fingerprint` of the model's own encoder.
        clip_fingerprint: computes its numeric fingerprint; asked only where the names differ.
        records: their directory, for the messages.
        show: whether this process says what it found.

    Raises:
        UserError: another encoder, or other names and no numbers to compare.
    """
    if name == stored["fingerprint"]:
        return
    there = Fingerprint.from_json(stored.get(KEY))
    apart = ""
    if there is not None and clip_fingerprint is not None:
        comparison = compare(there, clip_fingerprint())
        if comparison.verdict != Likeness.OTHER:
            if show:
                _say(comparison, stored=stored, records=records)
            return
        apart = f", and on a fixed clip the two differ by {comparison.distance:.1e}"
    raise UserError(
        f"the features in {records} have fingerprint {stored['fingerprint'][:12]} (encoder "
        f"{stored['whisper']}), but this model needs {name[:12]}{apart}; write them again with "
        "its encoder, or set data.features to 'on_the_fly'"
    )


def _say(comparison: Comparison, *, stored: Mapping[str, Any], records: str) -> None:
    if comparison.verdict == Likeness.SAME:
        print(
            f"features in {records}: of another file of the same encoder ({stored['whisper']}), "
            f"which differs by {comparison.distance:.1e} on the fixed clip",
            flush=True,
        )
        return
    there = f"those in {records} ({stored['whisper']}, {stored['dtype']})"
    line = comparison.warning(there=there, here="those of this model's encoder")
    warnings.warn(line, FeatureWarning, stacklevel=4)


@functools.lru_cache(maxsize=1)
def _compiled(weights_dir: Path, dtype: str, sha256: str) -> Callable[[Any], Any]:
    """Compile log_mel [N, F, M] -> features; Beam copies an extractor for each of its stages."""
    import jax

    from ltu_jax.models.whisper import Encoder, Whisper, WhisperConfig
    from ltu_jax.weights.open import open_weights
    from ltu_jax.weights.store import check_against

    weights = open_weights(weights_dir, kind="whisper")
    assert weights.sha256 == sha256, f"{weights_dir} changed while it was used"
    whisper = Whisper(WhisperConfig.from_dict(weights.config), dtype=dtype)
    check_against(whisper.shapes, weights.params, subject=str(weights_dir))
    # The encoder alone: the decoder's parameters would only take memory.
    encoder = whisper.encoder
    params = {path: weights.params[path].astype(np.float32) for path in encoder.shapes}
    return functools.partial(jax.jit(encoder.pure(Encoder.features)), jax.device_put(params))


class FeatureExtractor:
    """Batched Whisper features; the weights are opened at first use, by the Beam worker itself."""

    def __init__(self, weights_dir: str | Path, *, batch_size: int = 8, dtype: str = "float32"):
        """Name the encoder.

        Args:
            weights_dir: weights of kind "whisper"; of the Hub or of a bucket, each machine that
                works on them brings them there.
            batch_size: rows computed at once; one shape, hence one compilation.
            dtype: of the activations; stored features are float32 either way.
        """
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        self.weights_dir, self.batch_size, self.dtype = as_path(weights_dir), batch_size, dtype

    def __getstate__(self) -> dict[str, Any]:
        names = ("weights_dir", "batch_size", "dtype")
        return {name: getattr(self, name) for name in names}

    @functools.cached_property
    def _weights(self) -> Any:
        from ltu_jax.weights.open import open_weights

        return open_weights(self.weights_dir, kind="whisper", option="--features")

    @functools.cached_property
    def _config(self) -> Any:
        from ltu_jax.models.whisper import WhisperConfig

        return WhisperConfig.from_dict(self._weights.config)

    @property
    def n_mels(self) -> int:
        """M, the mel bins the encoder takes."""
        return self._config.n_mels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(W, A, D) of one clip's features."""
        return self._config.n_audio_layer, CLIP_FRAMES // 2 // POOL, self._config.n_audio_state

    def describe(self) -> Mapping[str, Any]:
        """Return the entry of a records manifest about its features."""
        return {
            "fingerprint": fingerprint(whisper_sha256=self._weights.sha256, dtype=self.dtype),
            "whisper": self.weights_dir.name,
            "whisper_sha256": self._weights.sha256,
            "dtype": self.dtype,
            "shape": list(self.shape),
        }

    def clip_fingerprint(self) -> Fingerprint:
        """Compute the features of the fixed clip and return their fingerprint."""
        window = audio.model_log_mel(clip(), n_mels=self.n_mels, frames=CLIP_FRAMES)
        return of_features(self([window.log_mel])[0], dtype=self.dtype)

    def __call__(
        self, log_mels: Sequence[Float[np.ndarray, "F M"]]
    ) -> Float[np.ndarray, "N W A D"]:
        """Compute features float32 [N, W, A, D] of N windows; `UserError` when not finite."""
        log_mels = np.stack(log_mels).astype(np.float32)
        out = np.empty((len(log_mels), *self.shape), np.float32)
        compute = _compiled(self.weights_dir, self.dtype, self._weights.sha256)
        for start in range(0, len(log_mels), self.batch_size):
            part = log_mels[start : start + self.batch_size]
            rows = np.zeros((self.batch_size, *part.shape[1:]), np.float32)
            rows[: len(part)] = part
            out[start : start + len(part)] = np.asarray(compute(rows), np.float32)[: len(part)]
        if not np.isfinite(out).all():
            bad = int(np.flatnonzero(~np.isfinite(out).all(axis=(1, 2, 3)))[0])
            raise UserError(
                f"features of clip {bad} of the batch are not finite; "
                f"the weights in {self.weights_dir} may be damaged"
            )
        return out
