"""One run's part of report.html: figures, grounding, groups, classes, pictures, answers, config."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core.jsonl import read_jsonl
from ltu_jax.evaluation.report import formatting, plots, sample_answers
from ltu_jax.evaluation.report.markup import figure, grid, head, numbers, picture, text, words

_LONGEST = 400  # characters of an answer that are shown
_OPEN_CLASSES = 12  # a longer table of classes starts closed
_SIDE_BY_SIDE = 20  # classes up to which a matrix can be read at half the width
_COUNTS = ("differ", "n", "missing", "unparsed", "refused")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """A folder that `evaluate` wrote, and its metrics.json."""

    folder: Path
    metrics: Mapping[str, Any]

    def questions(self, row: str) -> str:
        """What a row asked and expected, as a hash.

        Figures of two runs may share a line where these agree. A folder without items.jsonl has the
        hash of all its data, which config.json keeps, and the number of items.
        """
        path = self.folder / "items.jsonl"
        if not path.is_file():
            known = self.metrics["config"].get("identity", {}).get("manifest")
            return f"{known} {formatting.rows(self.metrics).get(row, {}).get('n')}"
        lines = [one for _, one in read_jsonl(path) if one.get("row") == row]
        told = sorted(json.dumps(one, sort_keys=True) for one in lines)
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    @property
    def title(self) -> str:
        """The benchmark and its split: what makes figures comparable."""
        return f"{self.metrics['benchmark']}, {self.metrics['split']} split"


def section(run: ReportedRun, anchor: str) -> str:
    """Everything about one run."""
    metrics, folder = run.metrics, run.folder
    samples = folder / "samples.jsonl"
    chosen = sample_answers.choose(samples, metrics) if samples.is_file() else {}
    parts = [
        f'<h2 id="{anchor}">{text(run.title)}: {text(metrics["system"])}</h2>',
        f'<p class="note">{text(metrics["source"])}</p>',
        f'<p class="note">Folder {text(folder)}. {_throughput(metrics)}</p>',
        picture(folder / "results.png", alt=f"Figures of {run.title} as bars"),
    ]
    for name, row in formatting.rows(metrics).items():
        parts.append(f"<h3>{text(name)}</h3>")
        parts.append(
            f'<p class="note">{text(row["task"])}; {row["n"]} items about {row["clips"]} clips</p>'
        )
        parts.append(_figures(row))
        parts += [f'<p class="missing">{text(reason)}</p>' for reason in formatting.left_out(row)]
        parts += [_grounding(row), _groups(row), _classes(row), _matrices(folder, name, row)]
        parts.append(_answers(chosen.get(name, [])))
    added = picture(folder / plots.GROUNDING, alt=f"What each mode adds in {run.title}")
    parts.append(added and f'<div class="large">{added}</div>')
    config = json.dumps(metrics["config"], indent=2, sort_keys=True, ensure_ascii=False)
    parts.append(f"<details><summary>Configuration</summary><pre>{text(config)}</pre></details>")
    return "\n".join(part for part in parts if part)


def _throughput(metrics: Mapping[str, Any]) -> str:
    speed = metrics.get("throughput")
    if not speed or not speed.get("answers_per_second"):
        return ""
    told = f"{speed['answers']:,} answers in {speed['seconds']:.0f} s: "
    told += f"{speed['answers_per_second']:.1f} answers"
    if speed.get("audio_seconds_per_second"):
        told += f" and {speed['audio_seconds_per_second']:.1f} s of audio"
    return text(f"{told} a second.")


def _figures(row: Mapping[str, Any]) -> str:
    """Paper beside strict for each metric, system, kind of answers and mode."""
    lines = []
    for metric in formatting.metric_names(row):
        of_metric = [one for one in row["figures"] if one["metric"] == metric]
        found: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
        for one in of_metric:
            if one["value"] is not None:
                key = (one["system"], one["decoding"], one["mode"])
                found.setdefault(key, {})[one["rule"]] = one
        arrow = "↑" if formatting.higher_is_better(row, metric) else "↓"
        tools = {one["rule"]: one["name"] for one in of_metric if one["system"] == formatting.MODEL}
        told = "".join(
            f"<small>{rule}: {text(name)}</small>" for rule, name in tools.items() if name != metric
        )
        decodings = formatting.distinct(decoding for _, decoding, _ in found)
        entries = sorted(
            found.items(),
            key=lambda entry: (entry[0][0] != formatting.MODEL, decodings.index(entry[0][1])),
        )
        for place, ((system, decoding, mode), of_rule) in enumerate(entries):
            title = f"{text(metric)} {arrow}{told}" if place == 0 else ""
            draws = max(one["draws"] or 1 for one in of_rule.values())
            answers = "\u00a0×\u00a0".join([decoding or "", *[str(draws)] * (draws > 1)])
            pair = [of_rule.get(rule) for rule in formatting.RULES]
            kinds = ["first"] * (place == 0) + ["baseline"] * (system != formatting.MODEL)
            lines.append(
                f'<tr class="{" ".join(kinds)}"><td class="text">{title}</td>'
                f"{words(system, answers, mode or '')}"
                f"{''.join(map(figure, pair))}"
                f"{numbers(*(formatting.of_both_rules(*pair, key) for key in _COUNTS))}</tr>"
            )
    if not lines:
        return ""
    titles = ["paper", "strict", *_COUNTS]
    return grid(head(["metric", "system", "answers", "mode"], titles), lines)


def _grounding(row: Mapping[str, Any]) -> str:
    """What one input mode adds to another, under both rules."""
    lines = []
    for (metric, more, less), of_rule in formatting.differences(row).items():
        cells = []
        for rule in formatting.RULES:
            one = of_rule.get(rule)
            if one is None:
                cells.append("<td>-</td>")
                continue
            value, low, high = (
                formatting.number(one[key], metric, sign=True)
                for key in ("difference", "low", "high")
            )
            cells.append(f"<td>{value}<small>[{low}, {high}]</small></td>")
        better = "more is better" if formatting.higher_is_better(row, metric) else "less is better"
        lines.append(f"<tr>{words(metric, f'{more} − {less}', better)}{''.join(cells)}</tr>")
    if not lines:
        return ""
    titles = head(["metric", "difference of modes", ""], formatting.RULES)
    return f"<h4>Grounding: what each mode adds</h4>{grid(titles, lines)}"


def _shares(entries: Mapping[str, Mapping[str, Any]], metric: str, title: str) -> str:
    lines = [
        f"<tr>{words(name)}{numbers(one['n'])}"
        f"{numbers(*(formatting.number(one[rule], metric) for rule in formatting.RULES))}</tr>"
        for name, one in entries.items()
    ]
    return grid(head([title], ["n", *formatting.RULES]), lines)


def _groups(row: Mapping[str, Any]) -> str:
    metric = formatting.metric_names(row)[0]
    return "".join(
        f"<h4>{text(metric)} by {text(group)}, joint mode</h4>{_shares(entries, metric, group)}"
        for group, entries in row.get("groups", {}).items()
    )


def _classes(row: Mapping[str, Any]) -> str:
    """Share right of each class, the weakest first."""
    classes = row.get("per_class")
    if not classes:
        return ""
    weakest = dict(sorted(classes.items(), key=lambda one: (one[1]["strict"] or 0, one[0])))
    opened = " open" if len(weakest) <= _OPEN_CLASSES else ""
    return (
        f"<details{opened}><summary>Share right by class, joint mode, weakest first: "
        f"{len(weakest)} classes</summary>{_shares(weakest, 'accuracy', 'class')}</details>"
    )


def _matrices(folder: Path, name: str, row: Mapping[str, Any]) -> str:
    """Both rules' confusion matrices."""
    pictures = "".join(
        picture(
            plots.confusion_path(folder, name, rule), alt=f"Confusion matrix of {name}, {rule} rule"
        )
        for rule in row.get("confusion", {})
    )
    if not pictures:
        return ""
    small = all(len(table) <= _SIDE_BY_SIDE for table in row["confusion"].values())
    return f'<div class="{"pair" if small else "large"}">{pictures}</div>'


def _answers(chosen: list[sample_answers.SampleAnswer]) -> str:
    """Example answers as a table; what the model said is shown, never interpreted."""
    if not chosen:
        return ""
    lines = []
    for one in chosen:
        line = one.line
        output = line["output"]
        said = "(no answer)" if output is None else output
        cells = [f'<td class="said">{text(said, longest=_LONGEST)}</td>']
        for rule in formatting.RULES:
            of_rule = line["scores"][one.metric].get(rule)
            cells.append(_verdict(of_rule))
        reference = " | ".join(map(str, line["reference"]))
        lines.append(
            f"<tr>{words(one.kind, line['item_id'], longest=60)}"
            f"{words(line['question'], reference, longest=_LONGEST)}{''.join(cells)}</tr>"
        )
    line = chosen[0].line
    titles = head(["", "item", "question", "reference", "answer", *formatting.RULES])
    return (
        f"<h4>Answers, {text(line['mode'])} mode, {text(line['decoding'])}, by "
        f"{text(chosen[0].metric)}</h4>{grid(titles, lines)}"
    )


def _verdict(of_rule: Mapping[str, Any] | None) -> str:
    if of_rule is None:
        return '<td class="text">-</td>'
    score = of_rule["score"]
    told = of_rule["status"] if score is None else f"{score:.3g}"
    parsed = of_rule["parsed"] if of_rule["parsed"] is not None else f"({of_rule['status']})"
    return f'<td class="said">{text(told)}<small>{text(parsed, longest=120)}</small></td>'
