"""The conversations about the clips of a build, and the file of pairs that comes out of them."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_pipelines.open_asqa.build_folder import (
    ACCEPTED,
    FILTER,
    OPEN_ENDED,
    REFUSED,
    SPOKEN_TEXT,
    STYLE,
    BuildFolder,
)
from data_pipelines.open_asqa.open_ended.clip_conversation import ClipConversation, WriterSettings
from data_pipelines.open_asqa.open_ended.material import KnownClip, MissingFieldError
from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer, read_pairs
from data_pipelines.open_asqa.open_ended.prompt_files import (
    Prompt,
    prompt_of,
    prompts_of_two_calls,
)
from data_pipelines.open_asqa.open_ended.two_calls import TwoCalls
from data_pipelines.open_asqa.source_clip import SourceClip
from ltu_jax.clients.call_ledger import CallLedger
from ltu_jax.clients.conversations import ConversationState, Standing, standings
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.files import atomic_file, sha256_file, write_json
from ltu_jax.core.jsonl import write_jsonl

COUNTS = "open_ended.json"
# How a clip is asked about where its source has prompts of two calls; "both": in both ways.
CALLS = ("one", "two", "both")
_STEP_OF = {SPOKEN_TEXT: "transcribe", STYLE: "style"}


def sources_with_pairs(folder: BuildFolder, only: str) -> list[str]:
    """Return the sources that are named and have open-ended pairs.

    Raises:
        UserError: one that is not there, or none has pairs.
    """
    chosen = folder.chosen(only)
    found = [name for name in chosen if folder.file(name, OPEN_ENDED).is_file()]
    if not found:
        raise UserError(
            f"{folder.root} has no open-ended pairs of {shorten(chosen)} yet: make them with "
            f"`python -m data_pipelines.open_asqa generate {folder.root}`"
        )
    return found


def require_steps(folder: BuildFolder, sources: list[str]) -> None:
    """Require the files that prompts tell from.

    Raises:
        UserError: names the step to run, and for which sources.
    """
    for file, step in _STEP_OF.items():
        without = [
            name
            for name in sources
            if file in prompt_of(name).file.steps and not folder.file(name, file).is_file()
        ]
        if without:
            raise UserError(
                f"{shorten(without)}: there is no {file} yet; run `python -m "
                f"data_pipelines.open_asqa {step} {folder.root} --only {','.join(without)}`, or "
                "leave these sources out by --only"
            )


def known_clips(folder: BuildFolder, source: str) -> Iterator[KnownClip]:
    """Yield the clips of a source that are asked about, with what later steps found."""
    prompt = prompt_of(source)
    for clip, (texts, styles) in folder.joined(source, SPOKEN_TEXT, STYLE):
        if not prompt.file.datasets or clip.dataset in prompt.file.datasets:
            yield _known(clip, texts, styles)


def clips_with_lines(
    folder: BuildFolder, source: str
) -> Iterator[tuple[KnownClip, list[dict[str, Any]]]]:
    """Yield the clips that have open-ended pairs, with the lines of these."""
    joined = folder.joined(source, SPOKEN_TEXT, STYLE, OPEN_ENDED)
    for clip, (texts, styles, lines) in joined:
        if lines:
            yield _known(clip, texts, styles), lines


def pairs_in(lines: Sequence[Mapping[str, Any]]) -> list[QuestionAnswer]:
    """Return the pairs that lines have."""
    return [QuestionAnswer(line["question"], line["answer"]) for line in lines]


def _known(
    clip: SourceClip, texts: Sequence[Mapping[str, Any]], styles: Sequence[Mapping[str, Any]]
) -> KnownClip:
    return KnownClip(
        clip=clip,
        spoken_text=texts[0]["text"] if texts else "",
        style=styles[0] if styles else {},
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceConversations:
    """The conversations about a source.

    Attributes:
        folder: the build.
        source: name in the registry.
        settings: of the model.
        limit: at most so many clips, the first ones; None for all.
        calls: one of `CALLS`.
    """

    folder: BuildFolder
    source: str
    settings: WriterSettings
    limit: int | None = None
    calls: str = CALLS[0]

    @property
    def a_clip(self) -> int:
        """Return how many conversations there are about a clip."""
        return len(self._prompts())

    def all(self, missing: Counter[str] | None = None) -> Iterator[ClipConversation | TwoCalls]:
        """Yield those about each clip; `missing` counts clips that lack a field, by its name."""
        count = 0
        for known in known_clips(self.folder, self.source):
            if count == self.limit:
                return
            try:
                asked = self._about(known)
            except MissingFieldError as error:
                if missing is not None:
                    missing[str(error)] += 1
                continue
            count += 1
            yield from asked

    def _prompts(self) -> list[tuple[Prompt, ...]]:
        """Return those of each conversation about a clip."""
        two = prompts_of_two_calls(self.source) if self.calls != "one" else None
        one = [(prompt_of(self.source),)] if two is None or self.calls == "both" else []
        return one if two is None else [*one, two]

    def _about(self, known: KnownClip) -> list[ClipConversation | TwoCalls]:
        return [
            ClipConversation(known, prompts[0], self.settings)
            if len(prompts) == 1
            else TwoCalls(known, prompts, self.settings)
            for prompts in self._prompts()
        ]

    def write(self, ledger: CallLedger, *, tries: int) -> dict[str, Any]:
        """Write the pairs of all replies so far, in the order of the clips; return the counts.

        Where the pairs are others than before, what `filter` made of those is deleted.
        """
        counts: Counter[str] = Counter()
        missing: Counter[str] = Counter()
        given_up: Counter[str] = Counter()

        def lines() -> Iterator[Mapping[str, Any]]:
            found = standings(self.all(missing), ledger, tries=tries)
            for _, group in itertools.groupby(found, lambda one: one.conversation.clip.clip_id):
                of_clip = list(group)
                counts["clips"] += 1
                counts["asked in full"] += all(
                    one.state is ConversationState.DONE for one in of_clip
                )
                for standing in of_clip:
                    if standing.state is ConversationState.GIVEN_UP:
                        given_up[standing.record.reason] += 1
                    yield from self._lines(standing, counts)

        path = self.folder.file(self.source, OPEN_ENDED)
        with atomic_file(path) as new:
            write_jsonl(new, lines())
            # what was filtered is of other pairs: gone first, so that no kill leaves it there
            if not path.is_file() or sha256_file(new) != sha256_file(path):
                for name in (ACCEPTED, REFUSED, FILTER):
                    self.folder.file(self.source, name).unlink(missing_ok=True)
        result = {
            "prompt": ", ".join(prompt.name for own in self._prompts() for prompt in own),
            "model": self.settings.model,
            **counts,
            "given up": dict(sorted(given_up.items())),
            "clips without": dict(sorted(missing.items())),
        }
        write_json(self.folder.file(self.source, COUNTS), result)
        return result

    def _lines(self, standing: Standing, counts: Counter[str]) -> Iterator[Mapping[str, Any]]:
        conversation = standing.conversation
        requests = [
            conversation.next_request(standing.replies[:part])
            for part in range(len(standing.replies))
        ]
        for reply in standing.replies:
            read = read_pairs(reply.content)
            counts["replies"] += 1
            counts["replies that parse whole"] += read.whole
            counts["replies that were cut"] += reply.finish_reason == "length"
            counts["objects that are no pair"] += read.broken
        written = conversation.pairs(standing.replies)
        counts["pairs wanted"] += conversation.wanted
        counts["pairs"] += len(written)
        for one in written:
            yield {
                "clip_id": conversation.clip.clip_id,
                "question": one.pair.question,
                "answer": one.pair.answer,
                "prompt": requests[one.part].prompt,
                "model": self.settings.model,
                "request": requests[one.part].key,
                **({"wording": one.wording} if one.wording else {}),
            }
