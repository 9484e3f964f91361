"""Two calls about a clip: what its words and its sounds suggest together, then questions.

The reply to the first call becomes a pair under a question of ours (implied_questions.toml), and
the second call is told it. Of sources with the prompts SOURCE_first.toml and SOURCE_second.toml.
"""

import dataclasses
import functools
import tomllib
from collections.abc import Sequence
from importlib import resources

from data_pipelines.open_asqa import draw
from data_pipelines.open_asqa.open_ended.clip_conversation import (
    ClipConversation,
    RequestAhead,
    WriterSettings,
    WrittenPair,
    reply_problem,
)
from data_pipelines.open_asqa.open_ended.material import KnownClip
from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer
from data_pipelines.open_asqa.open_ended.prompt_files import Prompt
from ltu_jax.clients.chat import ChatReply, CompletionRequest

_STAND_IN = " ".join(["word"] * 30)  # for the reply to the first call, where its length counts


class TwoCalls:
    """The requests about one clip: like `ClipConversation`, one after the other."""

    def __init__(self, known: KnownClip, prompts: tuple[Prompt, Prompt], settings: WriterSettings):
        """Take the material of a clip, and the prompts of both calls.

        Raises:
            MissingFieldError: the clip lacks a field that the prompts need.
        """
        self.clip, self._known, self._settings = known.clip, known, settings
        first, self._prompt = prompts
        self._first = ClipConversation(known, first, dataclasses.replace(settings, pairs=1))

    @property
    def wanted(self) -> int:
        """Return how many pairs are asked for, that of the first call among them."""
        return 1 + (self._settings.pairs or self._prompt.file.pairs)

    def next_request(self, replies: Sequence[ChatReply]) -> CompletionRequest | None:
        """Return the next request; None when all was asked, or the first call came to nothing."""
        first, later = self._parted(replies)
        request = self._first.next_request(first)
        if request is not None:
            return request
        second = self._second(first)
        return None if second is None else second.next_request(later)

    def ahead(self, replies: Sequence[ChatReply]) -> list[RequestAhead]:
        """Return the requests that are still to come if none is cut."""
        first, later = self._parted(replies)
        second = self._second(first)
        if second is not None:
            return second.ahead(later)
        asked = self._first.ahead(first)
        return asked and [*asked, *self._asking(_STAND_IN).ahead(())]

    def problem(self, reply: ChatReply) -> str:
        """Return why there is no use in a reply."""
        return reply_problem(reply)

    def pairs(self, replies: Sequence[ChatReply]) -> list[WrittenPair]:
        """Return the whole pairs of all replies, no more than were asked for."""
        first, later = self._parted(replies)
        second = self._second(first)
        if second is None:
            return []
        (implied,) = self._first.pairs(first)
        wording, question = _question(self.clip.source, self.clip.clip_id)
        pair = QuestionAnswer(question, implied.pair.answer)
        return [
            dataclasses.replace(implied, pair=pair, wording=wording),
            *(dataclasses.replace(one, part=one.part + len(first)) for one in second.pairs(later)),
        ]

    def _parted(
        self, replies: Sequence[ChatReply]
    ) -> tuple[Sequence[ChatReply], Sequence[ChatReply]]:
        """Return the replies to the first call, a cut one among them, and those to the second."""
        count = 0
        while count < len(replies) and self._first.next_request(replies[:count]) is not None:
            count += 1
        return replies[:count], replies[count:]

    def _second(self, first: Sequence[ChatReply]) -> ClipConversation | None:
        """Return the second call, told what came of the first; None where nothing has."""
        found = self._first.pairs(first)
        return self._asking(found[0].pair.answer) if found else None

    def _asking(self, implied: str) -> ClipConversation:
        known = dataclasses.replace(self._known, implied=implied)
        return ClipConversation(known, self._prompt, self._settings)


def _question(*names: str) -> tuple[str, str]:
    """Return the name of a wording, and the wording, by the name of a clip."""
    number = draw.choose(range(len(questions())), *names, "implied")
    return f"implied/{number}", questions()[number]


@functools.cache
def questions() -> tuple[str, ...]:
    """Return the questions of implied_questions.toml."""
    text = resources.files(__package__).joinpath("implied_questions.toml").read_text()
    return tuple(tomllib.loads(text)["questions"])
