"""Count clips and questions by source and task, beside what is published of Open-ASQA.

    python -m data_pipelines.open_asqa statistics asqa
    python -m data_pipelines.open_asqa statistics openasqa_9.6M_v1.json --json counts.json

The columns "poster" are the rows of the poster's table, "printed" the counts that the authors'
scripts print. Where these two disagree, a note says so.
"""

import argparse
import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.input import mixtures
from data_pipelines.manifests.official_rows import rows_or_errors
from data_pipelines.open_asqa import build_folder, published_counts
from data_pipelines.open_asqa.build_folder import BuildFolder
from data_pipelines.open_asqa.published_counts import CLASSIFICATION, POSTER, SPEECH, SPEECH_CLOSED
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.text_tables import table
from data_pipelines.records import schema
from data_pipelines.records.schema import RecordError
from ltu_jax.core import outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.planning.open_asqa_counts import OPEN

NUMBERS = outputs.Maker(
    name="`python -m data_pipelines.open_asqa statistics`",
    folder=False,
    before=outputs.json_with("sources", "classification", "speech_closed"),
)
# dataset of a row -> its source
SOURCE_OF = {
    dataset: name
    for name, source in SOURCES.items()
    for datasets in source.datasets
    for dataset in datasets.split(", ")
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this step."""
    parser.add_argument("data", type=Path, help="folder of a build, or a JSON or JSONL file")
    parser.add_argument("--json", type=Path, help="write all numbers there")


def run(flags: argparse.Namespace) -> int:
    """Count, and print tables and notes."""
    if flags.json is not None:
        outputs.claim(flags.json, NUMBERS, inputs=[flags.data], option="--json")
    if flags.data.is_dir():
        counts = of_folder(BuildFolder(flags.data))
    elif flags.data.is_file():
        counts = of_rows(flags.data)
    else:
        raise UserError(f"{flags.data} does not exist: give the folder of a build, or a JSON file")
    report = compared(counts)
    print(summary(report))
    if flags.json is not None:
        write_json(flags.json, report, NUMBERS)
    return 0


@dataclasses.dataclass(kw_only=True)
class SourceCounts:
    """Clips of a source and its questions by task, those of open ends under their one name."""

    clips: int = 0
    tasks: Counter[str] = dataclasses.field(default_factory=Counter)


def of_folder(folder: BuildFolder) -> dict[str, SourceCounts]:
    """Count what a build has so far; open-ended pairs as `filter` accepts them, where it was run.

    Raises:
        UserError: the folder has no clips.
    """
    counts = {}
    for name in tqdm(folder.sources(), desc="counting", unit="source", disable=None):
        accepted = folder.file(name, build_folder.ACCEPTED).is_file()
        opened = build_folder.ACCEPTED if accepted else build_folder.OPEN_ENDED
        counts[name] = SourceCounts(
            clips=sum(1 for _ in folder.lines(name, build_folder.CLIPS)),
            tasks=Counter(line["task"] for line in folder.lines(name, build_folder.CLOSED_ENDED)),
        )
        counts[name].tasks[OPEN[0]] += sum(1 for _ in folder.lines(name, opened))
    return counts


def of_rows(path: Path) -> dict[str, SourceCounts]:
    """Count the rows of a JSON file of any size; datasets that no source has stand as they are.

    Raises:
        RecordError: a row lacks a field, or the file is cut short.
    """
    counts: dict[str, SourceCounts] = {}
    clips: dict[str, set[int]] = {}
    for row in tqdm(rows_or_errors(path), desc="counting", unit="row", disable=None):
        if isinstance(row, RecordError):
            raise row
        name = SOURCE_OF.get(row.values["dataset"], row.values["dataset"])
        task = row.values["task"]
        counts.setdefault(name, SourceCounts()).tasks[task] += 1
        clips.setdefault(name, set()).add(hash(row.values["audio_id"]))
    for name, own in counts.items():
        own.clips = len(clips[name])
    return counts


def compared(counts: Mapping[str, SourceCounts]) -> dict[str, Any]:
    """Return all numbers beside those that are published."""
    ordered = [*(name for name in SOURCES if name in counts), *sorted(set(counts) - set(SOURCES))]
    sources = {name: _compared(name, counts[name]) for name in ordered}
    classified = sum(
        pairs
        for name in ordered
        for task, pairs in counts[name].tasks.items()
        if mixtures.takes_task(
            ("classification",), task=task, closed_ended=schema.is_closed_ended(task)
        )
    )
    speech = sum(sources[name]["closed"] for name in SPEECH if name in sources)
    return {
        "sources": sources,
        "classification": {"ours": classified, "printed": CLASSIFICATION},
        "speech_closed": {"ours": speech, "printed": SPEECH_CLOSED},
        "disagreements": published_counts.disagreements(),
    }


def _compared(name: str, counts: SourceCounts) -> dict[str, Any]:
    opened = sum(n for task, n in counts.tasks.items() if not schema.is_closed_ended(task))
    poster = POSTER.get(name)
    printed = published_counts.printed(name) if name in SOURCES else {}
    tasks = {}
    for task in sorted({*counts.tasks, *printed} - {OPEN[0]}):
        ours, theirs = counts.tasks[task], printed.get(task)
        tasks[task] = {"ours": ours, "printed": theirs}
        if theirs is not None and ours != theirs:
            tasks[task]["why"] = published_counts.reason(name, task, ours=ours)
    whole = name in SOURCES and published_counts.whole(name)
    return {
        "clips": counts.clips,
        "closed": counts.tasks.total() - opened,
        "open": opened,
        "poster": None if poster is None else [poster.clips, poster.closed, poster.open],
        "printed_closed": sum(printed.values()) if whole else None,
        "tasks": tasks,
    }


def summary(report: Mapping[str, Any]) -> str:
    """Write a report as tables and notes."""
    rows, total = [], [0] * 6
    for name, own in report["sources"].items():
        poster = own["poster"] or ["-"] * 3
        ours = own["clips"], own["closed"], own["open"]
        printed = "-" if own["printed_closed"] is None else own["printed_closed"]
        rows.append((name, ours[0], poster[0], ours[1], printed, poster[1], ours[2], poster[2]))
        numbers = [ours[0], poster[0], ours[1], poster[1], ours[2], poster[2]]
        total = [a + (0 if b == "-" else b) for a, b in zip(total, numbers, strict=True)]
    rows.append(("sum", total[0], total[1], total[2], "-", total[3], total[4], total[5]))
    heads = ("source", "clips", "poster", "closed", "printed", "poster", "open", "poster")
    by_task = [
        (
            name,
            task,
            own["ours"],
            "-" if own["printed"] is None else own["printed"],
            "-" if own["printed"] is None else own["ours"] - own["printed"],
            own.get("why", ""),
        )
        for name, source in report["sources"].items()
        for task, own in source["tasks"].items()
    ]
    lines = [table(heads, rows), ""]
    lines += [table(("source", "task", "rows", "printed", "more", "why"), by_task), ""]
    for key, what in (
        ("classification", "classification (stages 1 and 2)"),
        ("speech_closed", "closed-ended questions about speech"),
    ):
        own = report[key]
        lines.append(f"{what}: {own['ours']:,}; printed: {own['printed']:,}")
    lines += ["", "Where poster and printed counts disagree:", *report["disagreements"]]
    return "\n".join(lines)
