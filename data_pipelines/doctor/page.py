"""The doctor's findings as text for the terminal and as one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from ltu_jax.core.html import render

_MOST_BARS = 30
_UNITS = {"seconds": "s", "level": "dBFS", "tokens": "tokens", "characters": "characters"}


def verdict(check: Mapping[str, Any]) -> str:
    """Return `ok`, `note` (found, within its limit) or `BAD`."""
    if not check["ok"]:
        return "BAD"
    return "note" if check["found"] else "ok"


def summary(report: Mapping[str, Any]) -> str:
    """Write the terminal's text: totals, coverage, and every check that found something."""
    lines = [
        f"{report['data']} ({report['kind']}): {report['clips']} clips, {report['pairs']} pairs, "
        f"{report['seconds'] / 3600:.2f} h heard of {report['heard']} clips",
        "",
        *_columns([("split", "dataset", "clips", "pairs", "hours"), *_coverage(report)], text_to=2),
        "",
    ]
    reported = [check for check in report["checks"] if check["found"]]
    lines += _columns(
        [
            ("", "found", "of", "share", "limit", "what"),
            *((*_figures(check), f"{check['title']} [{check['name']}]") for check in reported),
        ],
        text_to=1,
    )
    lines.append("")
    for name, of in report["licences"].items():
        text = "; ".join(f"{licence} ({clips})" for licence, clips in of.items())
        lines.append(f"licence of {name}: {text}")
    if tokens := report["tokens"]:
        share = tokens["lost"] / max(1, tokens["total"])
        lines.append(f"\ncut-off {tokens['cutoff']}: {share:.2%} of all text tokens are cut")
    for check in reported:
        if not check["ok"]:
            lines.append(f"\n{check['title']}:")
            lines += [f"  {item['where']}: {item['what']}" for item in check["examples"][:5]]
    bad = [check["name"] for check in reported if not check["ok"]]
    end = f"healthy: {len(report['checks'])} checks within their limits"
    if bad:
        end = f"NOT healthy: {', '.join(bad)}"
    # A name may hold what a terminal would obey or cannot write.
    text = "\n".join([*lines, "", end])
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def html(report: Mapping[str, Any]) -> str:
    """Write the whole report as a page."""
    marks = {"seconds": 10.0, "tokens": (report["tokens"] or {}).get("cutoff")}
    return render(
        "data_pipelines.doctor",
        "page.html.j2",
        report=report,
        checks=[(check["title"], *_figures(check)) for check in report["checks"]],
        coverage=_coverage(report),
        tasks={split: _bars(named) for split, named in report["tasks"].items()},
        plots={
            name: _plot(
                histogram["edges"], histogram["counts"], unit=_UNITS[name], line=marks.get(name)
            )
            for name, histogram in report["histograms"].items()
        },
        lengths=[
            (task, *(f"{of.get(key, 0):,}" for key in ("pairs", "cut", "answers gone")))
            for task, of in (report["tokens"] or {"tasks": {}})["tasks"].items()
        ],
        licences=[
            (dataset, licence, f"{clips:,}")
            for dataset, of in report["licences"].items()
            for licence, clips in of.items()
        ],
    )


def _figures(check: Mapping[str, Any]) -> tuple[str, ...]:
    """Return verdict, count, total, share and limit of a check."""
    return (
        verdict(check),
        f"{check['found']:,}",
        f"{check['of']:,} {check['unit']}",
        f"{check['share']:.2%}",
        "-" if check["limit"] == 1 else f"{check['limit']:.2%}",
    )


def _coverage(report: Mapping[str, Any]) -> list[tuple]:
    return [
        (split, name, of["clips"], of["pairs"], f"{of.get('seconds', 0) / 3600:.2f}")
        for split, datasets in report["datasets"].items()
        for name, of in datasets.items()
    ]


def _bars(named: Mapping[str, Mapping[str, int]]) -> list[tuple[str, int]]:
    """List (task, pairs), the most frequent first, rare ones together."""
    most = sorted(named.items(), key=lambda item: -item[1]["pairs"])
    values = [
        (f"{name} ({'closed' if of.get('closed') else 'open'})", of["pairs"])
        for name, of in most[:_MOST_BARS]
    ]
    rest = sum(counts["pairs"] for _, counts in most[_MOST_BARS:])
    return [*values, (f"{len(most) - _MOST_BARS} other tasks", rest)] if rest else values


def _plot(
    edges: Sequence[float], counts: Sequence[int], *, unit: str, line: float | None
) -> dict[str, Any]:
    """Cut a histogram to the bins that hold anything; `mark` is where `line` lies, in bins."""
    used = [place for place, count in enumerate(counts) if count] or [0, len(counts) - 1]
    edges, counts = edges[used[0] : used[-1] + 2], counts[used[0] : used[-1] + 1]
    mark = None
    if line is not None and edges[0] <= line < edges[-1]:
        place = max(number for number, edge in enumerate(edges) if edge <= line)
        mark = place + (line - edges[place]) / (edges[place + 1] - edges[place])
    elif line == edges[-1]:
        mark = len(counts)
    return {"edges": edges, "counts": counts, "unit": unit, "mark": mark}


def _columns(rows: Sequence[Sequence[Any]], *, text_to: int) -> list[str]:
    """Align rows as lines; the first `text_to` columns and the last of six are flush left."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < text_to or place == 5 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
