"""Prompts that are known to fit: questions become ids, and what has no room is refused by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ltu_jax.core.errors import called
from ltu_jax.core.values import text, whole
from ltu_jax.generation.arguments import question as a_question
from ltu_jax.generation.generate import BATCH_BUCKETS
from ltu_jax.generation.limits import Asked, Limits
from ltu_jax.generation.questions import Request, batches
from ltu_jax.generation.spread import Spread
from ltu_jax.preprocessing.text import Tokenizer, prompt_ids


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Makes prompts of questions for a model of these limits, with `audio` tokens before them."""

    tokenizer: Tokenizer
    limits: Limits
    audio: int

    def one(
        self, question: Any, spoken_text: Any, *, with_audio: bool, max_new_tokens: Any
    ) -> tuple[list[int], int]:
        """The ids of a prompt that is streamed, and how many may follow; None is `Limits.usual`.

        Raises:
            UserError: an argument that cannot be used, or no room for the prompt and its answer.
        """
        a_question("question", question)
        new = None if max_new_tokens is None else whole("max_new_tokens", max_new_tokens)
        ids = self._ids(question, text("spoken_text", spoken_text))
        audio = self.audio if with_audio else 0
        if new is None:
            new = self.limits.usual(prompt=len(ids), audio=audio)
        self.limits.check(
            Asked(rows=1, prompt=len(ids), audio=audio, new=new, copies=2),
            longest=partial(_longer, question=question, spoken_text=spoken_text),
        )
        return ids, new

    def groups(
        self, requests: Sequence[Request], *, batch_size: int, max_new_tokens: Any, spread: Spread
    ) -> list[tuple[list[int], list[list[int]], list[int]]]:
        """(indices of requests, their ids, how many may follow) of every batch.

        All have room before the first is made.

        Raises:
            UserError: no room, by the request or the argument that asks for too much.
        """
        given = None if max_new_tokens is None else whole("max_new_tokens", max_new_tokens)
        prompts = [self._ids(one.question, one.spoken_text) for one in requests]
        made = []
        for group in batches(requests, prompts, batch_size):
            last = group[-1]  # a group is in the order of its prompts' lengths
            audio = 0 if requests[last].audio_features is None else self.audio
            new = [given or self.limits.usual(prompt=len(prompts[i]), audio=audio) for i in group]
            asked = Asked(
                rows=spread.on_one(len(group), BATCH_BUCKETS),
                prompt=len(prompts[last]),
                audio=audio,
                new=given or new[-1],
            )
            one = requests[last]
            longest = partial(
                _longer, question=one.question, spoken_text=one.spoken_text, of=f"requests[{last}]."
            )
            self.limits.check(asked, longest=longest)
            made.append((group, [prompts[i] for i in group], new))
        return made

    def _ids(self, question: str, spoken_text: str) -> list[int]:
        return prompt_ids(self.tokenizer, instruction=question, spoken_text=spoken_text)


def _longer(*, question: str, spoken_text: str, of: str = "") -> str:
    """Which of the two texts of a prompt is the longer, by its name and beginning."""
    asked = len(question) >= len(spoken_text)
    name, longer = ("question", question) if asked else ("spoken_text", spoken_text)
    return f"{called(of + name) if not of else of + name} ({longer[:40]!r}...)"
