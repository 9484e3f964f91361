"""One page for any number of runs, beside the published scores: report.html, complete in itself.

Nothing is fetched and no script runs. All text from data and models is escaped.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_file, read_json
from ltu_jax.core.outputs import Maker, text_with
from ltu_jax.evaluation.report import formatting, html_run, published_scores
from ltu_jax.evaluation.report.html_run import ReportedRun
from ltu_jax.evaluation.report.markup import NONE, grid, pair, text, two_line_head, words

_STYLE = """
html { font-size: 15px; }
body { font: 1rem/1.45 system-ui, "DejaVu Sans", sans-serif; color: #1a1a1a; background: #fff;
  margin: 2rem auto; max-width: 84rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; }
h2 { font-size: 1.3rem; border-top: 2px solid #0072b2; padding-top: .6rem; margin-top: 2.6rem; }
h3 { font-size: 1.15rem; margin: 1.8rem 0 .3rem; color: #004a75; }
h4 { font-size: .95rem; margin: 1.2rem 0 .2rem; }
p.note, small { color: #555; }
p.note { font-size: .87rem; margin: .3rem 0; }
p.missing { border-left: 4px solid #e69f00; padding-left: .6rem; font-size: .87rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; margin: .5rem 0; }
th, td { padding: .22rem .45rem; border-bottom: 1px solid #ddd; text-align: right;
  vertical-align: top; font-variant-numeric: tabular-nums; }
th { background: #f2f6fa; vertical-align: bottom; }
td.text, th.text { text-align: left; }
td.system { text-align: left; min-width: 9rem; overflow-wrap: anywhere; }
td.said { text-align: left; white-space: pre-wrap; overflow-wrap: anywhere;
  unicode-bidi: isolate; min-width: 7rem; }
td.said small { white-space: pre-wrap; }
td small { display: block; white-space: nowrap; font-size: .76rem; }
tr.first td { border-top: 2px solid #b8c4ce; }
tr.ours td { background: #fff8e6; }
tr.baseline td { color: #555; font-style: italic; }
img { display: block; max-width: 100%; max-height: 36rem; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem; }
.pair img { width: 48%; min-width: 18rem; object-fit: contain; }
.large img { max-height: none; max-width: min(100%, 60rem); }
summary { cursor: pointer; font-size: .9rem; margin: .8rem 0 .3rem; }
pre { font-size: .78rem; white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6;
  padding: .6rem; }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  html { font-size: 10px; }
  body { margin: 0; padding: 0; max-width: none; }
  h3, h4, p.note { break-after: avoid; }
  tr, img { break-inside: avoid; }
  thead { display: table-header-group; }
  .scroll { overflow: visible; }
  th, td { padding: 1px 3px; }
  img { max-height: 11cm; } .large img { max-height: 17cm; }
}
"""
_KEYS = ("benchmark", "split", "source", "system", "modes", "config", "rows")
# Not even a hole in the escaping would load or run anything.
MAKER = Maker(
    name="`python -m ltu_jax.evaluate`",
    folder=False,
    before=text_with("<!DOCTYPE html>", "<title>Evaluation report</title>"),
)
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write(folders: Sequence[Path], out: Path) -> None:
    """Write the report of the runs in `folders` to `out`.

    Each folder holds a metrics.json; samples.jsonl and the pictures that `report` and `plots` draw
    are shown where they are there.

    Raises:
        UserError: no folder, one without metrics.json, or a samples.jsonl that is broken.
    """
    if not folders:
        raise UserError("a report of no runs: give at least one folder that `evaluate` wrote")
    runs = []
    for folder in folders:
        if not (folder / "metrics.json").is_file():
            raise UserError(f"{folder} has no metrics.json: give folders that `evaluate` wrote")
        runs.append(ReportedRun(folder=folder, metrics=_metrics(folder / "metrics.json")))
    contents = "".join(
        f'<li><a href="#run{place}">{text(run.title)}: {text(run.metrics["system"])}</a></li>'
        for place, run in enumerate(runs)
    )
    body = [
        "<h1>Evaluation report</h1>",
        "<p>Every figure in two readings. <b>paper</b>: the published rules exactly, with "
        "sampled answers. <b>strict</b>: nothing dropped, substituted or guessed, so an answer "
        "that is missing or names no class is wrong; greedy answers. Where a run has only the "
        "other kind of answers, its figures are of those. Figures are multiplied by 100, "
        "except years (MAE). In brackets: 95 % bootstrap interval over clips or speakers. "
        "±: standard deviation over draws. <b>differ</b>: items that the two readings score "
        "apart on the same answer.</p>",
        f"<ul>{contents}</ul>",
        _poster(runs),
        _side_by_side(runs),
        *(html_run.section(run, f"run{place}") for place, run in enumerate(runs)),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation report</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )
    with atomic_file(out, MAKER) as temporary:
        # The name of a folder may be no text in any encoding.
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _metrics(path: Path) -> dict[str, Any]:
    metrics = read_json(path)
    if not isinstance(metrics, dict) or (lacking := [key for key in _KEYS if key not in metrics]):
        what = ", ".join(lacking) if isinstance(metrics, dict) else "all that it should hold"
        raise UserError(f"{path} lacks {what}: run `evaluate rescore` on its folder")
    return metrics


def _poster(runs: Sequence[ReportedRun]) -> str:
    """The published table, and beneath it what the runs reach on the same benchmarks."""
    lines = [
        f'<tr><td class="system">{text(name)}</td>'
        f"{''.join(f'<td>{text(score)}</td><td></td>' for score in scores)}</tr>"
        for name, scores in published_scores.PUBLISHED.items()
    ]
    ours: list[str] = []
    for system in formatting.distinct(run.metrics["system"] for run in runs):
        left = [run for run in runs if run.metrics["system"] == system]
        while left:  # two runs of one benchmark get lines of their own
            line = {run.title: run for run in reversed(left)}.values()
            left = [run for run in left if all(run is not own for own in line)]
            ours += _poster_lines(system, list(line))
    return (
        "<h2>Beside the published scores</h2>"
        f'<p class="note">Published: {text(published_scores.SOURCE)}, under the paper rules. '
        f"{'' if ours else 'None of these runs is of one of these benchmarks.'}</p>"
        + grid(
            two_line_head(["system"], (text(one.title) for one in published_scores.COLUMNS)),
            [*lines, *ours],
        )
    )


def _poster_lines(system: str, runs: Sequence[ReportedRun]) -> list[str]:
    """A line for each mode in which these runs, of different benchmarks, have any figure."""
    lines = []
    for mode in published_scores.MODES:
        cells = []
        for column in published_scores.COLUMNS:
            rows = [published_scores.measured(run.metrics, column) for run in runs]
            row = next((row for row in rows if row is not None), None)
            cells.append(pair(row, metric=column.metric, mode=mode))
        if any(cell != NONE * 2 for cell in cells):
            name = f'<td class="system">{text(system)}<small>{mode}</small></td>'
            lines.append(f'<tr class="ours">{name}{"".join(cells)}</tr>')
    return lines


def _alike(runs: Sequence[ReportedRun], row: str) -> list[list[ReportedRun]]:
    """The runs that have a row, by what it asked and expected there."""
    groups: dict[str, list[ReportedRun]] = {}
    for run in runs:
        if row in formatting.rows(run.metrics):
            groups.setdefault(run.questions(row), []).append(run)
    return list(groups.values())


def _told_apart(row: str, groups: Sequence[Sequence[ReportedRun]]) -> str:
    """Why a row has several lines."""
    told = "; ".join(
        f"{', '.join(str(run.folder) for run in members)}: "
        f"{formatting.rows(members[0].metrics)[row]['n']} items"
        for members in groups
    )
    return (
        f'<p class="missing">{text(row)}: these runs asked other items or expect other answers, so '
        f"they share no line ({text(told)}). `evaluate compare` takes the items of both.</p>"
    )


def _side_by_side(runs: Sequence[ReportedRun]) -> str:
    """A table for each benchmark that several runs have, in each run's first mode."""
    parts = []
    for title in formatting.distinct(run.title for run in runs):
        own = [run for run in runs if run.title == title]
        if len(own) < 2:
            continue
        titles = (
            f"{text(run.metrics['system'])}<br><small>{text(run.folder)}, "
            f"{text(run.metrics['modes'][0])}</small>"
            for run in own
        )
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
                apart[name] = groups
            for members in groups:
                cells = "".join(
                    pair(
                        formatting.rows(run.metrics).get(name) if run in members else None,
                        metric=metric,
                        mode=run.metrics["modes"][0],
                    )
                    for run in own
                )
                lines.append(f"<tr>{words(name, metric)}{cells}</tr>")
        parts += [f"<h3>{text(title)}</h3>", grid(two_line_head(["row", "metric"], titles), lines)]
        parts += [_told_apart(name, groups) for name, groups in apart.items()]
    return f"<h2>Runs side by side</h2>{''.join(parts)}" if parts else ""
