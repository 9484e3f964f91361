"""The doctor's findings as text for the terminal and as one HTML file that needs nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_pipelines.doctor.charts import bars, histogram, text

_MOST_BARS = 30
_EXAMPLES = 20  # of a check on the page; the JSON has more
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --soft: #6b6b70; --line: #d8d8dc; --bar: #2f6db5;
  --paper: #fff; --bad: #b3261e; --good: #2e7d32; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececee; --soft: #a0a0a6; --line: #3a3a3e;
  --bar: #6ea8e6; --paper: #18181a; --bad: #ff8a80; --good: #81c784; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } .scroll { overflow-x: auto; }
th, td { text-align: right; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; } th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child, td.text { text-align: left; }
.bad { color: var(--bad); font-weight: 600; } .good { color: var(--good); }
.soft { color: var(--soft); } svg { width: 100%; max-width: 44rem; height: auto; }
svg text { font-size: 10px; fill: var(--soft); } svg .name { text-anchor: end; fill: var(--ink); }
svg .count, svg .unit { text-anchor: middle; } svg .unit { text-anchor: end; }
svg .bar { fill: var(--bar); } svg line.mark { stroke: var(--bad); stroke-dasharray: 4 3; }
svg text.mark { fill: var(--bad); } details { margin: .3rem 0; } li { overflow-wrap: anywhere; }
"""


def verdict(check: Mapping[str, Any]) -> str:
    """`ok`, `note` (found, within its limit) or `BAD`."""
    if not check["ok"]:
        return "BAD"
    return "note" if check["found"] else "ok"


def summary(report: Mapping[str, Any]) -> str:
    """What the terminal shows: totals, coverage, and every check that found something."""
    lines = [
        f"{report['data']} ({report['kind']}): {report['clips']} clips, {report['pairs']} pairs, "
        f"{report['seconds'] / 3600:.2f} h heard of {report['heard']} clips",
        "",
        *_columns([("split", "dataset", "clips", "pairs", "hours"), *_coverage(report)], text_to=2),
        "",
    ]
    found = [check for check in report["checks"] if check["found"]]
    lines += _columns(
        [
            ("", "found", "of", "share", "limit", "what"),
            *(
                (
                    verdict(check),
                    check["found"],
                    f"{check['of']} {check['unit']}",
                    f"{check['share']:.2%}",
                    "-" if check["limit"] == 1 else f"{check['limit']:.2%}",
                    f"{check['title']} [{check['name']}]",
                )
                for check in found
            ),
        ],
        text_to=1,
    )
    lines.append("")
    for name, of in report["licences"].items():
        shown = "; ".join(f"{licence} ({clips})" for licence, clips in of.items())
        lines.append(f"licence of {name}: {shown}")
    if tokens := report["tokens"]:
        share = tokens["lost"] / max(1, tokens["total"])
        lines.append(f"\ncut-off {tokens['cutoff']}: {share:.2%} of all text tokens are cut")
    for check in found:
        if not check["ok"]:
            lines.append(f"\n{check['title']}:")
            lines += [f"  {item['where']}: {item['what']}" for item in check["examples"][:5]]
    bad = [check["name"] for check in found if not check["ok"]]
    end = f"healthy: {len(report['checks'])} checks within their limits"
    if bad:
        end = f"NOT healthy: {', '.join(bad)}"
    # A name may hold what a terminal would obey or cannot write.
    shown = "\n".join([*lines, "", end])
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in shown)


def html(report: Mapping[str, Any]) -> str:
    """The whole report as a page."""
    state = '<span class="good">healthy</span>'
    if not report["ok"]:
        state = '<span class="bad">not healthy</span>'
    parts = [
        f"<h1>{text(report['data'])}: {state}</h1>",
        f"<p>{report['clips']:,} clips, {report['pairs']:,} pairs; {report['heard']:,} clips were "
        f"decoded, {report['seconds'] / 3600:.2f} hours.</p>",
        "<h2>Checks</h2>",
        _table(
            ("what", "", "found", "of", "share", "limit"),
            [
                (
                    check["title"],
                    verdict(check),
                    f"{check['found']:,}",
                    f"{check['of']:,} {check['unit']}",
                    f"{check['share']:.2%}",
                    "-" if check["limit"] == 1 else f"{check['limit']:.2%}",
                )
                for check in report["checks"]
            ],
        ),
        *map(_examples, report["checks"]),
        "<h2>Coverage</h2>",
        _table(("split", "dataset", "clips", "pairs", "hours"), _coverage(report)),
        "<h2>Pairs by task</h2>",
        *_tasks(report["tasks"]),
        "<h2>Audio</h2>",
        "<p>Seconds of a clip; the model hears the first ten.</p>",
        _plot(report, "seconds", unit="s", line=10, label="window"),
        "<p>Level (RMS).</p>",
        _plot(report, "level", unit="dBFS"),
        _table(("format", "clips"), [(n, f"{k:,}") for n, k in report["formats"].items()]),
        "<h2>Length of pairs</h2>",
        *_lengths(report),
        "<h2>Licences</h2>",
        _table(
            ("dataset", "licence", "clips"),
            [
                (dataset, licence, f"{clips:,}")
                for dataset, of in report["licences"].items()
                for licence, clips in of.items()
            ],
        ),
    ]
    title = text(f"doctor: {report['data']}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _coverage(report: Mapping[str, Any]) -> list[tuple]:
    return [
        (split, name, of["clips"], of["pairs"], f"{of.get('seconds', 0) / 3600:.2f}")
        for split, datasets in report["datasets"].items()
        for name, of in datasets.items()
    ]


def _tasks(tasks: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Iterable[str]:
    for split, named in tasks.items():
        most = sorted(named.items(), key=lambda item: -item[1]["pairs"])
        rest = sum(counts["pairs"] for _, counts in most[_MOST_BARS:])
        values = [
            (f"{name} ({'closed' if of.get('closed') else 'open'})", of["pairs"])
            for name, of in most[:_MOST_BARS]
        ]
        if rest:
            values.append((f"{len(most) - _MOST_BARS} other tasks", rest))
        yield f"<p>{text(split)}</p>{bars(values, unit='pairs')}"


def _lengths(report: Mapping[str, Any]) -> Iterable[str]:
    tokens = report["tokens"]
    if tokens is None:
        yield "<p>Characters; give <code>--tokenizer</code> to count tokens and what is cut.</p>"
        yield _plot(report, "characters", unit="characters")
        return
    share = tokens["lost"] / max(1, tokens["total"])
    yield f"<p>The cut-off at {tokens['cutoff']} tokens takes {share:.2%} of all tokens.</p>"
    yield _plot(report, "tokens", unit="tokens", line=tokens["cutoff"], label="cut-off")
    yield _table(
        ("task", "pairs", "cut", "no answer left"),
        [
            (task, *(f"{of.get(key, 0):,}" for key in ("pairs", "cut", "answers gone")))
            for task, of in tokens["tasks"].items()
        ],
    )


def _plot(
    report: Mapping[str, Any], name: str, *, unit: str, line: float | None = None, label: str = ""
) -> str:
    found = report["histograms"][name]
    return histogram(found["edges"], found["counts"], unit=unit, line=line, label=label)


def _examples(check: Mapping[str, Any]) -> str:
    if not check["examples"]:
        return ""
    shown = check["examples"][:_EXAMPLES]
    items = "".join(
        f'<li><span class="soft">{text(item["where"])}</span>: {text(item["what"])}</li>'
        for item in shown
    )
    more = check["found"] - len(shown)
    items += f"<li>and {more:,} more</li>" if more > 0 else ""
    opened = "" if check["ok"] else " open"
    return f"<details{opened}><summary>{text(check['title'])}</summary><ul>{items}</ul></details>"


def _table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{text(title)}</th>" for title in titles)
    classes = {"BAD": ' class="bad"', "ok": ' class="good"'}
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{classes.get(str(cell), '')}>{text(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def _columns(rows: Sequence[Sequence[Any]], *, text_to: int) -> list[str]:
    """Rows as lines; the first `text_to` columns and the last of six are flush left."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < text_to or place == 5 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
