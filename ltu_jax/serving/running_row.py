"""One request from the queue to its end, on the host: its tokens become events."""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ltu_jax.generation.answer_text import AnswerText
from ltu_jax.serving.engine_types import (
    Failed,
    Finished,
    FinishReason,
    NewToken,
    RequestTimings,
    TokenLogprob,
    TokenUsage,
)
from ltu_jax.serving.json_grammar import JsonMatcher
from ltu_jax.serving.slot_choice import RowLogprobs
from ltu_jax.serving.slot_programs import RowRequest
from ltu_jax.serving.tickets import Ticket
from ltu_jax.serving.token_texts import TokenTexts


@dataclass(frozen=True, kw_only=True)
class _Promise:
    """The tokens that dispatched steps make, unless the row ends."""

    least: int
    most: int


@dataclass(kw_only=True, eq=False)
class RunningRow:
    """A request; all but its making is for the engine's thread.

    Attributes:
        program: what the programs read.
        features: of its clips.
        audio: audio tokens in its prompt.
        top: likeliest tokens that are told for each token.
        matcher: the state of its grammar.
        submitted: `time.monotonic` when it came.
        deadline: the same when it has to end, or None.
    """

    ticket: Ticket
    program: RowRequest
    features: tuple[np.ndarray, ...]
    audio: int
    top: int
    text: AnswerText
    texts: TokenTexts
    matcher: JsonMatcher | None
    submitted: float
    deadline: float | None
    tokens: list[int] = field(default_factory=list)
    reason: FinishReason | None = None
    ended: bool = False
    entered: float | None = None
    cached: int = 0
    first_token: float | None = None
    newest: float | None = None
    _dispatched: deque[_Promise] = field(default_factory=deque)

    # --- before its tokens ------------------------------------------------------------------------

    def unwanted(self, now: float) -> FinishReason | None:
        """Tell why the answer has to end although it is not complete; None if it has not."""
        if self.ticket.cancelled:
            return FinishReason.CANCELLED
        late = self.deadline is not None and now >= self.deadline
        return FinishReason.DEADLINE if late else None

    def enter(self, now: float, *, cached: int) -> None:
        """Note that the prompt is read, but for `cached` places, which makes the first token."""
        self.entered, self.cached = now, cached
        self.promise(1, drafts=0)

    def promise(self, steps: int, *, drafts: int) -> None:
        """Note that steps are dispatched."""
        self._dispatched.append(_Promise(least=steps, most=steps * (1 + drafts)))

    def settle(self) -> None:
        """Note that the oldest of the dispatched steps is being read."""
        self._dispatched.popleft()

    @property
    def steps_left(self) -> int:
        """Return how many tokens are wanted that no dispatched step makes for sure."""
        return self.program.limit - len(self.tokens) - sum(one.least for one in self._dispatched)

    @property
    def wants_steps(self) -> bool:
        """Tell whether more steps should be dispatched."""
        return not self.ended and self.steps_left > 0

    @property
    def places(self) -> int:
        """Return the places of the cache that dispatched steps reach at most."""
        made = len(self.tokens) + sum(one.most for one in self._dispatched)
        return len(self.program.ids) + min(made, self.program.limit)

    def allowed(self) -> np.ndarray | None:
        """Return which tokens the grammar allows next, as bits; None without a grammar."""
        return None if self.matcher is None else self.matcher.allowed()

    # --- its tokens -------------------------------------------------------------------------------

    def take(self, token: int, logprobs: RowLogprobs | None, *, place: Any) -> None:
        """Add a token, tell the reader, and end the answer if it is the last one."""
        self.newest = time.monotonic()
        self.first_token = self.first_token or self.newest
        self.tokens.append(token)
        end = token in self.program.ends
        if self.matcher is not None and not end:
            self.matcher.take(token)
        text = "" if end else self.text.push(token)
        chosen, top = self._logprobs(token, logprobs, place=place)
        self.ticket.put(NewToken(text=text, id=token, logprob=chosen, top=top))
        complete = self.matcher is not None and self.matcher.complete
        if end or complete or self.text.stopped is not None:
            self.end(FinishReason.STOP)
        elif len(self.tokens) == self.program.limit:
            self.end(FinishReason.LENGTH)

    def _logprobs(
        self, token: int, logprobs: RowLogprobs | None, *, place: Any
    ) -> tuple[TokenLogprob | None, tuple[TokenLogprob, ...]]:
        if logprobs is None or not self.program.logprobs:
            return None, ()
        ids, values = logprobs.top_ids[place][: self.top], logprobs.top[place][: self.top]
        top = zip(ids.tolist(), values.tolist(), strict=True)
        return (
            self.texts.logprob(token, float(logprobs.chosen[place])),
            tuple(self.texts.logprob(one, value) for one, value in top if one >= 0),
        )

    # --- its end ----------------------------------------------------------------------------------

    def end(self, reason: FinishReason) -> None:
        """End the answer; what comes after is not looked at."""
        if self.ended:
            return
        self.ended, self.reason = True, reason
        now = time.monotonic()
        entered = now if self.entered is None else self.entered
        first = now if self.first_token is None else self.first_token
        self.ticket.put(
            Finished(
                reason=reason,
                text=self.text.flush(),
                stop=self.text.stopped,
                tokens=tuple(self.tokens),
                usage=TokenUsage(
                    prompt=len(self.program.ids),
                    audio=self.audio,
                    cached=self.cached,
                    completion=len(self.tokens),
                ),
                timings=RequestTimings(
                    queued=entered - self.submitted,
                    first_token=first - entered,
                    decoding=(self.newest or first) - first,
                ),
            )
        )

    def fail(self, error: Exception) -> None:
        """End the answer with an error."""
        if not self.ended:
            self.ended = True
            self.ticket.put(Failed(error=error))
