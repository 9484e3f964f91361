"""A request for text to an OpenAI-compatible chat server, and what of the reply is kept."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from ltu_jax.clients.endpoint import EndpointError
from ltu_jax.clients.reply_cache import key

PATH = "/chat/completions"
_BYTES_A_TOKEN = 4  # of English, on average
_TEMPLATE_TOKENS = 256  # that a server may put around the messages
_MOST_COUNTED = 1 << 31  # tokens; at any price their cost is a number that a ledger holds


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """What decides a reply, beside chance.

    Attributes:
        prompt: name and version of the prompt.
        model: its name on the server.
        messages: (role, text) of each.
        parameters: all other fields of the request: temperature, seed, the limit of tokens, ...
        most_tokens: that limit.
        subject: what it is about; requests about two subjects are never one.
    """

    prompt: str
    model: str
    messages: tuple[tuple[str, str], ...]
    parameters: Mapping[str, Any]
    most_tokens: int
    subject: str = ""

    @functools.cached_property
    def body(self) -> dict[str, Any]:
        """Return the request as it is sent."""
        messages = [{"role": role, "content": text} for role, text in self.messages]
        return {"model": self.model, "messages": messages, **self.parameters}

    @functools.cached_property
    def key(self) -> str:
        """Return the name of this request, of all that decides the reply."""
        return key("chat", self.prompt, self.subject, json.dumps(self.body, sort_keys=True))

    @functools.cached_property
    def prompt_bound(self) -> int:
        """Return a number of tokens that the prompt cannot exceed: its bytes, with all fields."""
        text = json.dumps(self.body, ensure_ascii=False)
        return _TEMPLATE_TOKENS + len(text.encode(errors="surrogatepass"))

    @property
    def prompt_estimate(self) -> int:
        """Return about how many tokens the prompt has."""
        texts = sum(len(text.encode(errors="surrogatepass")) for _, text in self.messages)
        return -(-texts // _BYTES_A_TOKEN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatReply:
    """What a model wrote.

    Attributes:
        content: the text; "" where it declined.
        finish_reason: stop, length, content_filter, ...; "" where the server does not say.
        model: that answered, by the server's word.
        prompt_tokens, completion_tokens: that the server counted; None where it does not say.
    """

    content: str
    finish_reason: str = ""
    model: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def read_reply(reply: Mapping[str, Any], *, url: str) -> ChatReply:
    """Return what a server's JSON says.

    Raises:
        EndpointError: it is no reply to a chat.
    """
    try:
        choice = reply["choices"][0]
        content = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        choice, content = {}, 0
    if not isinstance(content, str | None):
        raise EndpointError(
            f"{url} replied to a chat without choices[0].message.content: "
            f"{str(reply)[:200]!r}; check that it serves /chat/completions",
            status=200,
        )
    usage = reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return ChatReply(
        content=content or "",
        finish_reason=_text(choice.get("finish_reason")),
        model=_text(reply.get("model")),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int | None:
    """Return a number of tokens; None of what no server can have counted, such as 2^64 - 1."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < _MOST_COUNTED else None
