"""What the engine is asked and what it tells: requests, events, counts, and their two protocols.

    ticket = engine.submit(EngineRequest(prompt=ids, clips=(model.listen(clip),)))
    for event in ticket.events():       # in any thread; `async for event in ticket.stream()` too
        ...                             # NewToken, NewToken, ..., then one Finished or Failed

The texts of a ticket's `NewToken` events, joined, are the text that `Model.answer` gives alone, cut
before the first stop string. `serving.engine.Engine` is the engine.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from ltu_jax.core.errors import UserError
from ltu_jax.generation.request import EncodedClip
from ltu_jax.generation.sampling import SamplingConfig

MOST_TOP_LOGPROBS = 20


class QueueFull(UserError):
    """As many requests wait as may: ask again after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float):
        super().__init__(message)
        self.retry_after = retry_after


class EngineClosed(UserError):
    """The engine takes no more requests: it drains, is closed, or a program of it failed."""


@dataclass(frozen=True, kw_only=True)
class JsonGrammar:
    """The answer is one JSON value: of this JSON schema, or with None any object."""

    schema: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """One answer to make.

    Attributes:
        prompt: token ids behind the audio, BOS included (`preprocessing.text.prompt_ids`).
        clips: what `Model.listen` returned, in order, before the text; those without features (text
            mode) put nothing there.
        max_new_tokens: the answer ends there at the latest, end token included; None is 400, or
            what a slot leaves.
        sampling: None is greedy. Its seed alone decides the draw, whoever else is answered.
        stop: strings that end the answer; the text stops before the first of them.
        logprobs: tell the log-probability of each token, by the model itself: before temperature
            and every other processor.
        top_logprobs: likeliest tokens that are told for each token, at most `MOST_TOP_LOGPROBS`.
        grammar: what the text has to be; it ends when that is complete.
        deadline: seconds after `submit` at which the answer ends with what there is, queued or
            running; None: none.
        prompt_lookup: guess tokens from the prompt and check several at once: a greedy answer has
            the same tokens, sooner where it quotes. Without effect on drawn answers.
        end_ids: ids that end an answer beside the tokenizer's own end token, at most 7.
    """

    prompt: tuple[int, ...]
    clips: tuple[EncodedClip, ...] = ()
    max_new_tokens: int | None = None
    sampling: SamplingConfig | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    grammar: JsonGrammar | None = None
    deadline: float | None = None
    prompt_lookup: bool = False
    end_ids: tuple[int, ...] = ()


# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """A token and its log-probability; `token` is its text alone, `data` its bytes."""

    id: int
    token: str
    data: bytes
    logprob: float


@dataclass(frozen=True, kw_only=True)
class NewToken:
    """One more token of the answer.

    `text` is what may be shown since the event before: often the token's own, "" while a character
    or what may become a stop string is incomplete, and then that of several tokens. `logprob` and
    `top` are there where they were asked for. The end token is an event too, of its own id.
    """

    text: str
    id: int
    logprob: TokenLogprob | None
    top: tuple[TokenLogprob, ...]


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"  # an end token, a stop string, or a complete grammar
    LENGTH = "length"  # max_new_tokens
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


@dataclass(frozen=True, kw_only=True)
class TokenUsage:
    """Tokens of a request: `prompt` are text and audio together, `audio` those of its clips.

    `cached` are those of the prompt that an earlier one began with: they were not read again.
    """

    prompt: int
    audio: int
    cached: int
    completion: int


@dataclass(frozen=True, kw_only=True)
class RequestTimings:
    """Seconds: in the queue; from there to the first token; from the first token to the end."""

    queued: float
    first_token: float
    decoding: float


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The last event of an answer that ended; `text` is what was held back until now.

    `stop` is the stop string that ended it, None otherwise; `tokens` are all new ids (end token
    included), of which a stop string may have cut the text.
    """

    reason: FinishReason
    text: str
    stop: str | None
    tokens: tuple[int, ...]
    usage: TokenUsage
    timings: RequestTimings


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The last event of an answer that the engine could not make."""

    error: Exception


Event = NewToken | Finished | Failed


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """Counts since the engine was made, and what goes on now.

    Attributes:
        ready: `warm` is done and requests are taken.
        slots: rows that can be answered at once.
        slot_tokens: audio, prompt and answer of one together.
        busy: slots in use.
        queued: requests that wait for one.
        submitted: requests taken so far.
        finished: answers ended so far, by `FinishReason`.
        failed: answers that failed.
        prompt_tokens: tokens of prompts read.
        completion_tokens: tokens of answers that ended.
        dispatches: decoding programs run.
        compiled: programs compiled by this process since `warm` ended; 0 is right.
        kv_bytes: memory of the keys and values.
    """

    ready: bool
    slots: int
    slot_tokens: int
    busy: int
    queued: int
    submitted: int
    finished: Mapping[str, int]
    failed: int
    prompt_tokens: int
    completion_tokens: int
    dispatches: int
    compiled: int
    kv_bytes: int


# --- protocols ------------------------------------------------------------------------------------


class AnswerTicket(Protocol):
    """A request on its way. Its events are for one reader."""

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Yield events in order up to `Finished` or `Failed`; waits for each in this thread.

        Raises:
            TimeoutError: none came in `timeout` seconds.
        """
        ...

    def stream(self) -> AsyncIterator[Event]:
        """Yield the same events in the running asyncio loop."""
        ...

    def cancel(self) -> None:
        """End the answer, queued or running: its slot is free within one dispatch. Any thread."""
        ...


class AnswerEngine(Protocol):
    """Answers many requests at once; every method may be called from any thread."""

    def submit(self, request: EngineRequest) -> AnswerTicket:
        """Take a request; its answer is the one that it gets alone.

        Raises:
            UserError: a request that cannot be answered, by the field that is wrong.
            QueueFull: too many wait.
            EngineClosed: after `drain` or `close`, or after a failure of the engine itself.
        """
        ...

    def stats(self) -> EngineStats:
        """Return counts; cheap."""
        ...

    def warm(self) -> None:
        """Compile every program that answers may need; afterwards nothing is compiled."""
        ...

    def drain(self, timeout: float | None = None) -> bool:
        """Take no more requests and wait for those there are; tells whether all ended in time."""
        ...

    def close(self) -> None:
        """Cancel what still runs, and end the engine's thread."""
        ...
