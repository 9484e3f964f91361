"""Accept or refuse every open-ended pair of a build, each refusal with its reason.

    python -m data_pipelines.open_asqa filter DIR
    python -m data_pipelines.open_asqa filter DIR --unanswerable drop --least-clap 0.3

Writes accepted.jsonl, refused.jsonl and filter.json of each source with open_ended.jsonl; a second
filtering begins with that again. Thresholds compare with scores that `score` has made; no model is
asked. docs/open_ended.md lists the rules.
"""

import argparse
import contextlib
import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.open_asqa.build_folder import (
    ACCEPTED,
    FILTER,
    OPEN_ENDED,
    REFUSED,
    BuildFolder,
)
from data_pipelines.open_asqa.open_ended import pair_rules
from data_pipelines.open_asqa.open_ended.build_conversations import (
    clips_with_lines,
    pairs_in,
    sources_with_pairs,
)
from data_pipelines.open_asqa.open_ended.gate_scores import GATES, GateScores, gate_applies
from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer
from data_pipelines.open_asqa.open_ended.pair_rules import ClassNames, PairRules
from data_pipelines.open_asqa.open_ended.prompt_files import prompt_of
from data_pipelines.open_asqa.open_ended.selection import PairSelection, SelectionSettings
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_file, write_json
from ltu_jax.core.jsonl import JsonlWriter
from ltu_jax.core.processes import in_processes
from ltu_jax.core.values import real_number, whole

# Of LTU-AS's open-ended pairs: unique questions and answers, as its authors counted them.
OFFICIAL_UNIQUE = (0.651, 0.906)
_KEPT_SHARE = 0.065  # of unanswerable pairs in LTU's data, which teach to refuse
_NO_SCORE = "no score of {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this step."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a build")
    parser.add_argument("--only", default="", help="sources, separated by commas (default: all)")
    parser.add_argument(
        "--unanswerable",
        default=f"share={_KEPT_SHARE}",
        metavar="keep|drop|share=S",
        help="answers that say that there is no answer (default: %(default)s of what is kept)",
    )
    parser.add_argument("--keep-doubles", action="store_true", help="keep pairs that are the same")
    parser.add_argument(
        "--near", type=real_number, default=0.8, metavar="S",
        help="share of word triples in common that makes a double (default: 0.8; 1: exact only)",
    )  # fmt: skip
    parser.add_argument(
        "--question-cap", type=int, default=100, metavar="N",
        help="pairs of a source that may have the same question (default: 100)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=1, help="processes, each a source at a time (default: 1)"
    )
    for gate in GATES:
        parser.add_argument(
            f"--least-{gate}", type=real_number, metavar="S", help=f"least score of {gate}"
        )


def run(arguments: argparse.Namespace) -> int:
    """Run the step; see the module's docstring."""
    folder = BuildFolder(arguments.folder)
    selection = SelectionSettings(
        unanswerable=_unanswerable_share(arguments.unanswerable),
        doubles=arguments.keep_doubles,
        near=_share("near", arguments.near),
        question_cap=whole("question_cap", arguments.question_cap),
    )
    least = {gate: getattr(arguments, f"least_{gate}") for gate in GATES}
    least = {gate: value for gate, value in least.items() if value is not None}
    sources = sources_with_pairs(folder, arguments.only)
    workers = min(whole("workers", arguments.workers), len(sources))
    settings = FilterSettings(
        root=folder.root,
        labels=frozenset(build_labels(folder)),
        selection=selection,
        least=least,
        progress=workers == 1,
    )
    # the largest first: its process ends last
    sizes = {source: folder.file(source, OPEN_ENDED).stat().st_size for source in sources}
    jobs = [(settings, source) for source in sorted(sources, key=lambda one: -sizes[one])]
    done = in_processes(_filter_job, jobs, workers=workers)
    bar = tqdm(done, desc="filter", unit="source", total=len(jobs), disable=workers == 1 or None)
    reports = dict(bar)
    _print_table({source: reports[source] for source in sources})
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """What the pairs of every source are looked at by.

    Attributes:
        root: folder of the build.
        labels: names of the sounds that are looked for.
        selection: what is kept of sound pairs.
        least: gate -> least score.
        progress: show how many clips were looked at.
    """

    root: Path
    labels: frozenset[str]
    selection: SelectionSettings
    least: Mapping[str, float]
    progress: bool


def _filter_job(job: tuple[FilterSettings, str]) -> tuple[str, dict[str, Any]]:
    settings, source = job
    return source, filter_source(settings, source)


def build_labels(folder: BuildFolder) -> set[str]:
    """Return all classes of sound that clips of a build have."""
    return {label for name in folder.sources() for c in folder.clips(name) for label in c.labels}


def filter_source(settings: FilterSettings, source: str) -> dict[str, Any]:
    """Write which pairs of a source are accepted and which are not; return the counts."""
    folder, selection, least = BuildFolder(settings.root), settings.selection, settings.least
    classes = ClassNames(settings.labels)
    pairs = PairSelection(selection)
    scores = GateScores(folder.root)
    clips = clips_with_lines(folder, source)
    disable = None if settings.progress else True
    for known, lines in tqdm(clips, desc=source, unit="clip", disable=disable):
        rules = PairRules(known, prompt_of(source).file, classes)
        found = pairs_in(lines)
        below = _below(scores, source, known.clip.clip_id, found, least)
        for line, pair, low in zip(lines, found, below, strict=True):
            ours = "wording" in line
            pairs.add(known.clip.clip_id, pair, rules.problem(pair) or low, ours=ours)
    reasons = pairs.decide()
    _write(folder, source, reasons, scores)
    questions, answers = pairs.unique_shares(reasons)
    report = {
        "rules": pair_rules.rules().version,
        "settings": dataclasses.asdict(selection) | {"least": dict(least)},
        "pairs": len(reasons),
        "accepted": reasons.count(""),
        "refused": dict(sorted(Counter(reason for reason in reasons if reason).items())),
        "unique questions": round(questions, 4),
        "unique answers": round(answers, 4),
    }
    write_json(folder.file(source, FILTER), report)
    return report


def _below(
    scores: GateScores,
    source: str,
    clip_id: str,
    pairs: Sequence[QuestionAnswer],
    least: Mapping[str, float],
) -> list[str]:
    """Return for each pair which threshold it does not reach; "" for none."""
    problems = [""] * len(pairs)
    for gate, value in least.items():
        if not gate_applies(gate, source):
            continue
        found = scores.get(gate, [(source, clip_id, pair) for pair in pairs])
        for place, score in enumerate(found):
            if not problems[place] and (score is None or score < value):
                problems[place] = f"low {gate}" if score is not None else _NO_SCORE.format(gate)
    return problems


def _write(folder: BuildFolder, source: str, reasons: Sequence[str], scores: GateScores) -> None:
    """Write the lines to one of the two files each, with their scores."""
    verdicts = iter(reasons)
    with contextlib.ExitStack() as stack:
        # the accepted ones take their place last: where they are new, both are
        accepted, refused = (
            stack.enter_context(
                JsonlWriter(stack.enter_context(atomic_file(folder.file(source, name))))
            )
            for name in (ACCEPTED, REFUSED)
        )
        found = folder.lines(source, OPEN_ENDED)
        for clip_id, group in itertools.groupby(found, lambda line: line["clip_id"]):
            lines = list(group)
            for line, scored in zip(lines, _scores(scores, source, clip_id, lines), strict=True):
                line |= {"scores": scored} if scored else {}
                reason = next(verdicts)
                if reason:
                    refused.append({**line, "reason": reason})
                else:
                    accepted.append(line)


def _scores(
    scores: GateScores, source: str, clip_id: str, lines: Sequence[Mapping[str, Any]]
) -> list[dict[str, float]]:
    """Return gate -> score of each line."""
    named = [(source, clip_id, pair) for pair in pairs_in(lines)]
    by_gate = {gate: scores.get(gate, named) for gate in GATES}
    return [
        {gate: own[place] for gate, own in by_gate.items() if own[place] is not None}
        for place in range(len(lines))
    ]


def _unanswerable_share(text: str) -> float:
    name, _, value = text.partition("=")
    if text in ("keep", "drop"):
        return 1.0 if text == "keep" else 0.0
    try:
        if name == "share":
            return _share("unanswerable", float(value))
    except ValueError:
        pass
    raise UserError(f"--unanswerable {text}: give keep, drop or share=S with S from 0 to 1")


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise UserError(f"--{name} {value}: give a share from 0 to 1")
    return value


def _print_table(reports: Mapping[str, Mapping[str, Any]]) -> None:
    total: Counter[str] = Counter()
    print(f"{'source':16}{'pairs':>10}{'accepted':>10}{'questions':>11}{'answers':>9}  unique")
    for source, report in reports.items():
        print(
            f"{source:16}{report['pairs']:10,}{report['accepted']:10,}"
            f"{report['unique questions']:11.1%}{report['unique answers']:9.1%}"
        )
        total.update(report["refused"])
    print(f"{'LTU-AS':36}{OFFICIAL_UNIQUE[0]:11.1%}{OFFICIAL_UNIQUE[1]:9.1%}")
    for reason, count in total.most_common():
        print(f"refused: {count:,} {reason}")
