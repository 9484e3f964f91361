"""Tables of an evaluation for the terminal, and the summary file of several."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, write_json
from ltu_jax.evaluation.report import formatting

_SUMMARY = ("value", "low", "high", "n")
_VERSUS_WHISPER = "WER vs Whisper"
_COUNTS = ("n", "missing", "unparsed", "refused", "differ")


def summary_tasks(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the figures that the summary holds: chance; value, low, high, n of each mode.

    Of each row, the strict figures of its first metric with greedy answers, and the level of the
    system "chance" where there is one; word errors against Whisper's transcript, if the row has
    them, as a row `<row>_vs_whisper`. Rows without such figures are left out.
    """
    tasks = {}
    for name, row in formatting.rows(metrics).items():
        first, *others = formatting.metric_names(row)
        entries = {name: first}
        if _VERSUS_WHISPER in others:
            entries[f"{name}_vs_whisper"] = _VERSUS_WHISPER
        for entry, metric in entries.items():
            by_name: dict[str, Any] = {}
            for mode in metrics["modes"]:
                figure = formatting.find_figure(
                    row, metric=metric, rule="strict", mode=mode, decodings=("greedy",)
                )
                if figure is not None and figure["value"] is not None:
                    by_name[mode] = {key: figure[key] for key in _SUMMARY}
            level = formatting.find_figure(
                row, metric=metric, rule="strict", mode=None, system="chance"
            )
            if by_name and level is not None and level["value"] is not None:
                by_name["chance"] = level["value"]
            if by_name:
                tasks[entry] = by_name
    return tasks


def merge_summary(path: Path, tasks: Mapping[str, Mapping[str, Any]]) -> None:
    """Put `tasks` in the summary file at `path`, in place of older ones; the rest of it stays."""
    write_json(path, {**read_summary(path), "tasks": dict(tasks)})


def read_summary(path: Path) -> dict[str, Any]:
    """Return the summary file at `path`, a new one where there is none.

    Raises:
        UserError: it is none: not a JSON object, or with `tasks` that are not figures by row.
    """
    summary = read_json(path) if path.exists() else {"seconds": {}}
    tasks = summary.get("tasks", {}) if isinstance(summary, dict) else None
    if not isinstance(tasks, dict) or not all(isinstance(row, dict) for row in tasks.values()):
        raise UserError(
            f"{path} holds {json.dumps(summary)[:40]}, not a summary: give another file"
        )
    return summary


def table(metrics: Mapping[str, Any]) -> str:
    """Return the figures as text, paper and strict side by side.

    One line for each row, metric and decoding, and beneath it one for each baseline, which stands
    in the first mode's columns. Intervals and counts are those of the first mode, and the counts
    "paper/strict" where the rules disagree; metrics.json and report.html have those of all modes.
    What was not computed, and full names of metrics, follow beneath.
    """
    modes = metrics["modes"]
    over = ["", "", "", "", *(text for mode in modes for text in (mode, "")), *[""] * len(_COUNTS)]
    head = ["row", "metric", "system", "answers", *(["paper", "strict"] * len(modes)), *_COUNTS]
    lines, beneath = [over, head], []
    config = metrics.get("config", {})
    beneath += [f"NOTE: {remark}" for remark in config.get("remarks", ())]
    if bad := config.get("bad_records"):
        beneath.append(f"NOTE: {len(bad)} records of the data could not be asked (config.json)")
    for name, row in formatting.rows(metrics).items():
        for metric in formatting.metric_names(row):
            for system in formatting.systems(row):
                lines += _lines(name, row, metric, system, modes)
            beneath += _full_names(row, metric)
        beneath += [f"{name}: {reason}" for reason in formatting.left_out(row)]
    beneath.append(
        "x 100, MAE in years; ± standard deviation over draws. Intervals (95 %, bootstrap) and "
        f"counts\nare those of mode {modes[0]}; differ: items that paper and strict score apart."
    )
    return "\n".join([_aligned(lines, left=4), *formatting.distinct(beneath)])


def _lines(
    name: str, row: Mapping[str, Any], metric: str, system: str, modes: Sequence[str]
) -> list[list[str]]:
    """Return a system's lines of one row and metric: one for each decoding that has a value."""
    of_system = [
        figure
        for figure in row["figures"]
        if figure["metric"] == metric and figure["system"] == system
    ]
    lines = []
    for decoding in formatting.distinct(figure["decoding"] for figure in of_system):
        own = {
            (figure["rule"], figure["mode"] or modes[0]): figure
            for figure in of_system
            if figure["decoding"] == decoding
        }
        if all(figure["value"] is None for figure in own.values()):
            continue
        cells = []
        for mode in modes:
            paper, strict = (own.get((rule, mode)) for rule in formatting.RULES)
            bounds = formatting.interval(strict) if strict and mode == modes[0] else ""
            cells.append(_value(paper) if paper else "-")
            cells.append(f"{_value(strict)} {bounds}".strip() if strict else "-")
        first = [own.get((rule, modes[0])) for rule in formatting.RULES]
        counts = [formatting.of_both_rules(*first, key) for key in _COUNTS]
        lines.append([name, metric, system, decoding or "", *cells, *counts])
    return lines


def _value(figure: formatting.Figure) -> str:
    return formatting.number(figure["value"], figure["metric"]) + formatting.standard_deviation(
        figure
    )


def _full_names(row: Mapping[str, Any], metric: str) -> list[str]:
    """Return what a short name stands for, where a rule's full name says more."""
    names = {
        figure["rule"]: figure["name"]
        for figure in row["figures"]
        if figure["metric"] == metric and figure["system"] == formatting.MODEL
    }
    named = [f"{rule} {name}" for rule, name in names.items() if name != metric]
    return [f"{metric}: {', '.join(named)}"] if named else []


def comparison_table(comparisons: Iterable[Mapping[str, Any]], left_out: Sequence[str] = ()) -> str:
    """Return the lines of `evaluate compare A B` as text.

    Args:
        comparisons: {"row", "metric", "rule", "mode", "decoding", "a", "b", "difference", "low",
            "high", "p", "mcnemar_p", "n", "better"} each; `difference` is b - a, p that of the
            sign-flip test, and `n` the number of items that both have.
        left_out: what could not be compared, a line each.
    """
    head = ["row", "metric", "rule", "mode", "answers", "A", "B", "B - A", "95 % interval", "p"]
    lines = [[*head, "McNemar p", "n common", "better"]]
    for item in comparisons:
        metric = item["metric"]
        low, high = (formatting.number(item[key], metric, sign=True) for key in ("low", "high"))
        lines.append(
            [
                *(str(item[key]) for key in ("row", "metric", "rule", "mode", "decoding")),
                *(formatting.number(item[key], metric) for key in ("a", "b")),
                formatting.number(item["difference"], metric, sign=True),
                f"[{low}, {high}]",
                *(formatting.p_value(item[key]) for key in ("p", "mcnemar_p")),
                str(item["n"]),
                _better(item),
            ]
        )
    beneath = [f"left out: {item}" for item in left_out]
    if len(lines) == 1:
        return "\n".join(["A and B have no items in common: nothing to compare.", *beneath])
    legend = (
        "x 100, MAE in years; n common: items that both have. p: the systems exchanged within "
        "clusters (clips,\nspeakers or recordings), exactly up to 12 of them; better: the run that "
        "is, where p < 0.05; too few: fewer than 6\nclusters, of which no test can find that. "
        "McNemar's p where no two items share a cluster. Each p is that of its line alone."
    )
    return "\n".join([_aligned(lines, left=5), legend, *beneath])


def _better(comparison: Mapping[str, Any]) -> str:
    """Return what a line of a comparison says of the two runs."""
    better = comparison.get("better", "")
    return f"{better} ({comparison['clusters']} clusters)" if better == "too few" else better


def _aligned(lines: Sequence[Sequence[str]], *, left: int) -> str:
    """Return cells in columns: the first `left` flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
