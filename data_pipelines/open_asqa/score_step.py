"""Score open-ended pairs by other models; `filter` compares the scores with thresholds.

    python -m data_pipelines.open_asqa score DIR --clap laion/clap-htsat-unfused
    python -m data_pipelines.open_asqa score DIR --agreement --endpoint URL --model M --budget 2
    python -m data_pipelines.open_asqa score DIR --consistency --endpoint URL --model M --budget 4

clap: cosine similarity of the sound and the answer; of sources of sounds, and clips with audio.
agreement: another model answers each question without seeing the answer, and the words of the two
are compared.
consistency: that model answers each question twice, and its two answers are compared.
Scores are kept in DIR/scores.sqlite, calls in the ledger of `generate`: what was scored is not
scored again, and the first of two answers is that of `--agreement`.
"""

import argparse
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from data_pipelines.open_asqa.build_folder import REPLIES, BuildFolder
from data_pipelines.open_asqa.open_ended import model_options
from data_pipelines.open_asqa.open_ended.blind_answers import (
    SAMPLES,
    BlindConversation,
    answers_schema,
)
from data_pipelines.open_asqa.open_ended.build_conversations import (
    clips_with_lines,
    pairs_in,
    sources_with_pairs,
)
from data_pipelines.open_asqa.open_ended.clip_conversation import WriterSettings
from data_pipelines.open_asqa.open_ended.gate_scores import (
    AGREEMENT,
    CLAP,
    CONSISTENCY,
    GateScores,
    gate_applies,
)
from data_pipelines.open_asqa.open_ended.material import material
from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer
from data_pipelines.open_asqa.open_ended.prompt_files import prompt_of
from ltu_jax.clients.call_ledger import open_ledger
from ltu_jax.clients.conversations import ConversationState, standings
from ltu_jax.clients.paid_calls import PaidCalls
from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.audio import load_audio

_CLIPS_AT_ONCE = 8
_SCORES_OF = {
    AGREEMENT: BlindConversation.agreement,
    CONSISTENCY: BlindConversation.consistency,
}
_CLAP_WORDS = 200  # of an answer; CLAP takes 512 tokens


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this step."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a build")
    parser.add_argument("--only", default="", help="sources, separated by commas (default: all)")
    parser.add_argument(
        "--clap", metavar="MODEL", help="folder of a CLAP model, or its id on the hub"
    )
    parser.add_argument(
        "--agreement", action="store_true", help="let --model of --endpoint answer the questions"
    )
    parser.add_argument(
        "--consistency", action="store_true", help="let it answer them twice, by itself"
    )
    model_options.add_model_arguments(parser, required=False)


def run(arguments: argparse.Namespace) -> int:
    """Run the step; see the module's docstring."""
    asked = [gate for gate in (AGREEMENT, CONSISTENCY) if getattr(arguments, gate)]
    if not arguments.clap and not asked:
        raise UserError(
            "give --clap MODEL, or --agreement or --consistency with --endpoint and --model"
        )
    if asked and not arguments.model:
        raise UserError(f"--{asked[0]}: give --endpoint and --model")
    if arguments.consistency and arguments.temperature <= 0:
        raise UserError("--temperature 0 with --consistency: two answers would be one; raise it")
    folder = BuildFolder(arguments.folder)
    sources = sources_with_pairs(folder, arguments.only)
    if arguments.clap:
        _score_by_clap(folder, sources, arguments.clap)
    return _score_by_answers(folder, sources, arguments, gates=asked) if asked else 0


def _score_by_clap(folder: BuildFolder, sources: Sequence[str], model: str) -> None:
    from ltu_jax.clients.clap import Clap  # PyTorch, which nothing else here needs

    clap, scores = Clap(model), GateScores(folder.root)
    for source in sources:
        if not gate_applies(CLAP, source):
            continue
        clips = (one for one in clips_with_lines(folder, source) if one[0].clip.audio)
        silent = scored = 0
        for known, lines in tqdm(clips, desc=f"{source}: clap", unit="clip", disable=None):
            named = [(source, known.clip.clip_id, pair) for pair in pairs_in(lines)]
            before = scores.get(CLAP, named, by=clap.name)
            new = [one for one, score in zip(named, before, strict=True) if score is None]
            if not new:
                continue
            samples = load_audio(known.clip.audio).samples
            if not len(samples) or not samples.any():
                silent += 1
                continue
            texts = [" ".join(pair.answer.split()[:_CLAP_WORDS]) for _, _, pair in new]
            found = clap.scores([samples], texts)[0]
            scores.put(CLAP, dict(zip(new, map(float, found), strict=True)), by=clap.name)
            scored += len(new)
        print(f"{source}: {scored:,} pairs scored by {clap.name}; {silent:,} clips are silent")


def _score_by_answers(
    folder: BuildFolder,
    sources: Sequence[str],
    arguments: argparse.Namespace,
    *,
    gates: Sequence[str],
) -> int:
    rules, server = model_options.call_rules(arguments), model_options.endpoint(arguments)
    settings = model_options.settings(arguments, structured=arguments.structured != "off")
    scores, scored = GateScores(folder.root), Counter()
    samples = SAMPLES if CONSISTENCY in gates else 1
    with open_ledger(folder.root / REPLIES, send=True) as ledger:
        if arguments.structured == "auto":
            taken = model_options.takes_schema(
                server, ledger, rules, model=settings, response_format=answers_schema(1)
            )
            settings = model_options.settings(arguments, structured=taken)

        def all_clips() -> Iterator[BlindConversation]:
            for source in sources:
                yield from _blind(folder, source, settings, samples=samples)

        with tqdm(desc=" and ".join(gates), unit="clip", disable=None) as bar:
            calls = PaidCalls(server, ledger, rules, progress=lambda _: bar.update())
            report = calls.hold(all_clips())
        found = standings(all_clips(), ledger, tries=rules.tries)
        done = (one for one in found if one.state is ConversationState.DONE)
        while some := list(itertools.islice(done, _CLIPS_AT_ONCE)):
            for gate in gates:
                made: dict[tuple[str, str, QuestionAnswer], float] = {}
                for one in some:
                    source, _, clip_id = one.conversation.subject.partition(" ")
                    found_of = _SCORES_OF[gate](one.conversation, one.replies)
                    made |= {(source, clip_id, pair): score for pair, score in found_of.items()}
                scores.put(gate, made, by=arguments.model)
                scored[gate] += len(made)
    for gate in gates:
        print(f"{gate}: {scored[gate]:,} pairs scored by {arguments.model}")
    for reason, count in sorted(report.given_up.items()):
        print(f"given up: {count:,} clips, {reason}")
    if report.stopped:
        print(f"stopped: {report.stopped}; raise --budget to go on")
    return 1 if report.stopped or report.given_up else 0


def _blind(
    folder: BuildFolder, source: str, settings: WriterSettings, *, samples: int
) -> Iterator[BlindConversation]:
    prompt = prompt_of(source).file
    for known, lines in clips_with_lines(folder, source):
        fields = material(known, required=(), optional=(*prompt.required, *prompt.optional))
        subject = f"{source} {known.clip.clip_id}"
        yield BlindConversation(subject, fields, pairs_in(lines), settings, samples=samples)
