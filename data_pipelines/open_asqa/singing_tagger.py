"""How likely somebody sings in a clip: a tagger's word on whether music has lyrics."""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.open_asqa.clip_blocks import Clip, in_blocks
from data_pipelines.open_asqa.clip_journal import ClipJournal
from ltu_jax.core.axes import Array, Float
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.core.trees import Params
from ltu_jax.models.functional import Functional
from ltu_jax.models.tltr import Tagger, TaggerConfig, TLTRConfig
from ltu_jax.models.whisper import Encoder, Whisper, WhisperConfig
from ltu_jax.preprocessing.audio import CLIP_FRAMES, log_mel, window
from ltu_jax.weights.open import label_names, open_adapter, open_weights
from ltu_jax.weights.open_whispers import WHISPER_DTYPE
from ltu_jax.weights.store import Weights, check_against

LABEL = "Singing"  # of AudioSet
_FORMAT = 1  # of the lines of a journal
_LEAST_FRAMES = 100  # of a last window


class SingingTagger:
    """A tagger and the Whisper that it hears with; loaded when there is something to hear."""

    finds = "singing"

    def __init__(self, path: Path, *, whisper: Path, batch: int):
        """Open both.

        Args:
            path: weights of kind "tltr" with their labels, or a run of the tagging stage.
            whisper: the Whisper whose features the tagger was trained on.
            batch: windows of 10 s computed together.

        Raises:
            UserError: no tagger, one without the label, or a Whisper of another size.
        """
        self._tagger, self._batch = open_adapter(path), batch
        self._whisper = open_weights(whisper, kind="whisper", option="--tagger-whisper")
        names = label_names(self._tagger) or () if self._tagger.kind == "tltr" else ()
        if LABEL.lower() not in (known := [name.lower() for name in names]):
            raise UserError(
                f"--tagger {path} has no label {LABEL!r}: give a tagger of AudioSet's classes with "
                "its labels (`python -m ltu_jax.convert --from whisper-at`)"
            )
        self._label = known.index(LABEL.lower())
        self._config = _config(self._tagger, labels=len(names))
        self._hearing = WhisperConfig.from_dict(self._whisper.config)
        _require_size(self._config, self._hearing, whisper=self._whisper, tagger=path)

    def journal(self, folder: Path) -> ClipJournal:
        """Open what this tagger found in a folder of a build; says what it is of."""
        about = {
            "format": _FORMAT,
            "tagger": self._tagger.sha256,
            "whisper": self._whisper.sha256,
        }
        digest = hashlib.sha256(repr(sorted(about.items())).encode()).hexdigest()[:16]
        write_json(folder / f"singing-{digest}.json", about)
        return ClipJournal(folder / f"singing-{digest}.jsonl")

    def hear(
        self, clips: Iterable[Clip], journal: ClipJournal, *, workers: int
    ) -> Iterator[dict[str, Any]]:
        """Tag every clip that is not in the journal; yield {"singing": probability} of them all."""
        yield from in_blocks(self._found, clips, journal, size=self._batch, workers=workers)

    def _found(self, clips: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Return the probability of each clip: that of its likeliest window."""
        windows, owners = [], []
        for place, samples in enumerate(clips):
            frames = log_mel(samples, n_mels=self._hearing.n_mels)
            starts = range(0, max(1, len(frames) - _LEAST_FRAMES), CLIP_FRAMES)
            windows += [window(frames[start : start + CLIP_FRAMES]) for start in starts]
            owners += [place] * len(starts)
        best = [0.0] * len(clips)
        for first in range(0, len(windows), self._batch):
            part = np.stack(windows[first : first + self._batch])
            padded = np.pad(part, ((0, self._batch - len(part)), (0, 0), (0, 0)))
            for place, probability in zip(
                owners[first : first + len(part)], self._probabilities(padded), strict=False
            ):
                best[place] = max(best[place], float(probability))
        return [{"singing": round(probability, 4)} for probability in best]

    def _probabilities(self, log_mels: Float[np.ndarray, "B F M"]) -> Float[np.ndarray, "B"]:
        whisper, tagger, params = self._loaded
        logits = _tag(params, jnp.asarray(log_mels), encoder=whisper.encoder, tagger=tagger)
        return np.asarray(jax.nn.sigmoid(logits[:, self._label]))

    @functools.cached_property
    def _loaded(self) -> tuple[Whisper, Functional[Tagger], tuple[Params, Params]]:
        whisper, tagger = (
            Whisper(self._hearing, dtype=WHISPER_DTYPE),
            Tagger.functional(self._config),
        )
        check_against(tagger.shapes, self._tagger.params, subject=str(self._tagger.path))
        check_against(whisper.shapes, self._whisper.params, subject=str(self._whisper.path))
        params = tuple(
            {name: jnp.asarray(weights.params[name], jnp.float32) for name in network.shapes}
            for weights, network in ((self._whisper, whisper.encoder), (self._tagger, tagger))
        )
        return whisper, tagger, params


def _config(weights: Weights, *, labels: int) -> TaggerConfig:
    """Return the sizes of a tagger: weights say them all, a run those of the model it trains."""
    if weights.checkpoint is None:
        return TaggerConfig.from_dict(weights.config)
    return TaggerConfig(
        tltr=TLTRConfig.from_dict(weights.config["tltr"]),
        labels=labels,
        d_input=None,
        audio_layers=weights.config["audio_layers"],
    )


def _require_size(
    config: TaggerConfig, hearing: WhisperConfig, *, whisper: Weights, tagger: Path
) -> None:
    layers = config.audio_layers or hearing.n_audio_layer
    if (config.width, layers) != (hearing.n_audio_state, hearing.n_audio_layer):
        raise UserError(
            f"--tagger {tagger} hears with a Whisper of width {config.width} and {layers} layers, "
            f"and {whisper.named} has width {hearing.n_audio_state} and {hearing.n_audio_layer} "
            "layers: give the Whisper it was trained with as --tagger-whisper"
        )


@functools.partial(jax.jit, static_argnames=("encoder", "tagger"))
def _tag(
    params: tuple[Params, Params],
    log_mels: Float[Array, "B F M"],
    *,
    encoder: Functional[Encoder],
    tagger: Functional[Tagger],
) -> Float[Array, "B V"]:
    whisper, tagging = params
    return tagger.bind(tagging)(encoder.bind(whisper).features(log_mels))
