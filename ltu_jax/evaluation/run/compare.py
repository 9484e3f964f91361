"""Comparison of two runs, both graded by the same rules on the items they share."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.core.outputs import Maker, json_with
from ltu_jax.evaluation.datasets.benchmarks import BenchmarkRow
from ltu_jax.evaluation.datasets.item import EvaluationMode, Item
from ltu_jax.evaluation.metrics.significance import ENOUGH, Difference, mcnemar
from ltu_jax.evaluation.run.aggregate import difference, value_of
from ltu_jax.evaluation.run.grade import Graded, by_draw, grade_row, number
from ltu_jax.evaluation.run.run_dir import EvaluationRun
from ltu_jax.evaluation.run.samples import SAMPLING
from ltu_jax.evaluation.scoring.interface import Tools

LEVEL = 0.05  # of p, below which a line says which run is better


def compare(
    a: EvaluationRun, b: EvaluationRun, tools: Tools, *, left_out: list[str] | None = None
) -> list[dict[str, Any]]:
    """Return differences B - A for every row, metric, rule, mode and decoding of both runs.

    Items that only one run has, or that ask or expect something else there, are left out; an item
    without an answer stays in and counts as the rule says.

    Args:
        a, b: the runs.
        tools: what rules may need.
        left_out: gets a line for everything that only one run has and for each figure that cannot
            be compared, with the reason.

    Raises:
        UserError: the runs are of different benchmarks, or share no item or no figure.
    """
    names = [run.config["identity"]["benchmark"] for run in (a, b)]
    if names[0] != names[1]:
        raise UserError(
            f"{a.folder} is {names[0]}, {b.folder} is {names[1]}: compare one benchmark"
        )
    theirs = {item.item_id: item for item in b.items}
    common = [item for item in a.items if theirs.get(item.item_id) == item]
    if not common:
        raise UserError(f"{a.folder} and {b.folder} have no item in common")
    remarks = [] if left_out is None else left_out
    remarks += _unlike(a, b, common)
    comparisons = []
    for name, row in a.rows.items():
        items = [item for item in common if item.row == name]
        if not items:
            continue
        clusters = [a.clusters[item.clip_id] for item in items]
        for mode, decoding in itertools.product(a.modes, a.config["decodings"]):
            if mode not in b.modes or decoding not in b.config["decodings"]:
                continue
            pairs = zip(
                _graded(a, items, row, mode, decoding, tools),
                _graded(b, items, row, mode, decoding, tools),
                strict=True,
            )
            for mine, other in pairs:
                where = {"row": name, "mode": str(mode), "decoding": decoding}
                if (entry := _difference(mine, other, clusters)) is not None:
                    comparisons.append(where | entry)
                else:
                    reasons = [graded.not_computed for graded in (mine, other)]
                    remarks.append(
                        f"{name}, {mine.metric.name} ({mine.rule}), {mode}, {decoding}: "
                        f"{next(filter(None, reasons), 'not computed: no answer could be read')}"
                    )
    if not comparisons:
        raise UserError(
            f"{a.folder} and {b.folder} have no figure in common: "
            f"{_scope(a)}; {_scope(b)}. Run them alike, or give the tools that the figures need"
        )
    return comparisons


def _scope(run: EvaluationRun) -> str:
    return f"{run.folder} has modes {', '.join(run.modes)}, {' and '.join(run.config['decodings'])}"


MAKER = Maker(
    name="`python -m ltu_jax.evaluate compare`", folder=False, before=json_with("differences")
)


def _unlike(a: EvaluationRun, b: EvaluationRun, common: Sequence[Item]) -> list[str]:
    """List what only one of two runs has: rows, items, modes, decodings."""
    remarks = []
    shared = {item.item_id for item in common}
    for name in dict.fromkeys([*a.rows, *b.rows]):
        own = [{item.item_id for item in run.items if item.row == name} for run in (a, b)]
        alone = [len(ids - shared) for ids in own]
        if any(alone):
            remarks.append(
                f"{name}: {len(own[0] & shared)} items are the same; left out: {alone[0]} of A, "
                f"{alone[1]} of B, which the other does not have or asks otherwise"
            )
    kinds = {
        "mode": ([str(mode) for mode in a.modes], [str(mode) for mode in b.modes]),
        "decoding": (a.config["decodings"], b.config["decodings"]),
    }
    for kind, (mine, other) in kinds.items():
        for side, names, others in (("A", mine, other), ("B", other, mine)):
            remarks += [
                f"{kind} {name}: only {side} has it" for name in names if name not in others
            ]
    return remarks


def write(
    comparisons: Sequence[Mapping[str, Any]], path: Path, *, left_out: Sequence[str] = ()
) -> None:
    """Write the differences and what was left out as JSON."""
    write_json(
        path,
        {
            "differences": [dict(comparison) for comparison in comparisons],
            "left_out": list(left_out),
        },
        MAKER,
    )


def _graded(
    run: EvaluationRun,
    items: Sequence[Item],
    row: BenchmarkRow,
    mode: EvaluationMode,
    decoding: str,
    tools: Tools,
) -> list[Graded]:
    draws = row.draws if decoding == SAMPLING else 1
    outputs = by_draw(run.samples, items, mode=mode, decoding=decoding, draws=draws)
    return grade_row(items, row, outputs=outputs, spoken_texts=run.spoken_texts, tools=tools)


def _difference(a: Graded, b: Graded, clusters: Sequence[str]) -> dict[str, Any] | None:
    estimate = difference(b, a, clusters)
    if estimate is None:
        return None
    values = [value_of(graded, range(len(clusters))) for graded in (a, b)]
    entry = {
        "metric": a.metric.name,
        "rule": a.rule,
        "a": values[0],
        "b": values[1],
        "difference": number(estimate.value),
        "low": number(estimate.low),
        "high": number(estimate.high),
        "p": number(estimate.p),
        "n": len(clusters),
        "clusters": estimate.clusters,
        "better": _better(estimate, higher=a.metric.higher),
        "mcnemar_p": None,
    }
    if estimate.clusters < ENOUGH:
        entry |= {"low": None, "high": None}
    right = [_right(graded) for graded in (a, b)]
    # It takes every item for independent: false of several questions about one recording.
    if None not in right and estimate.clusters == len(clusters):
        entry["mcnemar_p"] = mcnemar(*right)
    return entry


def _better(estimate: Difference, *, higher: bool) -> str:
    """Return "A" or "B" where p is below 0.05, else why neither is said to be better."""
    if estimate.clusters < ENOUGH:
        return "too few"
    if not np.isfinite(estimate.p) or estimate.p >= LEVEL or estimate.value == 0:
        return "not shown"
    return "B" if (estimate.value > 0) == higher else "A"


def _right(graded: Graded) -> list[bool] | None:
    """Return right or wrong of each answer of a single draw; None for other metrics."""
    if len(graded.scores) != 1 or graded.metric.name != "accuracy":
        return None
    return [score.value == 1 for score in graded.scores[0]]
