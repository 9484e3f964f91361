"""What an evaluation leaves behind: a table for the terminal, a PNG, and the summary file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, write_json

# Okabe-Ito: told apart with any colour vision and in grey print.
_COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#009E73", "#999999")
_FIGURE = ("value", "low", "high", "n")


def summary_tasks(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The part of the figures that the summary holds: chance; value, low, high, n of each mode."""
    return {
        row: {
            key: {name: value[name] for name in _FIGURE} if isinstance(value, Mapping) else value
            for key, value in entry.items()
            if key == "chance" or isinstance(value, Mapping)
        }
        for row, entry in figures.items()
    }


def merge_summary(path: Path, tasks: Mapping[str, Mapping[str, Any]]) -> None:
    """Put `tasks` in the summary file at `path`, in place of older ones; the rest of it stays."""
    summary = read_json(path) if path.exists() else {"seconds": {}}
    if not isinstance(summary, dict):
        raise UserError(
            f"{path} holds {json.dumps(summary)[:40]}, not a summary: give another file"
        )
    write_json(path, {**summary, "tasks": dict(tasks)})


def table(figures: Mapping[str, Mapping[str, Any]], *, modes: Sequence[str]) -> str:
    """The figures as text: one line a row, one column a mode, intervals in brackets."""
    lines = [["task", "metric", "n", "chance", *modes]]
    for row, entry in figures.items():
        cells = [
            f"{entry[mode]['value']:.2f} [{entry[mode]['low']:.2f}, {entry[mode]['high']:.2f}]"
            for mode in modes
        ]
        n = str(entry[modes[0]]["n"])
        lines.append([row, entry["metric"], n, f"{entry['chance']:.2f}", *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def plot(
    figures: Mapping[str, Mapping[str, Any]], path: Path, *, modes: Sequence[str], title: str
) -> None:
    """Grouped bars with 95 % intervals and the chance level of each row, as a PNG at `path`.

    Word error rates stand in a panel of their own, because there less is better.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    errors = [row for row, entry in figures.items() if entry["metric"] == "WER"]
    others = [row for row in figures if row not in errors]
    panels = [("higher is better", others), ("word error rate: lower is better", errors)]
    panels = [(label, rows) for label, rows in panels if rows]
    figure = Figure(figsize=(2.2 + 1.5 * len(figures), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        1, len(panels), squeeze=False, width_ratios=[len(rows) for _, rows in panels]
    )[0]
    width = 0.8 / len(modes)
    for axis, (label, rows) in zip(axes, panels, strict=True):
        for place, mode in enumerate(modes):
            bars = [figures[row][mode] for row in rows]
            centres = [at + (place - (len(modes) - 1) / 2) * width for at in range(len(rows))]
            axis.bar(
                centres,
                [bar["value"] for bar in bars],
                width=width,
                color=_COLOURS[place % len(_COLOURS)],
                label=mode if axis is axes[0] else None,
                # A percentile interval of few samples can lie beside the value; a bar's cannot.
                yerr=[
                    [max(bar["value"] - bar["low"], 0) for bar in bars],
                    [max(bar["high"] - bar["value"], 0) for bar in bars],
                ],
                error_kw={"elinewidth": 0.9, "capsize": 2},
            )
        for at, row in enumerate(rows):
            chance = figures[row]["chance"]
            axis.hlines(chance, at - 0.45, at + 0.45, colors="black", linestyles="dashed", lw=1)
        names = [
            f"{row.replace('_', ' ')}\n{figures[row]['metric']}, n={figures[row][modes[0]]['n']}"
            for row in rows
        ]
        axis.set_xticks(range(len(rows)), names, fontsize=8)
        axis.set_xlim(-0.6, len(rows) - 0.4)
        axis.set_ylim(bottom=0)
        axis.set_title(label, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].plot([], [], color="black", linestyle="dashed", lw=1, label="chance")
    figure.legend(loc="outside lower center", ncols=len(modes) + 1, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
