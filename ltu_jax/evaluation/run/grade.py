"""From answers to scores: every metric of a row, by both rules, on the same answers."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ltu_jax.evaluation.datasets.benchmarks import BenchmarkRow
from ltu_jax.evaluation.datasets.item import EvaluationMode, Item
from ltu_jax.evaluation.run.samples import SampleKey
from ltu_jax.evaluation.scoring.interface import (
    PAPER,
    RULES,
    Answered,
    AnswerScore,
    Metric,
    NotComputedError,
    ScoringRule,
    Tools,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graded:
    """One metric, by one rule, of all items of a row under one mode and decoding.

    Attributes:
        name: the figure's full name.
        metric, rule: what graded.
        scores: for each draw, one score an item, in the items' order; empty when not computed.
        not_computed: why there are none.
    """

    name: str
    metric: Metric
    rule: str
    scores: tuple[tuple[AnswerScore, ...], ...]
    not_computed: str | None

    @property
    def scored_by(self) -> ScoringRule:
        """The rule itself."""
        return rule_of(self.metric, self.rule)


def rule_of(metric: Metric, name: str) -> ScoringRule:
    """Return the paper or strict rule of a metric."""
    return metric.paper if name == PAPER else metric.strict


def grade_row(
    items: Sequence[Item],
    row: BenchmarkRow,
    *,
    outputs: Sequence[Mapping[str, str | None]],
    spoken_texts: Mapping[str, str],
    tools: Tools,
) -> list[Graded]:
    """Grade the answers to one row, mode and decoding.

    Args:
        items: all items of the row.
        row: its metrics.
        outputs: for each draw, item id -> answer; None or absent is a missing one.
        spoken_texts: clip id -> Whisper's transcript.
        tools: what rules may need.

    Returns:
        one `Graded` for each metric and rule, in the row's order, paper first.
    """
    draws = [
        [
            Answered(
                item=item,
                output=output.get(item.item_id),
                spoken_text=spoken_texts.get(item.clip_id, ""),
            )
            for item in items
        ]
        for output in outputs
    ]
    result = []
    for metric in row.metrics:
        for name in RULES:
            rule = rule_of(metric, name)
            reason, scores = None, ()
            try:
                scores = tuple(tuple(rule.grade(answered, tools)) for answered in draws)
            except NotComputedError as error:
                reason = f"not computed: {error}"
            result.append(
                Graded(
                    name=_name(rule, draws, tools),
                    metric=metric,
                    rule=name,
                    scores=scores,
                    not_computed=reason,
                )
            )
    return result


def _name(rule: ScoringRule, draws: Sequence[Sequence[Answered]], tools: Tools) -> str:
    qualifier = rule.qualifier(draws[0]) if rule.qualifier is not None and draws else ""
    return f"{rule.describe(tools)} ({qualifier})" if qualifier else rule.describe(tools)


def by_draw(
    samples: Mapping[SampleKey, Mapping[str, Any]],
    items: Sequence[Item],
    *,
    mode: EvaluationMode,
    decoding: str,
    draws: int,
) -> list[dict[str, str | None]]:
    """Return, for each draw, item id -> output of the samples, None where there is none."""
    return [
        {
            item.item_id: samples.get(
                SampleKey(item_id=item.item_id, mode=mode, decoding=decoding, draw=draw), {}
            ).get("output")
            for item in items
        }
        for draw in range(draws)
    ]


def number(value: float | None) -> float | None:
    """Return the value, None where it is undefined: JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else value


def scores_of(graded: Sequence[Graded], *, draw: int, place: int) -> dict[str, dict[str, Any]]:
    """Return metric -> rule -> score of one answer, as the samples file has it."""
    scores: dict[str, dict[str, Any]] = {}
    for result in graded:
        if result.scores:
            score = result.scores[draw][place]
            scores.setdefault(result.metric.name, {})[result.rule] = {
                "parsed": score.parsed,
                "status": str(score.status),
                "score": number(score.value),
            }
    return scores
