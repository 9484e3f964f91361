"""Pictures of a run: bars of its figures, confusion matrices, what each input mode adds."""

import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.report import formatting

GROUNDING = "grounding.png"
_MOST_LABELS = 60  # more cannot be read on one axis
_MOST_COUNTS = 20  # classes up to which the counts fit into their cells
_LONGEST_LABEL = 28
_WIDEST = 10  # groups of bars in one line of a picture; what has more goes on beneath
_BASELINE_LINES = ("dashed", "dotted", "dashdot", (0, (3, 1, 1, 1, 1, 1)))


def confusion_path(folder: Path, row: str, rule: str) -> Path:
    """Return the file of a row's confusion matrix under a rule; rows never share one."""
    return folder / f"confusion_{urllib.parse.quote(row, safe='')}_{rule}.png"


def write(metrics: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Draw every confusion matrix and the grounding plot that a metrics.json has data for.

    Returns the files, in `folder`; those that an earlier run left and this one has no data for are
    deleted. Rows without classes have no matrix, and benchmarks of which one mode was run have no
    grounding plot.
    """
    for left in (folder / GROUNDING, *folder.glob("confusion_*.png")):
        left.unlink(missing_ok=True)
    made = []
    for name, row in formatting.rows(metrics).items():
        for rule, table in row.get("confusion", {}).items():
            path = confusion_path(folder, name, rule)
            confusion(table, path, title=f"{metrics['benchmark']}: {name}, {rule} rule, joint mode")
            made.append(path)
    if any(row.get("grounding") for row in formatting.rows(metrics).values()):
        grounding(metrics, folder / GROUNDING)
        made.append(folder / GROUNDING)
    return tuple(made)


def confusion(table: Mapping[str, Mapping[str, int]], path: Path, *, title: str) -> None:
    """Draw a confusion matrix as a PNG: colour is the share of the true class's answers.

    Columns are the true classes in the order of the rows, then classes that were only predicted,
    then answers that name no class. Counts are printed up to 20 classes, and of more than 60 only
    every k-th label.

    Args:
        table: true class -> predicted class or "(unparsed)" -> count.
        path: the PNG.
        title: above the matrix.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    if not table:
        raise UserError(f"{title}: no answers, so there is no confusion matrix for {path}")
    true = sorted(table)
    guessed = {name for row in table.values() for name in row}
    columns = true + sorted(guessed - {*true, formatting.UNPARSED})
    columns += [formatting.UNPARSED] if formatting.UNPARSED in guessed else []
    counts = np.array([[table[name].get(guess, 0) for guess in columns] for name in true])
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    side = float(np.clip(0.42 * len(columns), 2.6, 9.5))
    height = float(np.clip(0.42 * len(true), 1.6, 9.5))
    figure = Figure(figsize=(side + 2.6, height + 2.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    # One hue from light to dark: the same to every eye and in grey print. By the square root, or
    # among hundreds of classes a confusion of a few per cent would be as white as none.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    picture = axis.imshow(share, cmap="Blues", norm=norm, aspect="auto", interpolation="nearest")
    size = 8 if len(columns) <= _MOST_COUNTS else 6
    _labels(axis.set_xticks, columns, fontsize=size, rotation=90)
    _labels(axis.set_yticks, true, fontsize=size)
    if len(columns) <= _MOST_COUNTS + 1:
        for (down, right), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[down, right] > 0.3 else "black"
                axis.text(
                    right, down, f"{count}", ha="center", va="center", color=colour, fontsize=7
                )
    axis.set_xlabel("answered", fontsize=9)
    axis.set_ylabel("true", fontsize=9)
    axis.set_title(
        f"{title}\n{counts.sum():,} answers, {len(true)} classes", fontsize=9, parse_math=False
    )
    bar = figure.colorbar(picture, ax=axis, fraction=0.04, aspect=35, pad=0.02)
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1])
    bar.set_label("share of the true class", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _labels(place, names: Sequence[str], **style) -> None:
    """Set tick labels for every k-th name, and always for the answers that name no class."""
    step = -(-len(names) // _MOST_LABELS)
    labelled = list(range(0, len(names), step))
    last = len(names) - 1
    if names[last] == formatting.UNPARSED and last not in labelled:
        labelled[-1] = last  # its neighbour's label would lie on it
    short = [
        names[at] if len(names[at]) <= _LONGEST_LABEL else names[at][: _LONGEST_LABEL - 1] + "…"
        for at in labelled
    ]
    # parse_math=False, here and below: a "$" in a name that comes from data starts no formula.
    place(labelled, short, parse_math=False, **style)


def grounding(metrics: Mapping[str, Any], path: Path) -> None:
    """Draw what an input mode adds to another, with 95 % intervals, as a PNG at `path`.

    One line for each row, metric and pair of modes: the strict rule as a dot, the paper rule as a
    diamond. Metrics of another direction or unit have a panel of their own.

    Raises:
        UserError: no row compares modes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: dict[str, list[tuple[str, dict[str, Mapping[str, Any]]]]] = {}
    for name, row in formatting.rows(metrics).items():
        for (metric, more, less), of_rule in formatting.differences(row).items():
            label = f"{name.replace('_', ' ')}, {metric}: {more} − {less}"
            panels.setdefault(formatting.panel(row, metric), []).append((label, of_rule))
    if not panels:
        raise UserError(
            f"{metrics['benchmark']}: no two modes are compared, so there is nothing to draw in "
            f"{path}: run at least two modes"
        )
    panels = dict(sorted(panels.items()))
    lines = [len(own) for own in panels.values()]
    figure = Figure(figsize=(8, 1.1 + 0.27 * sum(lines) + 0.75 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        len(panels), 1, squeeze=False, height_ratios=[count + 1.5 for count in lines]
    )[:, 0]
    for axis, (title, own) in zip(axes, panels.items(), strict=True):
        _differences(axis, own)
        gain = "right" if title.startswith("higher") else "left"
        axis.set_title(f"{title}: {gain} of zero, the first mode is better", fontsize=9)
    axes[0].legend(loc="best", frameon=False, fontsize=8)
    title = f"{metrics['benchmark']}, {metrics['split']} split: {metrics['system']}"
    figure.suptitle(
        formatting.wrapped(f"What each mode adds. {title}", inches=8), fontsize=10, parse_math=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _differences(axis, own: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]]) -> None:
    """Draw dots, diamonds and their intervals, the first line on top."""
    styles = {
        "strict": {"fmt": "o", "color": formatting.COLOURS[0], "ms": 5},
        "paper": {"fmt": "D", "color": formatting.COLOURS[6], "ms": 4, "mfc": "white"},
    }
    for rule, style in styles.items():
        shift = 0.14 if rule == "strict" else -0.14
        points = [
            (at + shift, of_rule[rule]) for at, (_, of_rule) in enumerate(own) if rule in of_rule
        ]
        if not points:
            continue
        value, low, high = (
            np.array([formatting.scaled(point[key], point["metric"]) for _, point in points])
            for key in ("difference", "low", "high")
        )
        axis.errorbar(
            value,
            [at for at, _ in points],
            xerr=[np.maximum(value - low, 0), np.maximum(high - value, 0)],
            label=rule,
            elinewidth=1,
            capsize=2,
            **style,
        )
    axis.axvline(0, color="black", lw=0.8)
    axis.set_yticks(range(len(own)), [label for label, _ in own], fontsize=8, parse_math=False)
    axis.set_ylim(len(own) - 0.5, -0.5)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", color="#dddddd", lw=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def bars(metrics: Mapping[str, Any], path: Path) -> None:
    """Draw grouped bars of the strict figures with 95 % intervals, as a PNG at `path`.

    A diamond marks the paper figure of the same row and mode, lines the baselines. What has another
    direction, another unit or another range stands in a panel of its own, and a panel of many rows
    goes on beneath itself.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = formatting.panels(metrics)
    if not panels:
        raise UserError(
            f"{metrics['benchmark']}: no figure was computed, so there is nothing to draw in {path}"
        )
    lines = _arranged(panels)
    width = max(2.6 + 1.5 * max(sum(len(own) for _, own in line) for line in lines), 6)
    figure = Figure(figsize=(width, 0.9 + 3.9 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = []
    for part, line in zip(
        np.atleast_1d(figure.subfigures(len(lines), 1)).ravel(), lines, strict=True
    ):
        # A short line's panels get no wider bars than those of a full one.
        bars = [len(own) for _, own in line]
        free = max(sum(len(own) for _, own in each) for each in lines) - sum(bars)
        grid = part.add_gridspec(
            1, len(line) + (free > 0), width_ratios=[*bars, *[free] * (free > 0)]
        )
        for place, (title, own) in enumerate(line):
            axis = part.add_subplot(grid[0, place])
            _panel(axis, metrics, own)
            axis.set_title(formatting.wrapped(title, inches=max(1.5 * len(own), 2.6)), fontsize=9)
            axes.append(axis)
    drawn: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        drawn |= dict(zip(labels, handles, strict=True))
    order = [name for name in (*metrics["modes"], "paper") if name in drawn]
    order += [name for name in drawn if name not in order]
    legend = figure.legend(
        [drawn[name] for name in order],
        order,
        loc="outside lower center",
        ncols=int(width // 2),
        frameon=False,
        fontsize=8,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a "$" in a system's name starts no formula
    title = f"{metrics['benchmark']}, {metrics['split']} split: {metrics['system']}"
    figure.suptitle(formatting.wrapped(title, inches=width), fontsize=10, parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _arranged(
    panels: Mapping[str, Sequence[tuple[str, str]]],
) -> list[list[tuple[str, Sequence[tuple[str, str]]]]]:
    """Arrange panels in lines of at most `_WIDEST` groups of bars; larger ones are cut."""
    lines: list[list[tuple[str, Sequence[tuple[str, str]]]]] = []
    left = 0
    for title, own in panels.items():
        for start in range(0, len(own), _WIDEST):
            part = own[start : start + _WIDEST]
            if len(part) > left:
                lines.append([])
                left = _WIDEST
            lines[-1].append((title, part))
            left -= len(part)
    return lines


def _panel(axis, metrics: Mapping[str, Any], own: Sequence[tuple[str, str]]) -> None:
    """Draw bars, marks and lines of the rows and metrics `own` on one axis."""
    rows, modes = formatting.rows(metrics), metrics["modes"]
    baselines = formatting.distinct(
        system
        for row in rows.values()
        for system in formatting.systems(row)
        if system != formatting.MODEL
    )
    width = 0.8 / len(modes)
    names = []
    for at, (name, metric) in enumerate(own):
        row = rows[name]
        for place, mode in enumerate(modes):
            centre = at + (place - (len(modes) - 1) / 2) * width
            strict, paper = (
                formatting.find_figure(row, metric=metric, rule=rule, mode=mode)
                for rule in ("strict", "paper")
            )
            if strict is not None and strict["value"] is not None:
                _bar(
                    axis, centre, strict, width=width, colour=formatting.COLOURS[place], label=mode
                )
            if paper is not None and paper["value"] is not None:
                value = formatting.scaled(paper["value"], metric)
                axis.plot(
                    *(centre, value), "D", ms=4, mfc="white", mec="black", mew=0.8, label="paper"
                )
        for system in formatting.systems(row):
            level = formatting.find_figure(
                row, metric=metric, rule="strict", mode=None, system=system
            )
            if level is not None and level["value"] is not None:
                style = _BASELINE_LINES[baselines.index(system) % len(_BASELINE_LINES)]
                ends = (at - 0.45, at + 0.45)
                value = formatting.scaled(level["value"], metric)
                axis.hlines(value, *ends, colors="black", linestyles=style, lw=1, label=system)
        names.append(f"{name.replace('_', ' ')}\n{metric}\nn={row['n']}")
    axis.set_xticks(range(len(own)), names, fontsize=8, parse_math=False)
    axis.set_xlim(-0.6, len(own) - 0.4)
    axis.set_ylim(bottom=0)
    axis.spines[["top", "right"]].set_visible(False)


def _bar(axis, centre: float, figure: formatting.Figure, *, width: float, colour: str, label: str):
    value, low, high = (
        formatting.scaled(figure[key], figure["metric"]) for key in ("value", "low", "high")
    )
    axis.bar(
        centre,
        value,
        width=width,
        color=colour,
        label=label,
        # A percentile interval of few samples can lie beside the value; a bar's cannot.
        yerr=[[max(value - low, 0)], [max(high - value, 0)]],
        error_kw={"elinewidth": 0.9, "capsize": 2},
    )
