"""report.html: one page for any number of runs, beside the published scores, complete in itself.

Nothing is fetched and no script runs. The templates (`templates/`) lay out what is chosen here.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_file, read_json
from ltu_jax.core.html import png_source, render
from ltu_jax.core.jsonl import read_jsonl
from ltu_jax.core.outputs import Maker, text_with
from ltu_jax.evaluation.report import formatting, plots, published_scores, sample_answers

MAKER = Maker(
    name="`python -m ltu_jax.evaluate`",
    folder=False,
    before=text_with("<!DOCTYPE html>", "<title>Evaluation report</title>"),
)
_KEYS = ("benchmark", "split", "source", "system", "modes", "config", "rows")
_LONGEST = 400  # characters of an answer that are shown
_OPEN_CLASSES = 12  # a longer table of classes starts closed
_SIDE_BY_SIDE = 20  # classes up to which a matrix can be read at half the width
_COUNTS = ("differ", "n", "missing", "unparsed", "refused")

# The paper and the strict figure of a cell.
_Pair = list[Mapping[str, Any] | None]


def write(folders: Sequence[Path], out: Path) -> None:
    """Write the report of the runs in `folders` to `out`.

    Each folder holds a metrics.json; samples.jsonl and the pictures of `plots` are shown where they
    are there.

    Raises:
        UserError: no folder, one without metrics.json, or a samples.jsonl that is broken.
    """
    if not folders:
        raise UserError("a report of no runs: give at least one folder that `evaluate` wrote")
    runs = []
    for folder in folders:
        if not (folder / "metrics.json").is_file():
            raise UserError(f"{folder} has no metrics.json: give folders that `evaluate` wrote")
        runs.append(ReportedRun(folder=folder, metrics=_read_metrics(folder / "metrics.json")))
    page = render(
        __package__,
        "report.html.j2",
        f=formatting,
        runs=runs,
        published=published_scores,
        poster_titles=[(column.title, "") for column in published_scores.COLUMNS],
        poster_lines=_poster_lines(runs),
        side_by_side=_side_by_side(runs),
        figure_lines=_figure_lines,
        weakest_first=_weakest_first,
        counts=_COUNTS,
        longest=_LONGEST,
        open_classes=_OPEN_CLASSES,
        grounding_png=plots.GROUNDING,
    )
    with atomic_file(out, MAKER) as temporary:
        # The name of a folder may be no text in any encoding.
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _read_metrics(path: Path) -> dict[str, Any]:
    metrics = read_json(path)
    if not isinstance(metrics, dict) or (lacking := [key for key in _KEYS if key not in metrics]):
        what = ", ".join(lacking) if isinstance(metrics, dict) else "all that it should hold"
        raise UserError(f"{path} lacks {what}: run `evaluate rescore` on its folder")
    return metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """A folder that `evaluate` wrote and its metrics.json, as the templates show them."""

    folder: Path
    metrics: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The benchmark and its split: what makes figures comparable."""
        return f"{self.metrics['benchmark']}, {self.metrics['split']} split"

    @property
    def config(self) -> str:
        """The run's config.json as text."""
        return json.dumps(self.metrics["config"], indent=2, sort_keys=True, ensure_ascii=False)

    @property
    def throughput(self) -> str:
        """A sentence on how fast the answers came; "" where that is not known."""
        speed = self.metrics.get("throughput")
        if not speed or not speed.get("answers_per_second"):
            return ""
        text = f"{speed['answers']:,} answers in {speed['seconds']:.0f} s: "
        text += f"{speed['answers_per_second']:.1f} answers"
        if speed.get("audio_seconds_per_second"):
            text += f" and {speed['audio_seconds_per_second']:.1f} s of audio"
        return f"{text} a second."

    @functools.cached_property
    def answers(self) -> dict[str, list[sample_answers.SampleAnswer]]:
        """Example answers of each row."""
        samples = self.folder / "samples.jsonl"
        return sample_answers.choose(samples, self.metrics) if samples.is_file() else {}

    def picture(self, name: str) -> str:
        """Return a PNG of the folder as the source of an image; "" where there is none."""
        return png_source(self.folder / name)

    def confusion(self, name: str, row: Mapping[str, Any]) -> dict[str, str]:
        """Return image sources of the confusion matrices of a row, by rule."""
        paths = {
            rule: plots.confusion_path(self.folder, name, rule) for rule in row.get("confusion", {})
        }
        return {rule: png_source(path) for rule, path in paths.items() if path.is_file()}

    def small_matrices(self, row: Mapping[str, Any]) -> bool:
        """Tell whether the confusion matrices of a row can be read at half the width."""
        return all(len(table) <= _SIDE_BY_SIDE for table in row["confusion"].values())

    def questions(self, row: str) -> str:
        """Return a hash of what a row asked and expected.

        Figures of two runs may share a line where these agree. A folder without items.jsonl has the
        hash of all its data, which config.json keeps, and the number of items.
        """
        path = self.folder / "items.jsonl"
        if not path.is_file():
            known = self.metrics["config"].get("identity", {}).get("manifest")
            return f"{known} {formatting.rows(self.metrics).get(row, {}).get('n')}"
        items = [item for _, item in read_jsonl(path) if item.get("row") == row]
        texts = sorted(json.dumps(item, sort_keys=True) for item in items)
        return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _pair(row: Mapping[str, Any] | None, *, metric: str, mode: str) -> _Pair:
    """Return the model's paper and strict figure in a row."""
    if row is None:
        return [None, None]
    return [
        formatting.find_figure(row, metric=metric, rule=rule, mode=mode)
        for rule in formatting.RULES
    ]


def _poster_lines(runs: Sequence[ReportedRun]) -> list[tuple[str, str, list[_Pair]]]:
    """Return (system, mode, cells) of what the runs reach on the benchmarks of the poster."""
    lines = []
    for system in formatting.distinct(run.metrics["system"] for run in runs):
        left = [run for run in runs if run.metrics["system"] == system]
        while left:  # two runs of one benchmark get lines of their own
            line = {run.title: run for run in reversed(left)}.values()
            left = [run for run in left if all(run is not own for own in line)]
            lines += [(system, mode, cells) for mode, cells in _modes_of(list(line))]
    return lines


def _modes_of(runs: Sequence[ReportedRun]) -> list[tuple[str, list[_Pair]]]:
    """Return (mode, cells) for each mode in which runs of different benchmarks have a figure."""
    lines = []
    for mode in published_scores.MODES:
        cells = []
        for column in published_scores.COLUMNS:
            rows = [published_scores.measured(run.metrics, column) for run in runs]
            row = next((row for row in rows if row is not None), None)
            cells.append(_pair(row, metric=column.metric, mode=mode))
        if any(
            figure is not None and figure["value"] is not None for cell in cells for figure in cell
        ):
            lines.append((mode, cells))
    return lines


def _side_by_side(runs: Sequence[ReportedRun]) -> list[dict[str, Any]]:
    """Return a table for each benchmark that several runs have, in each run's first mode."""
    tables = []
    for title in formatting.distinct(run.title for run in runs):
        own = [run for run in runs if run.title == title]
        if len(own) < 2:
            continue
        entries = formatting.distinct(
            (name, metric)
            for run in own
            for name, row in formatting.rows(run.metrics).items()
            for metric in formatting.metric_names(row)
        )
        lines, apart = [], {}
        for name, metric in entries:
            groups = _alike(own, name)
            if len(groups) > 1:
                apart[name] = "; ".join(
                    f"{', '.join(str(run.folder) for run in members)}: "
                    f"{formatting.rows(members[0].metrics)[name]['n']} items"
                    for members in groups
                )
            for members in groups:
                rows = [formatting.rows(run.metrics) if run in members else {} for run in own]
                cells = [
                    _pair(row.get(name), metric=metric, mode=run.metrics["modes"][0])
                    for row, run in zip(rows, own, strict=True)
                ]
                lines.append((name, metric, cells))
        heads = [(run.metrics["system"], f"{run.folder}, {run.metrics['modes'][0]}") for run in own]
        tables.append({"title": title, "runs": heads, "lines": lines, "apart": apart.items()})
    return tables


def _alike(runs: Sequence[ReportedRun], row: str) -> list[list[ReportedRun]]:
    """Return the runs that have a row, grouped by what it asked and expected there."""
    groups: dict[str, list[ReportedRun]] = {}
    for run in runs:
        if row in formatting.rows(run.metrics):
            groups.setdefault(run.questions(row), []).append(run)
    return list(groups.values())


def _figure_lines(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a line for each metric, system, kind of answers and mode, the model's first."""
    lines = []
    for metric in formatting.metric_names(row):
        of_metric = [figure for figure in row["figures"] if figure["metric"] == metric]
        by_line: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
        for figure in of_metric:
            if figure["value"] is not None:
                key = (figure["system"], figure["decoding"], figure["mode"])
                by_line.setdefault(key, {})[figure["rule"]] = figure
        arrow = "↑" if formatting.higher_is_better(row, metric) else "↓"
        names = {
            figure["rule"]: figure["name"]
            for figure in of_metric
            if figure["system"] == formatting.MODEL
        }
        tools = {rule: name for rule, name in names.items() if name != metric}
        decodings = formatting.distinct(decoding for _, decoding, _ in by_line)
        entries = sorted(
            by_line.items(),
            key=lambda entry: (entry[0][0] != formatting.MODEL, decodings.index(entry[0][1])),
        )
        for place, ((system, decoding, mode), of_rule) in enumerate(entries):
            first, baseline = place == 0, system != formatting.MODEL
            draws = max(figure["draws"] or 1 for figure in of_rule.values())
            figures = [of_rule.get(rule) for rule in formatting.RULES]
            lines.append(
                {
                    "kind": " ".join(["first"] * first + ["baseline"] * baseline),
                    "metric": f"{metric} {arrow}" if first else "",
                    "tools": tools if first else {},
                    "system": system,
                    "answers": "\u00a0×\u00a0".join([decoding or "", *[str(draws)] * (draws > 1)]),
                    "mode": mode or "",
                    "figures": figures,
                    "counts": [formatting.of_both_rules(*figures, key) for key in _COUNTS],
                }
            )
    return lines


def _weakest_first(row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the share right of each class of a row, the weakest first."""
    classes = row.get("per_class") or {}
    return dict(sorted(classes.items(), key=lambda item: (item[1]["strict"] or 0, item[0])))
