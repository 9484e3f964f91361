"""Answers in the shape of OpenAI's chat completions: whole, and in chunks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ltu_jax.serving.engine_types import Finished, FinishReason, NewToken, TokenLogprob

_REASONS = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length"}


@dataclass(frozen=True, kw_only=True)
class AnswerHead:
    """What every chunk of an answer says alike."""

    id: str
    created: int
    model: str
    fingerprint: str

    def whole(self, choices: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Return a chat.completion."""
        return self._object("chat.completion", choices, more)

    def chunk(self, choices: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Return a chat.completion.chunk."""
        return self._object("chat.completion.chunk", choices, more)

    def _object(self, kind: str, choices: Any, more: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": list(choices),
            **more,
        }


@dataclass(kw_only=True)
class ChoiceText:
    """A choice as far as it is made; ids of `ends` are no part of its text."""

    index: int
    ends: frozenset[int]
    with_logprobs: bool
    text: str = ""
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finished: Finished | None = None

    def take(self, event: NewToken) -> None:
        """Add a token."""
        self.text += event.text
        if event.logprob is not None and event.id not in self.ends:
            top = [logprob(one) for one in event.top]
            self.logprobs.append({**logprob(event.logprob), "top_logprobs": top})

    def finish(self, event: Finished) -> None:
        """Take what was held back, and the end."""
        self.text += event.text
        self.finished = event

    def flush(self) -> tuple[str, dict[str, Any] | None]:
        """Return, and forget, the text and log-probabilities since the last time."""
        found = self.text, self._logprobs()
        self.text, self.logprobs = "", []
        return found

    def _logprobs(self) -> dict[str, Any] | None:
        return {"content": self.logprobs, "refusal": None} if self.with_logprobs else None

    def message(self) -> dict[str, Any]:
        """Return the choice of a whole answer."""
        return {
            "index": self.index,
            "message": {"role": "assistant", "content": self.text, "refusal": None},
            "logprobs": self._logprobs(),
            "finish_reason": finish_reason(self.finished),
        }


def finish_reason(event: Finished | None) -> str:
    """Return OpenAI's word for an end; an answer that was stopped from outside has "stop"."""
    return "stop" if event is None else _REASONS.get(event.reason, "stop")


def delta(index: int, content: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the choice of a chunk."""
    return {"index": index, "delta": content, "logprobs": None, "finish_reason": None, **more}


def logprob(one: TokenLogprob) -> dict[str, Any]:
    """Return a token with its log-probability."""
    return {"token": one.token, "bytes": list(one.data), "logprob": max(one.logprob, -9999.0)}


def usage(finished: Iterable[Finished], *, cached: int) -> dict[str, Any]:
    """Return the tokens of an answer; the prompt of several choices counts once."""
    ends = list(finished)
    prompt, audio = ends[0].usage.prompt, ends[0].usage.audio
    made = sum(one.usage.completion for one in ends)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {
            "audio_tokens": audio,
            "text_tokens": prompt - audio,
            "cached_tokens": cached,
        },
    }
