"""Whisper over the clips of a build: all that it wrote of them, in a journal of this model."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipelines.open_asqa.clip_blocks import Clip, in_blocks
from data_pipelines.open_asqa.clip_journal import ClipJournal
from ltu_jax.core.files import sha256_json, write_json
from ltu_jax.generation.data_parallel import DataParallel
from ltu_jax.generation.loading import load_transcriber
from ltu_jax.generation.transcribe import Transcriber, Transcript
from ltu_jax.generation.transcription import QUIET, TranscribeOptions
from ltu_jax.weights.open import open_weights

_FORMAT = 1  # of the lines of a journal
_EVERYTHING = 2.0  # a no-speech limit that no probability reaches
_DIGITS = 4


class ClipWhisper:
    """A Whisper by its path; it is loaded when there is something to hear."""

    finds = "spoken text"

    def __init__(self, model: Path, *, batch: int, silence_above: float | None):
        """Open the weights.

        Args:
            model: weights directory, Hugging Face directory, or hf:OWNER/NAME.
            batch: windows decoded together.
            silence_above: a no-speech probability above which a window is not decoded; None to
                decode them all.

        Raises:
            UserError: no Whisper there.
        """
        weights = open_weights(model, kind="whisper", option="--model")
        self.named, self.sha256 = weights.named, weights.sha256
        self._model, self._batch = model, batch
        limit = _EVERYTHING if silence_above is None else silence_above
        self._options: TranscribeOptions = dataclasses.replace(QUIET, no_speech_limit=limit)
        self._transcriber: Transcriber | None = None

    def journal(self, folder: Path) -> ClipJournal:
        """Open what this model wrote by this rule, in a folder of a build; says what it is of."""
        about = {
            "model": self.sha256,
            "format": _FORMAT,
            "rule": dataclasses.asdict(self._options),
        }
        digest = sha256_json(about)[:16]
        write_json(folder / f"transcripts-{digest}.json", {**about, "named": self.named})
        return ClipJournal(folder / f"transcripts-{digest}.jsonl")

    def hear(
        self, clips: Iterable[Clip], journal: ClipJournal, *, workers: int
    ) -> Iterator[dict[str, Any]]:
        """Write down every clip that is not in the journal; yield what goes into it, of all clips.

        Args:
            clips: their names, each once, and what decodes them.
            journal: where results are kept; audio that cannot be decoded has an "error" there.
            workers: threads that decode ahead.
        """
        yield from in_blocks(self._written, clips, journal, size=self._batch, workers=workers)

    def _written(self, clips: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        transcripts = self._loaded().transcribe(
            clips, batch_size=self._batch, options=self._options
        )
        return list(map(_record, transcripts))

    def _loaded(self) -> Transcriber:
        if self._transcriber is None:
            transcriber = load_transcriber(self._model)
            devices = jax.local_devices()
            if devices[0].platform != "cpu":
                transcriber = transcriber.over(DataParallel(devices))
            self._transcriber = transcriber
        return self._transcriber


def _record(transcript: Transcript) -> dict[str, Any]:
    """Return all that is known of a clip's text; windows by where they begin."""
    windows: dict[float, dict[str, Any]] = {}
    for segment in transcript.segments:
        window = windows.setdefault(
            segment.window,
            {
                "text": "",
                "no_speech_prob": round(segment.no_speech_prob, _DIGITS),
                "avg_logprob": round(segment.avg_logprob, _DIGITS),
                "compression_ratio": round(segment.compression_ratio, _DIGITS),
            },
        )
        window["text"] = f"{window['text']} {segment.text}".lstrip()
    return {
        "text": transcript.text,
        "language": transcript.language,
        "no_speech_prob": _number(transcript.no_speech_prob),
        "avg_logprob": _number(transcript.avg_logprob),
        "windows": list(windows.values()),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, _DIGITS)
