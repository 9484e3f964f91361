"""A few answers of each row to look at: right, wrong, and scored apart by the two rules."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.report import formatting

_OF_EACH = 2
_KEYS = {"item_id", "row", "mode", "decoding", "draw", "question", "output", "reference", "scores"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleAnswer:
    """A line of samples.jsonl, the metric it was chosen by, and what it is an example of."""

    kind: str
    metric: str
    line: Mapping[str, Any]


def choose(path: Path, metrics: Mapping[str, Any]) -> dict[str, list[SampleAnswer]]:
    """Up to two of the best, the worst and the disputed answers of each row, in file order.

    Of the first draw in the first mode, greedy where there are such answers. Best and worst are by
    the strict score of the first metric that scores single answers.

    Raises:
        UserError: a line is not one of samples.jsonl; the message names it.
    """
    rows = formatting.rows(metrics)
    decodings = {
        name: formatting.distinct(figure["decoding"] for figure in row["figures"])
        for name, row in rows.items()
    }
    chosen: dict[str, _Chosen] = {}
    for line in _lines(path):
        name = line["row"]
        if name not in rows or line["mode"] != metrics["modes"][0] or line["draw"] != 0:
            continue
        if line["decoding"] != "greedy" and "greedy" in decodings[name]:
            continue
        if name not in chosen:
            metric = next(
                (m for m in formatting.metric_names(rows[name]) if _score(line, m) is not None),
                None,
            )
            if metric is None:
                continue
            sign = 1 if formatting.higher_is_better(rows[name], metric) else -1
            chosen[name] = _Chosen(metric=metric, sign=sign)
        chosen[name].see(line)
    return {name: chosen[name].excerpts() for name in rows if name in chosen}


class _Chosen:
    """The answers of a row that are kept so far; the earlier of two alike stays."""

    def __init__(self, *, metric: str, sign: int):
        self.metric, self.sign = metric, sign
        self.best: list[tuple[float, Mapping[str, Any]]] = []
        self.worst: list[tuple[float, Mapping[str, Any]]] = []
        self.disputed: list[Mapping[str, Any]] = []

    def see(self, line: Mapping[str, Any]) -> None:
        score = _score(line, self.metric)
        if score is None:
            return
        for kept, sign in ((self.best, -self.sign), (self.worst, self.sign)):
            kept.append((sign * score, line))
            kept.sort(key=lambda one: one[0])
            del kept[_OF_EACH:]
        both = "paper" in line["scores"][self.metric]  # not where its rule was not computed
        apart = both and _score(line, self.metric, "paper") != score
        if apart and len(self.disputed) < 3 * _OF_EACH:
            self.disputed.append(line)  # more than are shown: best or worst may be among them

    def excerpts(self) -> list[SampleAnswer]:
        taken: set[int] = set()
        found = []
        for kept, kind in ((self.best, "best"), (self.worst, "worst")):
            for _, line in kept:
                score = _score(line, self.metric)
                if id(line) not in taken and (kind == "best" or score != self._best()):
                    taken.add(id(line))
                    found.append(self._excerpt(self._kind(score, kind), line))
        disputed = [line for line in self.disputed if id(line) not in taken]
        found += [self._excerpt("rules differ", line) for line in disputed[:_OF_EACH]]
        return found

    def _best(self) -> float:
        return -self.sign * self.best[0][0]

    def _kind(self, score: float, kind: str) -> str:
        if score == (1 if self.sign > 0 else 0):
            return "right"
        return "wrong" if score == 0 else kind

    def _excerpt(self, kind: str, line: Mapping[str, Any]) -> SampleAnswer:
        return SampleAnswer(kind=kind, metric=self.metric, line=line)


def _score(line: Mapping[str, Any], metric: str, rule: str = "strict") -> float | None:
    return line["scores"].get(metric, {}).get(rule, {}).get("score")


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            try:
                line = json.loads(text)
            except ValueError as error:
                raise UserError(f"{path}:{number} is not JSON: {error}") from None
            lacking = _KEYS - set(line) if isinstance(line, dict) else _KEYS
            if lacking:
                raise UserError(
                    f"{path}:{number} is no line of samples.jsonl: it lacks "
                    f"{', '.join(sorted(lacking))}; `evaluate rescore` writes them again"
                )
            yield line
