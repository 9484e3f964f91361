"""A few answers of each row to look at: right, wrong, and scored apart by the two rules."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.core.jsonl import read_jsonl
from ltu_jax.evaluation.report import formatting

_OF_EACH = 2
_KEYS = {"item_id", "row", "mode", "decoding", "draw", "question", "output", "reference", "scores"}
_RESCORE = "`evaluate rescore` writes them again"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleAnswer:
    """A line of samples.jsonl, the metric it was chosen by, and what it is an example of."""

    kind: str
    metric: str
    line: Mapping[str, Any]

    @property
    def reference(self) -> str:
        """All references of the item."""
        return " | ".join(map(str, self.line["reference"]))


def choose(path: Path, metrics: Mapping[str, Any]) -> dict[str, list[SampleAnswer]]:
    """Return up to two of the best, the worst and the disputed answers of each row, in file order.

    Answers are of the first draw in the first mode, greedy where there are such answers. Best and
    worst are by the strict score of the first metric that scores single answers.

    Raises:
        UserError: a line is not one of samples.jsonl; the message names it.
    """
    rows = formatting.rows(metrics)
    decodings = {
        name: formatting.distinct(figure["decoding"] for figure in row["figures"])
        for name, row in rows.items()
    }
    chosen: dict[str, _Candidates] = {}
    for line in _read(path):
        name = line["row"]
        if name not in rows or line["mode"] != metrics["modes"][0] or line["draw"] != 0:
            continue
        if line["decoding"] != "greedy" and "greedy" in decodings[name]:
            continue
        if name not in chosen:
            names = formatting.metric_names(rows[name])
            metric = next(
                (candidate for candidate in names if _score(line, candidate) is not None), None
            )
            if metric is None:
                continue
            sign = 1 if formatting.higher_is_better(rows[name], metric) else -1
            chosen[name] = _Candidates(metric=metric, sign=sign)
        chosen[name].add(line)
    return {name: chosen[name].samples() for name in rows if name in chosen}


class _Candidates:
    """The best, worst and disputed answers of a row so far; the earlier of two alike stays."""

    def __init__(self, *, metric: str, sign: int):
        self.metric, self.sign = metric, sign
        self.best: list[tuple[float, Mapping[str, Any]]] = []
        self.worst: list[tuple[float, Mapping[str, Any]]] = []
        self.disputed: list[Mapping[str, Any]] = []

    def add(self, line: Mapping[str, Any]) -> None:
        score = _score(line, self.metric)
        if score is None:
            return
        for ranked, sign in ((self.best, -self.sign), (self.worst, self.sign)):
            ranked.append((sign * score, line))
            ranked.sort(key=lambda candidate: candidate[0])
            del ranked[_OF_EACH:]
        computed = "paper" in line["scores"][self.metric]
        apart = computed and _score(line, self.metric, "paper") != score
        if apart and len(self.disputed) < 3 * _OF_EACH:
            self.disputed.append(line)  # more than are shown: best or worst may be among them

    def samples(self) -> list[SampleAnswer]:
        best = -self.sign * self.best[0][0]
        lines = [("best", line) for _, line in self.best]
        lines += [
            ("worst", line)
            for _, line in self.worst
            if _score(line, self.metric) != best
            and all(line is not candidate for _, candidate in self.best)
        ]
        disputed = [
            candidate
            for candidate in self.disputed
            if all(candidate is not line for _, line in lines)
        ]
        named = [(self._kind(_score(line, self.metric), kind), line) for kind, line in lines]
        named += [("rules differ", line) for line in disputed[:_OF_EACH]]
        return [SampleAnswer(kind=kind, metric=self.metric, line=line) for kind, line in named]

    def _kind(self, score: float, kind: str) -> str:
        if score == (1 if self.sign > 0 else 0):
            return "right"
        return "wrong" if score == 0 else kind


def _score(line: Mapping[str, Any], metric: str, rule: str = "strict") -> float | None:
    return line["scores"].get(metric, {}).get(rule, {}).get("score")


def _read(path: Path) -> Iterator[Mapping[str, Any]]:
    for where, line in read_jsonl(path, advice=_RESCORE):
        if lacking := _KEYS - set(line):
            raise UserError(
                f"{where} is no line of samples.jsonl: it lacks {', '.join(sorted(lacking))}; "
                f"{_RESCORE}"
            )
        yield line
