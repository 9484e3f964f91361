"""A run's folder scored: scores into samples.jsonl, figures into metrics.json, and pictures.

Nothing here needs the model: `evaluate rescore` is this alone.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltu_jax.core.files import write_json
from ltu_jax.core.jsonl import write_jsonl
from ltu_jax.evaluation.datasets.benchmarks import BENCHMARKS, BenchmarkRow
from ltu_jax.evaluation.datasets.item import EvaluationMode, Item
from ltu_jax.evaluation.report import formatting, html_report, plots, tables
from ltu_jax.evaluation.run import baselines
from ltu_jax.evaluation.run.aggregate import blank, breakdown, difference, figure
from ltu_jax.evaluation.run.grade import Graded, by_draw, grade_row, scores_of
from ltu_jax.evaluation.run.run_dir import CONFIG, EvaluationRun, tool_names
from ltu_jax.evaluation.run.samples import GREEDY, SAMPLING
from ltu_jax.evaluation.scoring.interface import RULES, STRICT, Tools


def grade_run(
    run: EvaluationRun, tools: Tools
) -> dict[tuple[str, EvaluationMode, str], list[Graded]]:
    """Grade the model's answers to all that was asked, by (row, mode, decoding)."""
    grades = {}
    for name, row in run.rows.items():
        items = [item for item in run.items if item.row == name]
        for mode, decoding in itertools.product(run.modes, run.config["decodings"]):
            grades[name, mode, decoding] = grade_row(
                items,
                row,
                outputs=by_draw(
                    run.samples,
                    items,
                    mode=mode,
                    decoding=decoding,
                    draws=row.draws if decoding == SAMPLING else 1,
                ),
                spoken_texts=run.spoken_texts,
                tools=tools,
            )
    return grades


def score(run: EvaluationRun, tools: Tools, *, throughput: Mapping[str, Any]) -> dict[str, Any]:
    """Write scores, metrics.json, the table, pictures and report.html; return the metrics."""
    grades = grade_run(run, tools)
    _write_scores(run, grades)
    config = {**run.config, "tools": tool_names(tools)}
    write_json(run.folder / CONFIG, config)
    metrics = {
        "benchmark": run.config["identity"]["benchmark"],
        "split": run.config["identity"]["split"],
        "source": BENCHMARKS[run.config["identity"]["benchmark"]].source,
        "system": run.config["system"],
        "modes": [str(mode) for mode in run.modes],
        "config": config,
        "rows": {name: _row(run, name, row, grades, tools) for name, row in run.rows.items()},
        "throughput": dict(throughput),
    }
    write_json(run.folder / "metrics.json", metrics)
    (run.folder / "results.txt").write_text(tables.table(metrics) + "\n", encoding="utf-8")
    picture = run.folder / "results.png"
    if formatting.panels(metrics):
        plots.bars(metrics, picture)
    else:  # every figure says why it was not computed
        picture.unlink(missing_ok=True)
    plots.write(metrics, run.folder)
    html_report.write([run.folder], run.folder / "report.html")
    return metrics


def _write_scores(
    run: EvaluationRun, grades: Mapping[tuple[str, EvaluationMode, str], Sequence[Graded]]
) -> None:
    """Write samples.jsonl again, each asked sample with its scores by both rules.

    One that is not asked now (of another mode, or beyond the limit) keeps no older score.
    """
    places: dict[str, int] = {}
    for row in run.rows:
        for place, item in enumerate(item for item in run.items if item.row == row):
            places[item.item_id] = place
    lines = []
    for key, sample in run.samples.items():
        graded = grades.get((sample["row"], key.mode, key.decoding))
        scores = {}
        if graded is not None and key.item_id in places:
            scores = scores_of(graded, draw=key.draw, place=places[key.item_id])
        lines.append({**sample, "scores": scores})
    write_jsonl(run.folder / "samples.jsonl", lines)


def _row(
    run: EvaluationRun,
    name: str,
    row: BenchmarkRow,
    grades: Mapping[tuple[str, EvaluationMode, str], Sequence[Graded]],
    tools: Tools,
) -> dict[str, Any]:
    """Return all figures of one row."""
    items = [item for item in run.items if item.row == name]
    clusters = [run.clusters[item.clip_id] for item in items]
    figures, grounding = [], []
    for mode, decoding in itertools.product(run.modes, run.config["decodings"]):
        figures += _figures(
            grades[name, mode, decoding],
            clusters,
            system=formatting.MODEL,
            mode=mode,
            decoding=decoding,
        )
    for system, outputs in _systems(run, items, row).items():
        graded = grade_row(
            items, row, outputs=[outputs], spoken_texts=run.spoken_texts, tools=tools
        )
        figures += _figures(graded, clusters, system=system, mode=None, decoding=None)
    figures += _chance(run, items, row)
    for decoding in run.config["decodings"]:
        grounding += _grounding(run, name, grades, clusters, decoding)
    entry = {
        "task": str(row.task),
        "n": len(items),
        "clips": len({item.clip_id for item in items}),
        "figures": figures,
        "grounding": grounding,
    }
    if EvaluationMode.JOINT in run.modes:
        first = {
            rule: grades[name, EvaluationMode.JOINT, _decoding_of(rule, run.config["decodings"])]
            for rule in RULES
        }
        entry |= breakdown(
            items, row.task, *(_main(first[rule], place) for place, rule in enumerate(RULES))
        )
    return entry


def _main(graded: Sequence[Graded], place: int) -> Graded:
    """Return the first metric that was computed, by the rule at `place`."""
    own = graded[place :: len(RULES)]
    return next((rule for rule in own if rule.scores), own[0])


def _decoding_of(rule: str, decodings: Sequence[str]) -> str:
    """Return the decoding that a rule's published or regression figure has, if it was run."""
    preferred = SAMPLING if rule == RULES[0] else GREEDY
    return preferred if preferred in decodings else decodings[0]


def _figures(graded: Sequence[Graded], clusters: Sequence[str], **where: Any) -> list[dict]:
    """Return figures of all metrics, paper and strict in turn."""
    result = []
    for paper, strict in zip(graded[::2], graded[1::2], strict=True):
        result.append(figure(paper, strict, clusters, **where))
        result.append(figure(strict, paper, clusters, **where))
    return result


def _systems(
    run: EvaluationRun, items: Sequence[Item], row: BenchmarkRow
) -> dict[str, Mapping[str, str]]:
    """Return answers that need no model of ours, by the name of what gave them."""
    by_system = {
        baselines.MAJORITY: baselines.majority(items, row),
        baselines.WHISPER: baselines.whisper_alone(items, row.task, run.spoken_texts),
    }
    own = {item.item_id for item in items}
    for system, outputs in run.systems.items():
        if own & outputs.keys():
            by_system[system] = outputs
    return {name: outputs for name, outputs in by_system.items() if outputs is not None}


def _chance(run: EvaluationRun, items: Sequence[Item], row: BenchmarkRow) -> list[dict[str, Any]]:
    result = []
    for metric in row.metrics:
        value = baselines.chance(items, row.task, metric.name, run.spoken_texts)
        if value is not None:
            name = f"{metric.name}, best guess without hearing"
            entry = blank(metric, name=name, rule=STRICT, system=baselines.CHANCE, n=len(items))
            result.append(entry | {"value": value})
    return result


def _grounding(
    run: EvaluationRun,
    name: str,
    grades: Mapping[tuple[str, EvaluationMode, str], Sequence[Graded]],
    clusters: Sequence[str],
    decoding: str,
) -> list[dict[str, Any]]:
    """Return what joint input adds to each other mode, by the row's first metric."""
    result = []
    if EvaluationMode.JOINT not in run.modes:
        return result
    for other, place in itertools.product(run.modes, range(len(RULES))):
        whole = _main(grades[name, EvaluationMode.JOINT, decoding], place)
        part = _main(grades[name, other, decoding], place)
        if other is EvaluationMode.JOINT:
            continue
        estimate = difference(whole, part, clusters)
        if estimate is not None and np.isfinite(estimate.value):
            result.append(
                {
                    "metric": whole.metric.name,
                    "rule": whole.rule,
                    "decoding": decoding,
                    "with": str(EvaluationMode.JOINT),
                    "without": str(other),
                    "difference": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                }
            )
    return result
