"""Choice of the figures of a metrics.json that reports show, and the form of their numbers."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.scoring.interface import RULES

MODEL = "model"  # the system of a figure that is not a baseline
UNPARSED = "(unparsed)"  # the column of a confusion matrix for answers that name no class
# What each rule is defined with comes first; the other only where that was not run.
_DECODINGS = {"paper": ("sampling", "greedy", None), "strict": ("greedy", "sampling", None)}
# Okabe-Ito: told apart with any colour vision and in grey print.
COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#009E73", "#999999", "#CC79A7", "#D55E00")
_WIDE = ("CIDEr-D", "SPIDEr")
_NOT_COUNTED = dict.fromkeys(
    ("low", "high", "missing", "unparsed", "refused", "draws", "spread", "differ")
)

Figure = Mapping[str, Any]


def rows(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the rows of a metrics.json that have figures, in their order.

    A chance level is computed, not counted: what its figure does not have is None.
    """
    if not isinstance(metrics.get("rows"), Mapping):
        raise UserError("a metrics.json without 'rows': run `evaluate rescore` on its folder")
    return {
        name: {**row, "figures": [{**_NOT_COUNTED, **figure} for figure in row["figures"]]}
        for name, row in metrics["rows"].items()
        if row["figures"]
    }


def distinct(values: Iterable[Any]) -> list[Any]:
    """Return each value once, in order of first appearance."""
    return list(dict.fromkeys(values))


def metric_names(row: Mapping[str, Any]) -> list[str]:
    """Return the metrics of a row, the main one first."""
    return distinct(figure["metric"] for figure in row["figures"])


def systems(row: Mapping[str, Any]) -> list[str]:
    """Return the systems that have figures in a row: the model first, then the baselines."""
    names = distinct(figure["system"] for figure in row["figures"])
    return sorted(names, key=lambda name: name != MODEL)


def find_figure(
    row: Mapping[str, Any],
    *,
    metric: str,
    rule: str,
    mode: str | None,
    system: str = MODEL,
    decodings: Sequence[str | None] | None = None,
) -> Figure | None:
    """Return the figure that these describe, of the first of `decodings` that has one, or None.

    Without `decodings`, it is the rule's own: sampling for paper, greedy for strict, else the
    other one.
    """
    for decoding in decodings or _DECODINGS[rule]:
        for figure in row["figures"]:
            key_values = (figure[key] for key in ("metric", "rule", "mode", "system", "decoding"))
            if (*key_values,) == (metric, rule, mode, system, decoding):
                return figure
    return None


def foreign_decoding(figure: Figure) -> str:
    """Return the decoding of a figure where it is not its rule's own."""
    if figure["decoding"] in (None, _DECODINGS[figure["rule"]][0]):
        return ""
    return figure["decoding"]


def higher_is_better(row: Mapping[str, Any], metric: str) -> bool:
    """Tell whether more of a row's metric is better."""
    return next(figure["higher"] for figure in row["figures"] if figure["metric"] == metric)


def unit(metric: str) -> str:
    """Return the unit of a metric: "years", or "%" for shares, which are multiplied by 100."""
    return "years" if metric.startswith("MAE") else "%"


def scaled(value: float, metric: str) -> float:
    """Return a figure in the unit of `unit`, which is that of the papers' tables."""
    return value if unit(metric) == "years" else 100 * value


def number(value: float | None, metric: str, *, sign: bool = False) -> str:
    """Return a figure with one decimal, "-" where there is none or it is undefined."""
    if value is None or math.isnan(value):
        return "-"
    rounded = round(scaled(value, metric), 1) + 0.0  # + 0.0 makes 0.0 of -0.0
    return f"{rounded:{'+' if sign else ''}.1f}"


def interval(figure: Figure) -> str:
    """Return the 95 % interval in brackets, or nothing."""
    if figure["low"] is None or figure["high"] is None:
        return ""
    low, high = (number(figure[key], figure["metric"]) for key in ("low", "high"))
    return f"[{low}, {high}]"


def standard_deviation(figure: Figure) -> str:
    """Return the standard deviation over draws as ±, or nothing."""
    if figure["spread"] is None or figure["value"] is None:
        return ""
    return f"±{number(figure['spread'], figure['metric'])}"


def p_value(p: float | None) -> str:
    """Return a p-value with three decimals, "-" where there is none or it is undefined."""
    if p is None or math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def of_both_rules(paper: Figure | None, strict: Figure | None, key: str) -> str:
    """Return a count of both rules: one number where they agree, else "paper/strict"."""
    figures = [
        str(figure[key])
        for figure in (paper, strict)
        if figure is not None and figure[key] is not None
    ]
    return "/".join(distinct(figures)) or "-"


def left_out(row: Mapping[str, Any]) -> list[str]:
    """List what was not computed and why: "SPICE (paper): not computed: ...", each once."""
    rules: dict[tuple[str, str], set[str]] = {}
    for figure in row["figures"]:
        if figure["not_computed"]:
            rules.setdefault((figure["metric"], figure["not_computed"]), set()).add(figure["rule"])
    return [
        f"{metric}{'' if own == set(RULES) else f' ({min(own)})'}: {reason}"
        for (metric, reason), own in rules.items()
    ]


def wrapped(title: str, *, inches: float) -> str:
    """Break a picture's title into lines that fit its width in 10-point type."""
    return textwrap.fill(title, width=int(11 * inches))


def panels(metrics: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Group rows and metrics with a strict figure of the model by what can share an axis."""
    by_panel: dict[str, list[tuple[str, str]]] = {}
    for name, row in rows(metrics).items():
        for metric in metric_names(row):
            figures = [
                find_figure(row, metric=metric, rule="strict", mode=mode)
                for mode in metrics["modes"]
            ]
            if any(figure is not None and figure["value"] is not None for figure in figures):
                by_panel.setdefault(panel(row, metric), []).append((name, metric))
    return dict(sorted(by_panel.items()))


def panel(row: Mapping[str, Any], metric: str) -> str:
    """Return the title of the axis that a metric belongs on: direction, unit and range.

    CIDEr-D ends at 10 and SPIDEr, its mean with SPICE, at 5.5, where the others end at 1.
    """
    better = "higher" if higher_is_better(row, metric) else "lower"
    wide = f", {' and '.join(_WIDE)}" if metric in _WIDE else ""
    return f"{better} is better, {'x 100' if unit(metric) == '%' else unit(metric)}{wide}"


def differences(
    row: Mapping[str, Any],
) -> dict[tuple[str, str, str], dict[str, Mapping[str, Any]]]:
    """Return (metric, with, without) -> rule -> difference, of the rule's own decoding if there.

    Differences of figures that are undefined are left out.
    """
    by_system: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for rule in RULES:
        for decoding in _DECODINGS[rule]:
            for difference in row.get("grounding", ()):
                own = (difference["rule"], difference["decoding"]) == (rule, decoding)
                if own and difference["difference"] is not None:
                    of_rule = by_system.setdefault(
                        (difference["metric"], difference["with"], difference["without"]), {}
                    )
                    of_rule.setdefault(rule, difference)
    return by_system
