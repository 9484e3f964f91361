"""Ask every item in every mode: batched, each distinct input once, resumable after a kill.

`OUT/samples.<process>.jsonl` gets one line per answer as they come; `OUT/samples.jsonl` holds those
of finished runs. A second run of the same evaluation reads both and computes what is missing.
Processes share the work by clip and meet in the files alone, so OUT must be on a disk of all.
"""

import dataclasses
import functools
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from ltu_jax.core.axes import Array, Float
from ltu_jax.core.jsonl import JsonlWriter
from ltu_jax.evaluation.datasets.dataset import Dataset
from ltu_jax.evaluation.datasets.item import EvaluationMode, Item
from ltu_jax.evaluation.run.clips import ClipFacts, ClipFeatures, decode
from ltu_jax.evaluation.run.samples import ANSWER, SAMPLING, SampleKey
from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.inference import Request
from ltu_jax.preprocessing.audio import SAMPLE_RATE
from ltu_jax.preprocessing.text import prompt

# Clips that differ by less than a tenth of a second share one silence, and its answers.
SILENCE = "silence:"
# Clips whose features are in memory at once: 1.05 GB with Whisper large.
_CLIPS_AT_HAND = 256


class AnsweringModel(Protocol):
    """The part of `ltu_jax.inference.Model` that an evaluation uses."""

    window_seconds: float
    answer_batch: Callable[..., Sequence[Any]]
    transcribe: Callable[..., Sequence[Any]]
    audio_features_batch: Callable[..., Float[Array, "B W A D"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelInput:
    """The model's input for one answer; equal inputs are answered once.

    `audio` is a clip id, "silence:<tenths of a second>", or None (text only); `draw` is None for
    greedy decoding.
    """

    audio: str | None
    spoken_text: str
    question: str
    max_new_tokens: int
    draw: int | None

    @functools.cached_property
    def seed(self) -> int:
        """Of the draw: depends on the input alone, not on its batch."""
        digest = hashlib.sha256(repr(dataclasses.astuple(self)).encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def sampling(self) -> SamplingConfig | None:
        """Return the decoding of the published evaluation, or None for greedy."""
        if self.draw is None:
            return None
        return SamplingConfig.official(seed=self.seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CollectedAnswers:
    """Samples by key, and what this run computed: answers, seconds of audio asked about, time."""

    samples: dict[SampleKey, dict[str, Any]]
    computed: int
    audio_seconds: float
    seconds: float


def sample_keys(
    dataset: Dataset, *, modes: Sequence[EvaluationMode], decodings: Sequence[str]
) -> Iterator[SampleKey]:
    """Yield every answer that is wanted, in the order of the samples file."""
    for item, mode, decoding in itertools.product(dataset.items, modes, decodings):
        draws = dataset.benchmark.rows[item.row].draws if decoding == SAMPLING else 1
        for draw in range(draws):
            yield SampleKey(item_id=item.item_id, mode=mode, decoding=decoding, draw=draw)


def model_input(
    dataset: Dataset, item: Item, key: SampleKey, clips: Mapping[str, ClipFacts]
) -> ModelInput:
    """Return the model's input for one answer (see `EvaluationMode`)."""
    clip = clips[item.clip_id]
    audio = {
        EvaluationMode.JOINT: item.clip_id,
        EvaluationMode.AUDIO: item.clip_id,
        EvaluationMode.TEXT: None,
        EvaluationMode.SHUFFLED: dataset.partner.get(item.item_id),
        EvaluationMode.SILENCE: f"{SILENCE}{max(round(clip.seconds * 10), 1)}",
    }[key.mode]
    return ModelInput(
        audio=audio,
        spoken_text="" if key.mode is EvaluationMode.AUDIO else clip.spoken_text,
        question=item.question,
        max_new_tokens=dataset.benchmark.rows[item.row].max_new_tokens,
        draw=key.draw if key.decoding == SAMPLING else None,
    )


def collect(
    dataset: Dataset,
    *,
    wanted: Sequence[SampleKey],
    clips: Mapping[str, ClipFacts],
    model: AnsweringModel,
    out: Path,
    samples: dict[SampleKey, dict[str, Any]],
    batch_size: int,
    process: tuple[int, int] = (0, 1),
) -> CollectedAnswers:
    """Answer what `samples` lacks; lines go to `OUT/samples.<process>.jsonl` as they come.

    Inputs that share clips are answered together, sorted by prompt length within: little padding,
    and a batch ends together.

    Args:
        dataset: the items.
        wanted: the answers to have, from `sample_keys`; others than of `clips` are left.
        clips: what is known of each clip.
        model: answers.
        out: folder of the samples.
        samples: those that are there; the new ones are added.
        batch_size: answers computed at once.
        process: this one's number, and how many share the work.
    """
    begin, computed, audio_seconds = time.perf_counter(), 0, 0.0
    items = {item.item_id: item for item in dataset.items}
    known: dict[ModelInput, dict[str, Any]] = {}
    waiting: dict[ModelInput, list[SampleKey]] = {}
    for key in wanted:
        item = items[key.item_id]
        source = _readable(dataset, item, key, clips)
        if source is None:
            continue
        if key in samples:
            known[source] = {name: samples[key][name] for name in ANSWER}
        else:
            waiting.setdefault(source, []).append(key)
    path = out / f"samples.{process[0]}.jsonl"
    with JsonlWriter(path) as file:

        def write(source: ModelInput, answer: dict[str, Any]) -> None:
            for key in waiting[source]:
                sample = _sample(dataset, items[key.item_id], key, source, clips, answer)
                samples[key] = sample
                file.append(sample)

        if process[0] == 0:
            for source in waiting.keys() & known.keys():
                write(source, known[source])
        todo = [source for source in waiting if source not in known and _mine(source, process)]
        features = ClipFeatures(model, folder=out / f"features.{process[0]}")
        for source, answer in _answers(
            dataset, todo, model=model, features=features, batch_size=batch_size
        ):
            write(source, answer)
            computed += 1
            if source.audio is not None:
                audio_seconds += _seconds(source.audio, clips)
    return CollectedAnswers(
        samples=samples,
        computed=computed,
        audio_seconds=audio_seconds,
        seconds=time.perf_counter() - begin,
    )


def _readable(
    dataset: Dataset, item: Item, key: SampleKey, clips: Mapping[str, ClipFacts]
) -> ModelInput | None:
    """Return the input, or None when a clip that it needs could not be read."""
    if item.clip_id not in clips:
        return None
    source = model_input(dataset, item, key, clips)
    audio = source.audio
    if audio is not None and not audio.startswith(SILENCE) and audio not in clips:
        return None
    return source


def _mine(source: ModelInput, process: tuple[int, int]) -> bool:
    """Tell whether this process answers: all inputs of a clip fall to one, which encodes it."""
    name = source.question if source.audio is None else source.audio
    digest = hashlib.sha256(f"{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % process[1] == process[0]


def _answers(
    dataset: Dataset,
    todo: Sequence[ModelInput],
    *,
    model: AnsweringModel,
    features: ClipFeatures,
    batch_size: int,
) -> Iterator[tuple[ModelInput, dict[str, Any]]]:
    """Yield (input, answer) for every input, a batch at a time."""
    if not todo:
        return
    by_audio: dict[str | None, list[ModelInput]] = {}
    for source in todo:
        by_audio.setdefault(source.audio, []).append(source)
    names = [name for name in by_audio if name is not None]
    waves = [names[at : at + _CLIPS_AT_HAND] for at in range(0, len(names), _CLIPS_AT_HAND)]
    if None in by_audio:
        waves.append([None])
    with (
        tqdm(total=len(names), desc="encoding", unit="clip") as encoding,
        tqdm(total=len(todo), desc="answers", unit="answer", smoothing=0.05) as answering,
    ):
        for wave in waves:
            sources = {
                name: functools.partial(_samples, dataset, name)
                for name in wave
                if name is not None
            }
            features.compute(sources, bar=encoding)
            group = [source for name in wave for source in by_audio[name]]
            for batch in _batches(group, batch_size):
                start = time.perf_counter()
                made = model.answer_batch(
                    [
                        Request(
                            question=question.question,
                            spoken_text=question.spoken_text,
                            audio_features=None
                            if question.audio is None
                            else features[question.audio],
                        )
                        for question in batch
                    ],
                    max_new_tokens=batch[0].max_new_tokens,
                    sampling=None
                    if batch[0].draw is None
                    else [question.sampling() for question in batch],
                    batch_size=batch_size,
                )
                milliseconds = round((time.perf_counter() - start) * 1000, 1)
                for source, answer in zip(batch, made, strict=True):
                    yield (
                        source,
                        {
                            "output": answer.text,
                            "tokens": len(answer.tokens),
                            "finish_reason": answer.finish_reason,
                            "latency_ms": milliseconds,
                        },
                    )
                answering.update(len(batch))
            features.forget()


def _batches(group: Sequence[ModelInput], size: int) -> Iterator[list[ModelInput]]:
    """Yield batches of one kind and similar prompt length; each kind is a program of its own."""

    def kind(source: ModelInput) -> tuple[bool, bool, int]:
        return source.audio is None, source.draw is None, source.max_new_tokens

    def length(source: ModelInput) -> int:
        return len(source.question) + len(source.spoken_text)

    ordered = sorted(group, key=lambda source: (*kind(source), length(source), source.question))
    for _, same in itertools.groupby(ordered, key=kind):
        members = list(same)
        for first in range(0, len(members), size):
            yield members[first : first + size]


def _samples(dataset: Dataset, audio: str) -> Float[np.ndarray, "C"]:
    if audio.startswith(SILENCE):
        return np.zeros(int(audio.removeprefix(SILENCE)) * SAMPLE_RATE // 10, np.float32)
    return decode(dataset.clips[audio]).samples


def _seconds(audio: str, clips: Mapping[str, ClipFacts]) -> float:
    if audio.startswith(SILENCE):
        return int(audio.removeprefix(SILENCE)) / 10
    return clips[audio].seconds


def _sample(
    dataset: Dataset,
    item: Item,
    key: SampleKey,
    source: ModelInput,
    clips: Mapping[str, ClipFacts],
    answer: Mapping[str, Any],
) -> dict[str, Any]:
    """Return one line of the samples file; scores join it when the run is scored."""
    clip = clips[item.clip_id]
    return {
        "item_id": item.item_id,
        "row": item.row,
        "mode": str(key.mode),
        "decoding": key.decoding,
        "draw": key.draw,
        "seed": None if source.draw is None else source.seed,
        "clip_id": item.clip_id,
        "heard": source.audio,
        "audio": str(dataset.clips[item.clip_id].audio),
        "audio_sha256": clip.sha256,
        "seconds": clip.seconds,
        "seconds_cut": clip.seconds_cut,
        "spoken_text": clip.spoken_text,
        "spoken_text_source": clip.source,
        "question": item.question,
        "prompt": prompt(item.question, source.spoken_text),
        "reference": list(item.references),
        **answer,
    }
