"""The examination of a whole data set: every clip read, decoded and compared with the others."""

import concurrent.futures
import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.doctor import data_readers
from data_pipelines.doctor.audio_measures import AudioMeasures, measure_audio
from data_pipelines.doctor.checks import Findings, verdicts
from data_pipelines.doctor.data_readers import Case, Problem
from data_pipelines.doctor.text_checks import Texts
from data_pipelines.records.schema import UNKNOWN_LICENCE
from ltu_jax.preprocessing.audio import CLIP_FRAMES, HOP, SAMPLE_RATE
from ltu_jax.preprocessing.text import Tokenizer

WINDOW = CLIP_FRAMES * HOP / SAMPLE_RATE  # seconds that the model hears
_SHORT, _SILENT, _CLIPPED, _DROPOUT = 0.3, -70.0, 0.001, 0.02
_SECONDS = (0, 0.3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 60, 10_800)
_LEVELS = (-120, -70, -60, -55, -50, -45, -40, -35, -30, -25, -20, -15, -10, -5, 0, 20)
_LENGTH_BINS = 24
_AHEAD = 64  # clips read before their turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Orders:
    """What to examine, and how much of it may be wrong.

    Attributes:
        data: corpus folder, records directory, JSON or JSONL file.
        audio_root: folder of the audio of a JSON file; None for its own.
        tokenizer: of the language model; None counts characters.
        cutoff: most text tokens of a pair in training.
        every: listen to each n-th clip only.
        limits: shares that replace those of `checks.CHECKS`.
        workers: threads that decode.
    """

    data: Path
    audio_root: Path | None
    tokenizer: Tokenizer | None
    cutoff: int
    every: int
    limits: Mapping[str, float]
    workers: int


def examine(orders: Orders, *, progress: Any = None) -> dict[str, Any]:
    """Examine a data set.

    Args:
        orders: see there.
        progress: a bar with `update()`, told of each clip.

    Returns:
        the findings as JSON-able values; see `_Examination.result`.

    Raises:
        UserError: there is no data, or its list of clips cannot be read at all.
    """
    kind = data_readers.kind_of(orders.data, audio_root=orders.audio_root)
    examination = _Examination(orders, kind=kind)
    stream = data_readers.cases(orders.data, audio_root=orders.audio_root)
    for case, measures in _measured(stream, every=orders.every, workers=orders.workers):
        if isinstance(case, Problem):
            examination.problem(case)
        else:
            examination.add(case, measures)
        if progress is not None:
            progress.update()
    return examination.result()


_Examined = tuple[Case | Problem, AudioMeasures | Problem | None]


def _measured(stream: Iterable[Case | Problem], *, every: int, workers: int) -> Iterator[_Examined]:
    """Yield each item with the measures of its audio, in order; a few are decoded ahead."""

    def examined(item: tuple[int, Case | Problem]) -> _Examined:
        number, case = item
        if isinstance(case, Problem) or case.audio is None or number % every:
            return case, None
        return case, measure_audio(case)

    numbered = enumerate(stream)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        while ahead := list(itertools.islice(numbered, _AHEAD)):
            yield from pool.map(examined, ahead)


class _Examination:
    def __init__(self, orders: Orders, *, kind: str):
        self._orders, self._kind = orders, kind
        self._labels = data_readers.label_names(orders.data)
        self._findings = Findings()
        self._texts = Texts(self._findings, tokenizer=orders.tokenizer, cutoff=orders.cutoff)
        self._clips = self._decoded = self._bad = 0
        self._datasets: dict[str, dict[str, Counter[str]]] = {}
        self._tasks: dict[str, dict[str, Counter[str]]] = {}
        self._licences: dict[str, Counter[str]] = defaultdict(Counter)
        self._formats: Counter[str] = Counter()
        self._seconds: list[float] = []
        self._levels: list[float] = []
        # content -> where the first clip of each (split, audio id) is
        self._contents: dict[bytes, dict[tuple[str, str], str]] = defaultdict(dict)

    def problem(self, problem: Problem) -> None:
        self._findings.add(problem.check, where=problem.where, detail=problem.detail)
        self._bad += problem.check == "damaged"

    def add(self, case: Case, measures: AudioMeasures | Problem | None) -> None:
        self._clips += 1
        counts = self._datasets.setdefault(case.split, {}).setdefault(case.dataset, Counter())
        counts["clips"] += 1
        counts["pairs"] += len(case.pairs)
        for pair in case.pairs:
            of_task = self._tasks.setdefault(case.split, {}).setdefault(pair.task, Counter())
            of_task["pairs"] += 1
            of_task["closed"] += pair.closed_ended
        self._licences[case.dataset][case.licence] += 1
        if case.licence == UNKNOWN_LICENCE:
            self._findings.add("no_licence", where=case.where, detail=f"dataset {case.dataset}")
        outside = [tag for tag in case.tags if self._labels is not None and tag not in self._labels]
        if outside:
            self._findings.add("unknown_tags", where=case.where, detail=", ".join(outside))
        self._texts.add(case)
        if isinstance(measures, Problem):
            self.problem(measures)
        elif measures is not None:
            self._compare(case, measures)
            counts["seconds"] += measures.seconds

    def _compare(self, case: Case, measures: AudioMeasures) -> None:
        self._decoded += 1
        self._formats[f"{measures.rate} Hz, {measures.channels} ch"] += 1
        self._seconds.append(measures.seconds)
        self._levels.append(measures.level)
        for check, is_so, detail in (
            ("short", measures.seconds < _SHORT, f"{measures.seconds:.3f} s"),
            ("silent", measures.level < _SILENT, f"{measures.level:.0f} dBFS"),
            ("clipped", measures.clipped > _CLIPPED, f"{measures.clipped:.2%} of samples"),
            ("dropouts", measures.dropout >= _DROPOUT, f"{1000 * measures.dropout:.0f} ms"),
            ("unheard", measures.seconds > WINDOW, f"{measures.seconds - WINDOW:.1f} s"),
        ):
            if is_so:
                self._findings.add(check, where=case.where, detail=detail)
        if measures.level < _SILENT:
            return  # silence is like silence
        # Audio that is in two datasets is a clip in each, and no twin; a copy of it is one.
        places, place = self._contents[measures.content], (case.split, case.audio_id)
        earlier = _first(places, case.split)
        if earlier is not None and place not in places:
            self._findings.add("twins", where=case.where, detail=f"as {earlier}")
        places.setdefault(place, case.where)

    def result(self) -> dict[str, Any]:
        """Return the findings: counts, coverage, histograms, and every check with its verdict."""
        self._texts.finish()
        for places in self._contents.values():
            trained = _first(places, "train")
            for split in dict.fromkeys(split for split, _ in places):
                if split != "train" and trained is not None:
                    detail = f"{split}: as {trained} of train"
                    self._findings.add("leaked_audio", where=_first(places, split), detail=detail)
        pairs = sum(n["pairs"] for tasks in self._tasks.values() for n in tasks.values())
        clips = self._clips + self._bad
        checks = verdicts(
            self._findings, totals={"clips": clips, "pairs": pairs}, limits=self._orders.limits
        )
        unit = "characters" if self._orders.tokenizer is None else "tokens"
        return {
            "data": str(self._orders.data),
            "kind": self._kind,
            "clips": clips,
            "heard": self._decoded,
            "pairs": pairs,
            "seconds": float(sum(self._seconds)),
            "ok": all(check["ok"] for check in checks),
            "checks": checks,
            "datasets": _plain(self._datasets),
            "tasks": _plain(self._tasks),
            "formats": dict(self._formats.most_common()),
            "licences": {name: dict(of) for name, of in sorted(self._licences.items())},
            "tokens": self._texts.tokens(),
            "histograms": {
                "seconds": _histogram(self._seconds, _SECONDS),
                "level": _histogram(self._levels, _LEVELS),
                unit: _lengths(self._texts.lengths),
            },
        }


def _first(places: Mapping[tuple[str, str], str], split: str) -> str | None:
    return next((where for (own, _), where in places.items() if own == split), None)


def _plain(nested: Mapping[str, Mapping[str, Counter[str]]]) -> dict[str, Any]:
    return {
        split: {name: dict(counts) for name, counts in sorted(named.items())}
        for split, named in sorted(nested.items())
    }


def _histogram(values: list[float], edges: Iterable[float]) -> dict[str, list]:
    counts, _ = np.histogram(values, bins=np.asarray([*edges], np.float64))
    return {"edges": list(edges), "counts": counts.tolist()}


def _lengths(lengths: Counter[int]) -> dict[str, list]:
    """Count whole numbers in bins of equal width."""
    width = max(1, -(-max(lengths, default=1) // _LENGTH_BINS))
    counts = [0] * _LENGTH_BINS
    for length, number in lengths.items():
        counts[(length - 1) // width if length else 0] += number
    return {"edges": [1 + width * place for place in range(_LENGTH_BINS + 1)], "counts": counts}
