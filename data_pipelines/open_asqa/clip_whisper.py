"""Whisper over many clips, in blocks: all that it wrote goes into a journal, and nothing twice.

A block is so many clips in a row, whether or not results of some are there already, so the batch in
which a clip is decoded, and with it the last bits of its figures, does not depend on where an
earlier run was stopped.
"""

import dataclasses
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipelines.open_asqa.clip_journal import ClipJournal
from ltu_jax.core.axes import Float
from ltu_jax.core.files import write_json
from ltu_jax.generation.data_parallel import DataParallel
from ltu_jax.generation.loading import load_transcriber
from ltu_jax.generation.transcribe import Transcriber, Transcript
from ltu_jax.generation.transcription import QUIET, TranscribeOptions
from ltu_jax.preprocessing.audio import AudioError
from ltu_jax.weights.open import open_weights

_FORMAT = 1  # of the lines of a journal
_EVERYTHING = 2.0  # a no-speech limit that no probability reaches
_DIGITS = 4

Clip = tuple[str, Callable[[], Float[np.ndarray, "C"]]]  # name, and what decodes it


class ClipWhisper:
    """A Whisper by its path; it is loaded when there is something to hear."""

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
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
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
        waiting: deque[list[tuple[str, Future]]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            for block in self._blocks(clips):
                if all(journal.find(name) is not None for name, _ in block):
                    yield from (journal.find(name) for name, _ in block)
                    continue
                waiting.append([(name, pool.submit(decode)) for name, decode in block])
                if len(waiting) > 1:
                    yield from self._heard(waiting.popleft(), journal)
            while waiting:
                yield from self._heard(waiting.popleft(), journal)

    def _blocks(self, clips: Iterable[Clip]) -> Iterator[list[Clip]]:
        source = iter(clips)
        while block := list(islice(source, self._batch)):
            yield block

    def _heard(
        self, block: list[tuple[str, Future]], journal: ClipJournal
    ) -> Iterator[dict[str, Any]]:
        """Decode a block, keep what is new of it, and yield all of it."""
        results: dict[str, dict[str, Any]] = {}
        samples: dict[str, np.ndarray] = {}
        for name, decoded in block:
            try:
                samples[name] = decoded.result()
            except AudioError as error:
                results[name] = {"error": str(error)}
        transcripts = self._loaded().transcribe(
            samples.values(), batch_size=self._batch, options=self._options
        )
        results |= dict(zip(samples, map(_record, transcripts), strict=True))
        for name, _ in block:
            if journal.find(name) is None:
                journal.add(name, results[name])
            yield results[name]

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
