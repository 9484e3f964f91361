"""From scores to figures: values, intervals over clusters, differences of the two rules."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ltu_jax.evaluation.datasets.item import EvaluationMode, Item, Task
from ltu_jax.evaluation.metrics.bootstrap import (
    Draws,
    binomial,
    bootstrap_draws,
    bootstrap_samples,
    ratio,
)
from ltu_jax.evaluation.metrics.closed import macro_f1
from ltu_jax.evaluation.metrics.significance import Difference, paired_bootstrap, paired_samples
from ltu_jax.evaluation.report.formatting import UNPARSED
from ltu_jax.evaluation.run.grade import Graded, number
from ltu_jax.evaluation.scoring.interface import PAPER, STRICT, Metric, Status
from ltu_jax.evaluation.scoring.task_metrics import differs

# Tasks whose answers are one of a few classes, for which a confusion matrix says something.
_CLASSES = (Task.CLASSIFICATION, Task.GENDER, Task.CLASS_AND_WORDS)


def counts_of(graded: Graded) -> np.ndarray:
    """Return what each answer adds to the sums [draws, n, S]; zeros where a rule leaves it out."""
    width = max((len(v.counts) for draw in graded.scores for v in draw), default=0)
    empty = (0.0,) * width
    return np.array([[v.counts or empty for v in draw] for draw in graded.scores])


def blank(metric: Metric, *, name: str, rule: str, system: str, n: int) -> dict[str, Any]:
    """Return every field of a figure, with nothing computed yet."""
    return {
        "metric": metric.name,
        "name": name,
        "rule": rule,
        "system": system,
        "mode": None,
        "decoding": None,
        "value": None,
        "low": None,
        "high": None,
        "n": n,
        "draws": 1,
        "spread": None,
        "missing": 0,
        "unparsed": 0,
        "refused": 0,
        "left_out": 0,
        "differ": None,
        "higher": metric.higher,
        "not_computed": None,
    }


def figure(
    graded: Graded,
    other: Graded,
    clusters: Sequence[str],
    *,
    system: str,
    mode: EvaluationMode | None,
    decoding: str | None,
) -> dict[str, Any]:
    """Return the figure of one rule; `other` is the same metric by the other rule.

    The value is the mean over draws, `spread` their standard deviation. Intervals resample whole
    clusters, the same ones for all draws.
    """
    entry = blank(
        graded.metric, name=graded.name, rule=graded.rule, system=system, n=len(clusters)
    ) | {
        "mode": None if mode is None else str(mode),
        "decoding": decoding,
        "draws": len(graded.scores),
        "not_computed": graded.not_computed,
    }
    if graded.not_computed is not None:
        return entry
    statuses = Counter(v.status for draw in graded.scores for v in draw)
    entry |= {str(status): statuses[status] for status in Status if status is not Status.PARSED}
    entry["left_out"] = sum(not v.counts for draw in graded.scores for v in draw)
    entry["differ"] = _differing(graded, other)
    unread = [not any(score.counts for score in draw) for draw in graded.scores]
    if any(unread):  # a mean over draws needs a figure of each
        where = "" if all(unread) else f" in {sum(unread)} of {len(unread)} draws"
        entry["not_computed"] = f"not computed: no answer could be read{where}"
        return entry
    rule = graded.scored_by
    if rule.of_samples is not None:
        draws = _of_samples(graded, clusters)
    else:
        draws = bootstrap_draws(counts_of(graded), clusters=clusters, statistic=rule.statistic)
    entry |= {key: number(value) for key, value in vars(draws).items()}
    if draws.low == draws.high and _of_shares(graded):
        # All clusters alike: resampling finds no other figure, though other clusters might. Each
        # counts as one trial, so that many items of one recording are not many trials.
        entry["low"], entry["high"] = binomial(draws.value, len(set(clusters)))
    if entry["value"] is None:
        entry["not_computed"] = "not computed: undefined for these answers"
    return entry


def _of_shares(graded: Graded) -> bool:
    """Tell whether a figure is a share of right answers, as macro-F1 is at both ends."""
    if graded.scored_by.statistic is macro_f1:
        return all(len({v.value for v in draw}) == 1 for draw in graded.scores)
    given = [v.counts for draw in graded.scores for v in draw if v.counts]
    return graded.scored_by.statistic is ratio and all(
        right in (0, 1) and share == 1 for right, share in given
    )


def _of_samples(graded: Graded, clusters: Sequence[str]) -> Draws:
    """Return a figure that is no function of sums: each draw by itself, then means."""
    results = []
    for draw in graded.scores:
        present = [place for place, score in enumerate(draw) if score.counts]
        results.append(
            bootstrap_samples(
                np.array([draw[place].counts for place in present]),
                clusters=[clusters[place] for place in present],
                statistic=graded.scored_by.of_samples,
            )
        )
    values = [result.value for result in results]
    return Draws(
        value=float(np.mean(values)),
        low=float(np.mean([result.low for result in results])),
        high=float(np.mean([result.high for result in results])),
        spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
    )


def difference(first: Graded, other: Graded, clusters: Sequence[str]) -> Difference | None:
    """Return a figure minus another of the same items.

    None where one of them was not computed, or left out by its rule whatever was answered.
    """
    rule, counts = first.scored_by, (counts_of(first), counts_of(other))
    if not all(own.size for own in counts):
        return None
    if rule.of_samples is None:
        return paired_bootstrap(*counts, clusters=clusters, statistic=rule.statistic)
    present = [
        np.array([[float(bool(score.counts)) for score in draw] for draw in each.scores])
        for each in (first, other)
    ]
    return paired_samples(*counts, *present, clusters=clusters, statistic=rule.of_samples)


def _differing(graded: Graded, other: Graded) -> int | None:
    """Count items of which some answer gets another score by the other rule."""
    if not other.scores:
        return None
    return sum(
        any(
            differs(mine[place], theirs[place])
            for mine, theirs in zip(graded.scores, other.scores, strict=True)
        )
        for place in range(len(graded.scores[0]))
    )


def breakdown(
    items: Sequence[Item], task: Task, paper: Graded, strict: Graded
) -> dict[str, dict[str, Any]]:
    """Return tables of the first metric: by group, by class, and confusion matrices."""
    pair = {PAPER: paper, STRICT: strict}
    result: dict[str, dict[str, Any]] = {"groups": {}}
    for group in sorted({name for item in items for name in item.groups}):
        members: dict[str, list[int]] = {}
        for place, item in enumerate(items):
            if group in item.groups:
                members.setdefault(item.groups[group], []).append(place)
        result["groups"][group] = {
            value: {"n": len(places)}
            | {name: value_of(graded, places) for name, graded in pair.items()}
            for value, places in sorted(members.items())
        }
    if task in _CLASSES:
        by_class: dict[str, list[int]] = {}
        for place, item in enumerate(items):
            by_class.setdefault(item.label, []).append(place)
        result["per_class"] = {
            label: {"n": len(places)}
            | {name: _right(graded, places) for name, graded in pair.items()}
            for label, places in sorted(by_class.items())
        }
        result["confusion"] = {
            name: _confusion(items, graded) for name, graded in pair.items() if graded.scores
        }
    return result


def value_of(graded: Graded, places: Sequence[int]) -> float | None:
    """Return the figure of some items alone, mean over draws."""
    if not graded.scores:
        return None
    rule, values = graded.scored_by, []
    for draw in graded.scores:
        counts = [draw[place].counts for place in places if draw[place].counts]
        if not counts:
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            if rule.of_samples is not None:
                values.append(rule.of_samples(np.array(counts), np.ones(len(counts))))
            else:
                values.append(rule.statistic(np.sum(counts, axis=0)))
    return number(float(np.mean(values)))


def _right(graded: Graded, places: Sequence[int]) -> float | None:
    """Return the share of answers whose score is 1."""
    if not graded.scores:
        return None
    return float(np.mean([draw[place].value == 1 for draw in graded.scores for place in places]))


def _confusion(items: Sequence[Item], graded: Graded) -> dict[str, dict[str, int]]:
    table: dict[str, Counter[str]] = {}
    for draw in graded.scores:
        for item, score in zip(items, draw, strict=True):
            table.setdefault(item.label, Counter())[score.parsed or UNPARSED] += 1
    return {true: dict(sorted(row.items())) for true, row in sorted(table.items())}
