"""Let a language model write open-ended questions and answers about the clips of a build.

    python -m data_pipelines.open_asqa generate DIR --model gpt-4o-mini --dry-run
    python -m data_pipelines.open_asqa generate DIR --endpoint URL --model M --budget 5.00
    python -m data_pipelines.open_asqa generate DIR --model M --batch-files

URL is an OpenAI-compatible server's, up to /v1; its key is read from OPENAI_API_KEY. Every call is
written down in DIR/replies.sqlite before it is sent: after a kill the same command goes on, nothing
that was answered is asked again, and calls never cost more than --budget, all runs together.

With --batch-files nothing is sent: DIR/batches/requests-NNNN.jsonl are to be handed in as OpenAI's
batches, or to vLLM's run_batch. Put the files of results and errors into DIR/batches/results and
give the command again: it reads them, and writes what is still to be asked. docs/open_ended.md
explains all.
"""

import argparse
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.open_asqa.build_folder import CLIPS, REPLIES, BuildFolder
from data_pipelines.open_asqa.open_ended import build_conversations, model_options
from data_pipelines.open_asqa.open_ended.build_conversations import SourceConversations
from data_pipelines.open_asqa.open_ended.clip_conversation import (
    ClipConversation,
    RequestAhead,
    WriterSettings,
    reply_problem,
    schema,
)
from data_pipelines.open_asqa.open_ended.two_calls import TwoCalls
from ltu_jax.clients.batch_requests import RESULTS, BatchFolder, BatchReport
from ltu_jax.clients.call_ledger import CallLedger, open_ledger
from ltu_jax.clients.conversations import ConversationState, standings
from ltu_jax.clients.paid_calls import CallReport, PaidCalls
from ltu_jax.clients.token_prices import TokenPrice, dollars
from ltu_jax.core.values import whole

BATCHES = "batches"
_TOKENS_A_PAIR = 60  # that replies take on average, for the dry run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this step."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a build")
    parser.add_argument("--only", default="", help="sources, separated by commas (default: all)")
    parser.add_argument("--limit", type=int, metavar="N", help="clips of each source, the first")
    parser.add_argument("--pairs", type=int, help="asked for a clip (default: as the prompt says)")
    parser.add_argument(
        "--tokens-a-pair", type=int, default=90, help="that a reply may take (default: 90)"
    )
    parser.add_argument(
        "--patterns",
        action="store_true",
        help="let the schema say how texts begin and end and how many there are, for small models",
    )
    parser.add_argument(
        "--calls",
        choices=build_conversations.CALLS,
        default=build_conversations.CALLS[0],
        help="about a clip of joint_audioset; two: first what words and sounds suggest together, "
        "then questions with that in view (default: one)",
    )
    parser.add_argument("--dry-run", action="store_true", help="tell calls, tokens and price only")
    parser.add_argument("--batch-files", action="store_true", help="write and read batch files")
    parser.add_argument(
        "--abandon",
        metavar="FILE",
        help="ask again what waits for results of this batch file; it counts as paid",
    )
    model_options.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the step; see the module's docstring. Return 0 if every clip was asked about."""
    for name in ("limit", "pairs"):
        if getattr(arguments, name) is not None:
            whole(name, getattr(arguments, name))
    whole("tokens_a_pair", arguments.tokens_a_pair)
    folder = BuildFolder(arguments.folder)
    sources = folder.chosen(arguments.only)
    build_conversations.require_steps(folder, sources)
    rules = model_options.call_rules(arguments)
    if arguments.dry_run:
        return _dry_run(arguments, folder, sources)
    server = None if arguments.batch_files else model_options.endpoint(arguments)
    with open_ledger(folder.root / REPLIES, send=True) as ledger:
        structured = arguments.structured != "off"
        if arguments.structured == "auto" and server is not None:
            structured = model_options.takes_schema(
                server,
                ledger,
                rules,
                model=_settings(arguments),
                response_format=schema(1, patterns=arguments.patterns),
            )
        settings = dataclasses.replace(_settings(arguments), structured=structured)
        asked = [_source(arguments, folder, source, settings) for source in sources]
        if server is None:
            report = _batch_files(arguments, folder, ledger, asked)
        else:
            with tqdm(desc="clips", total=_total(asked), unit="clip", disable=None) as bar:
                calls = PaidCalls(server, ledger, rules, progress=lambda _: bar.update())
                report = calls.hold(_all(asked))
        _print_troubles(report)
        counts = {of.source: of.write(ledger, tries=rules.tries) for of in asked}
        _print_table(counts, ledger)
    if report.stopped:
        print(f"stopped: {report.stopped}; raise --budget to go on")
    return 1 if report.stopped or report.waiting or sum(report.given_up.values()) else 0


def _settings(arguments: argparse.Namespace) -> WriterSettings:
    return model_options.settings(
        arguments,
        structured=arguments.structured != "off",
        pairs=arguments.pairs,
        tokens_a_pair=arguments.tokens_a_pair,
        patterns=arguments.patterns,
    )


def _source(
    arguments: argparse.Namespace, folder: BuildFolder, source: str, settings: WriterSettings
) -> SourceConversations:
    return SourceConversations(
        folder=folder,
        source=source,
        settings=settings,
        limit=arguments.limit,
        calls=arguments.calls,
    )


def _all(asked: Sequence[SourceConversations]) -> Iterator[ClipConversation | TwoCalls]:
    for of in asked:
        yield from of.all()


def _total(asked: Sequence[SourceConversations]) -> int:
    """Return how many conversations there are at most, by counting lines."""
    count = 0
    for of in asked:
        with of.folder.file(of.source, CLIPS).open("rb") as file:
            lines = sum(1 for _ in file)
        count += of.a_clip * (lines if of.limit is None else min(lines, of.limit))
    return count


def _batch_files(
    arguments: argparse.Namespace,
    folder: BuildFolder,
    ledger: CallLedger,
    asked: Sequence[SourceConversations],
) -> BatchReport:
    """Read the results that are there, and write what is still to be asked."""
    rules = model_options.call_rules(arguments)
    batches = BatchFolder(path=folder.root / BATCHES, ledger=ledger, price=rules.price)
    batches.recover()
    if arguments.abandon:
        lost = batches.abandon(arguments.abandon)
        print(f"{arguments.abandon}: {lost:,} requests are asked again")
    report = BatchReport()
    batches.read(reply_problem, report)
    batches.write(_all(asked), report, tries=rules.tries, budget=rules.budget)
    for what, count in sorted(report.read.items()):
        print(f"results read: {count:,} {what}")
    for name, lines in report.written.items():
        print(f"{batches.path / name}: {lines:,} requests to hand in")
    for name, count in ledger.open_batches().items():
        if name not in report.written:
            print(f"{name}: {count:,} requests wait for results in {batches.path / RESULTS}")
    report.waiting += sum(report.written.values())
    return report


def _dry_run(arguments: argparse.Namespace, folder: BuildFolder, sources: Sequence[str]) -> int:
    """Print what asking would take; nothing is sent or written."""
    price, settings = model_options.price(arguments), _settings(arguments)
    heads = ("source", "clips", "lack a field", "known", "calls", "tokens in", "tokens out")
    rows, totals = [], Counter()
    for source in sources:
        row = _estimate(_source(arguments, folder, source, settings), tries=arguments.tries)
        rows.append([source, *(f"{row[name]:,}" for name in heads[1:])])
        totals.update(row)
    rows.append(["all", *(f"{totals[name]:,}" for name in heads[1:])])
    _print_rows(heads, rows)
    print(_price_line(arguments, price, totals))
    return 0


def _estimate(of: SourceConversations, *, tries: int) -> Counter[str]:
    """Return what the clips of a source that were not asked about yet would take."""
    missing: Counter[str] = Counter()
    row: Counter[str] = Counter()
    for request, pairs in _requests_ahead(of, row, missing, tries=tries):
        row["calls"] += 1
        row["tokens in"] += request.prompt_estimate
        row["tokens out"] += pairs * _TOKENS_A_PAIR
        row["most in"] += request.prompt_bound
        row["most out"] += request.most_tokens
    row["lack a field"] = sum(missing.values())
    return row


def _requests_ahead(
    of: SourceConversations, row: Counter[str], missing: Counter[str], *, tries: int
) -> Iterator[RequestAhead]:
    """Yield what is still to be asked, and for how many pairs."""
    ledger_path = of.folder.root / REPLIES
    if not ledger_path.is_file():
        for number, conversation in enumerate(of.all(missing)):
            row["clips"] += number % of.a_clip == 0
            yield from conversation.ahead(())
        return
    with open_ledger(ledger_path, send=False) as ledger:
        for number, standing in enumerate(standings(of.all(missing), ledger, tries=tries)):
            row["clips"] += number % of.a_clip == 0
            if standing.state is not ConversationState.OPEN:
                row["known"] += 1
                continue
            yield from standing.conversation.ahead(standing.replies)


def _price_line(
    arguments: argparse.Namespace, price: TokenPrice | None, totals: Counter[str]
) -> str:
    if price is None:
        table = model_options.default_prices()
        return f"{table} has no price for {arguments.model}: give a table of yours as --prices"
    batched = arguments.batch_files
    about = price.of(totals["tokens in"], totals["tokens out"], batched=batched)
    most = price.of(totals["most in"], totals["most out"], batched=batched)
    return f"about {dollars(about)}, at most {dollars(most)} unless replies are asked for again"


def _print_troubles(report: CallReport | BatchReport) -> None:
    for reason, count in sorted(getattr(report, "troubles", {}).items()):
        print(f"tried again: {count:,} calls {reason}")
    for reason, count in sorted(report.given_up.items()):
        print(f"given up: {count:,} clips, {reason}")


def _print_table(counts: Mapping[str, Mapping[str, Any]], ledger: CallLedger) -> None:
    heads = ("source", "clips", "asked in full", "replies", "replies that parse whole",
             "replies that were cut", "pairs", "pairs wanted")  # fmt: skip
    rows = [
        [source, *(f"{row.get(name, 0):,}" for name in heads[1:])] for source, row in counts.items()
    ]
    _print_rows(heads, rows)
    for source, row in counts.items():
        for field, count in row["clips without"].items():
            print(f"{source}: {count:,} clips are not asked about, they have no {field}")
    calls = ", ".join(f"{count:,} {state}" for state, count in ledger.calls_by_state().items())
    print(f"all calls so far: {calls or 'none'}; {dollars(ledger.committed)} spent or set aside")


def _print_rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        first, *others = (
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())
