"""Ask every item in every mode: batched, each distinct input once, resumable after a kill.

`OUT/samples.jsonl` gets one line per item and mode as the answers come, the features folder one
file per clip. A second run of the same evaluation reads both and computes what is missing.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from ltu_jax.core.axes import Array, Float
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, write_json
from ltu_jax.evaluation.benchmarks import Benchmark, Item, Mode
from ltu_jax.evaluation.grading import grade
from ltu_jax.model import Request
from ltu_jax.preprocessing.audio import SAMPLE_RATE, load_audio

# Clips that differ by less than a tenth of a second share one silence, and its answers.
SILENCE = "silence:"
_CLIPS_AT_ONCE = 8


class Answering(Protocol):
    """What an evaluation needs of `ltu_jax.model.Model`."""

    answer_batch: Callable[..., Sequence[Any]]
    audio_features_batch: Callable[..., Float[Array, "B W A D"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """All that the model is given for one answer; equal inputs are answered once.

    `audio` is a clip id, "silence:<tenths of a second>", or None (text only).
    """

    audio: str | None
    spoken_text: str
    question: str
    max_new_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collected:
    """Outputs by (item id, mode), and how many answers this run computed in how many seconds."""

    outputs: dict[tuple[str, Mode], str]
    computed: int
    seconds: float


def given(benchmark: Benchmark, item: Item, mode: Mode) -> Given:
    """The model's input for one item in one mode (see `Mode`)."""
    clip = benchmark.clips[item.clip_id]
    audio = {
        Mode.JOINT: clip.clip_id,
        Mode.AUDIO: clip.clip_id,
        Mode.TEXT: None,
        Mode.SHUFFLED: benchmark.partner[item.item_id],
        Mode.SILENCE: f"{SILENCE}{round(clip.seconds * 10)}",
    }[mode]
    return Given(
        audio=audio,
        spoken_text="" if mode is Mode.AUDIO else clip.spoken_text,
        question=item.question,
        max_new_tokens=benchmark.rows[item.row].max_new_tokens,
    )


def start(out: Path, identity: dict[str, Any]) -> bool:
    """Make `out` the folder of one evaluation; answers of another are kept aside as *.old.jsonl.

    Args:
        out: folder of the samples.
        identity: what the answers depend on: checkpoint, corpus, decoding.

    Returns:
        Whether answers of another evaluation were put aside.
    """
    out.mkdir(parents=True, exist_ok=True)
    path, samples = out / "config.json", out / "samples.jsonl"
    other = path.exists() and read_json(path) != identity
    if other and samples.exists():
        os.replace(samples, out / "samples.old.jsonl")
    write_json(path, identity)
    return other


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The samples written so far; a line that a killed run left unfinished is cut off the file.

    Raises:
        UserError: a finished line is not a sample.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with open(path, "r+b") as file:
            file.truncate(len(whole))
    samples = []
    for number, line in enumerate(whole.decode().splitlines(), start=1):
        try:
            sample = json.loads(line)
            samples.append({**sample, "mode": Mode(sample["mode"])})
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}:{number} is not a sample ({error}); delete the file") from None
    return samples


def collect(
    benchmark: Benchmark,
    *,
    modes: Sequence[Mode],
    load: Callable[[], Answering],
    out: Path,
    features: Path,
    batch_size: int,
) -> Collected:
    """Answer greedily what `OUT/samples.jsonl` lacks and return all outputs.

    Inputs are sorted by answer and prompt length: little padding, and a batch ends together.

    Args:
        benchmark: the items.
        modes: the input modes to ask them in.
        load: gives the model; not called when every answer is there.
        out: folder of the samples, prepared by `start`.
        features: folder of encoded clips; its name should tell encoders apart.
        batch_size: answers computed at once.
    """
    path = out / "samples.jsonl"
    outputs: dict[tuple[str, Mode], str] = {}
    known: dict[Given, dict[str, Any]] = {}
    items = {item.item_id: item for item in benchmark.items}
    for sample in read_samples(path):
        outputs[sample["item_id"], sample["mode"]] = sample["output"]
        if sample["item_id"] in items:
            source = given(benchmark, items[sample["item_id"]], sample["mode"])
            known[source] = {key: sample[key] for key in ("output", "tokens", "finish_reason")}

    waiting: dict[Given, list[tuple[Item, Mode]]] = {}
    for item, mode in itertools.product(benchmark.items, modes):
        if (item.item_id, mode) not in outputs:
            waiting.setdefault(given(benchmark, item, mode), []).append((item, mode))
    begin, computed = time.perf_counter(), 0
    if waiting:
        with open(path, "a", encoding="utf-8") as file:

            def write(source: Given, answer: dict[str, Any]) -> None:
                for item, mode in waiting[source]:
                    outputs[item.item_id, mode] = answer["output"]
                    file.write(json.dumps(_sample(benchmark, item, mode, source, answer)) + "\n")
                file.flush()

            for source in waiting.keys() & known.keys():
                write(source, known[source])
            todo = [source for source in waiting if source not in known]
            for source, answer in _answers(
                benchmark, todo, load=load, features=features, batch_size=batch_size
            ):
                write(source, answer)
                computed += 1
    return Collected(outputs=outputs, computed=computed, seconds=time.perf_counter() - begin)


def _answers(
    benchmark: Benchmark,
    todo: Sequence[Given],
    *,
    load: Callable[[], Answering],
    features: Path,
    batch_size: int,
) -> Iterator[tuple[Given, dict[str, Any]]]:
    """(input, answer) for every input, a batch at a time."""
    if not todo:
        return
    model = load()
    encoded = Features(model, benchmark=benchmark, folder=features)
    encoded.compute({source.audio for source in todo if source.audio is not None})

    # Each kind of batch is compiled for each prompt length, so there are only four kinds.
    def kind(source: Given) -> tuple[bool, int]:
        return source.audio is None, source.max_new_tokens

    def length(source: Given) -> int:
        return len(source.question) + len(source.spoken_text)

    ordered = sorted(todo, key=lambda source: (*kind(source), length(source), source.question))
    with tqdm(total=len(ordered), desc="answers", unit="answer", smoothing=0.05) as bar:
        for (text_only, max_new_tokens), group in itertools.groupby(ordered, key=kind):
            for batch in _batches(list(group), batch_size):
                answers = model.answer_batch(
                    [
                        Request(
                            question=source.question,
                            spoken_text=source.spoken_text,
                            audio_features=None if text_only else encoded[source.audio],
                        )
                        for source in batch
                    ],
                    max_new_tokens=max_new_tokens,
                    batch_size=batch_size,
                )
                for source, answer in zip(batch, answers, strict=True):
                    result = {
                        "output": answer.text,
                        "tokens": len(answer.tokens),
                        "finish_reason": answer.finish_reason,
                    }
                    yield source, result
                bar.update(len(batch))


def _batches(things: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(things), size):
        yield things[first : first + size]


def _sample(
    benchmark: Benchmark, item: Item, mode: Mode, source: Given, answer: dict[str, Any]
) -> dict[str, Any]:
    """One line of the samples file: input, output and grade."""
    clip = benchmark.clips[item.clip_id]
    graded = grade(item, clip, answer["output"], metric=benchmark.rows[item.row].metric)
    return {
        "item_id": item.item_id,
        "clip_id": item.clip_id,
        "row": item.row,
        "mode": str(mode),
        "audio": source.audio,
        "spoken_text": source.spoken_text,
        "question": item.question,
        "reference": item.answer,
        "label": item.label,
        **answer,
        **dataclasses.asdict(graded),
    }


class Features:
    """Encoded clips [W, A, D], each computed once and kept as `<folder>/<clip>.npy`."""

    def __init__(self, model: Answering, *, benchmark: Benchmark, folder: Path):
        self._model = model
        self._benchmark = benchmark
        self._folder = folder
        self._arrays: dict[str, np.ndarray] = {}

    def __getitem__(self, audio: str) -> Float[Array, "W A D"]:
        return self._arrays[audio]

    def compute(self, wanted: Iterable[str]) -> None:
        """Encode the clips that are neither in memory nor in the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        wanted = sorted(wanted)
        missing = [audio for audio in wanted if not self._path(audio).exists()]
        with tqdm(total=len(missing), desc="features", unit="clip") as bar:
            for batch in _batches(missing, _CLIPS_AT_ONCE):
                encoded = self._model.audio_features_batch([self._samples(one) for one in batch])
                for audio, features in zip(batch, np.asarray(encoded), strict=True):
                    temporary = self._path(audio).with_suffix(".tmp")
                    with open(temporary, "wb") as file:
                        np.save(file, features)
                    os.replace(temporary, self._path(audio))
                bar.update(len(batch))
        for audio in wanted:
            self._arrays[audio] = np.load(self._path(audio), allow_pickle=False)

    def _path(self, audio: str) -> Path:
        return self._folder / f"{hashlib.sha256(audio.encode()).hexdigest()[:24]}.npy"

    def _samples(self, audio: str) -> Float[np.ndarray, "C"]:
        if audio.startswith(SILENCE):
            tenths = int(audio.removeprefix(SILENCE))
            return np.zeros(max(tenths, 1) * SAMPLE_RATE // 10, np.float32)
        return load_audio(self._benchmark.clips[audio].audio).samples
