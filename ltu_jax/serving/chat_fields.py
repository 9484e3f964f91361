"""Every field of OpenAI's chat request: honoured, ignored, or refused; the docs show this table.

A field that stands in no row is refused by name: nothing that a client asks is dropped silently.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ltu_jax.core.errors import brief
from ltu_jax.generation.request import AnswerMode
from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.serving import field_kinds as kinds
from ltu_jax.serving.api_error import ApiError, bad
from ltu_jax.serving.chat_messages import ChatTurn, read_messages
from ltu_jax.serving.engine_types import MOST_TOP_LOGPROBS, JsonGrammar
from ltu_jax.serving.server_settings import LONGEST_NAME

MOST_CHOICES = 16
_MOST_STOPS, _LONGEST_STOP = 4, 256
_GREEDY_BELOW = 1e-6  # a lower temperature is none: its scores would not be finite
_LARGEST = 2**31 - 1


class Handling(StrEnum):
    """What happens to a field."""

    HONOURED = "honoured"
    IGNORED = "ignored"  # of the right type, it changes nothing
    REFUSED = "refused"  # 400 by name, but for a value that asks for nothing


@dataclass(frozen=True, kw_only=True)
class ChatField:
    """A field of the request; `neutral` are values of a refused one that ask for nothing."""

    name: str
    handling: Handling
    read: kinds.Reader
    note: str
    neutral: tuple[Any, ...] = ()


def _stop(param: str, value: Any) -> tuple[str, ...]:
    one = kinds.text(_LONGEST_STOP, least=1)
    if isinstance(value, str):
        return (one(param, value),)
    return kinds.list_of(one, most=_MOST_STOPS)(param, value)


def _stream_options(param: str, value: Any) -> dict[str, Any]:
    flags = {"include_usage": kinds.boolean, "include_obfuscation": kinds.boolean}
    return kinds.keys(param, value, flags)


def _response_format(param: str, value: Any) -> JsonGrammar | None:
    asked = kinds.mapping(param, value)
    kind = kinds.one_of("text", "json_object", "json_schema")(f"{param}.type", asked.get("type"))
    readers: dict[str, kinds.Reader] = {"type": kinds.anything}
    if kind == "json_schema":
        readers["json_schema"] = _json_schema
    found = kinds.keys(param, value, readers, needed=tuple(readers))
    return None if kind == "text" else JsonGrammar(schema=found.get("json_schema"))


def _json_schema(param: str, value: Any) -> Mapping[str, Any]:
    readers = {
        "name": kinds.text(256), "description": kinds.text(65_536), "strict": kinds.boolean,
        "schema": kinds.mapping,
    }  # fmt: skip
    return kinds.keys(param, value, readers, needed=("name", "schema"))["schema"]


def _modalities(param: str, value: Any) -> tuple[str, ...]:
    asked = kinds.list_of(kinds.one_of("text", "audio"), most=2)(param, value)
    if "audio" in asked:
        raise bad(param, "asks for audio, and this model answers in text", code="unsupported")
    return asked


def _ltu(param: str, value: Any) -> dict[str, Any]:
    readers = {
        "mode": kinds.one_of(*AnswerMode), "prompt_lookup": kinds.boolean,
        "resumable": kinds.boolean,
    }  # fmt: skip
    return kinds.keys(param, value, readers)


def _rows(handling: Handling, *rows: tuple) -> tuple[ChatField, ...]:
    return tuple(
        ChatField(name=name, handling=handling, read=read, note=note, neutral=tuple(neutral))
        for name, read, note, *neutral in rows
    )


FIELDS = (
    *_rows(
        Handling.HONOURED,
        ("model", kinds.text(LONGEST_NAME), "as `/v1/models` lists it; another is a 404"),
        ("messages", read_messages, "text, `input_audio`, `audio_url` with `data:`, in any turn"),
        ("max_completion_tokens", kinds.whole(1, _LARGEST), "default: 400, or what a slot leaves"),
        ("max_tokens", kinds.whole(1, _LARGEST), "its older name"),
        ("temperature", kinds.real(0, 2), "default: 0, greedy, as `Model.answer`"),
        ("top_p", kinds.real(0, 1), "default: 1"),
        ("top_k", kinds.whole(0, _LARGEST), "ours; default: 0, off"),
        ("repetition_penalty", kinds.real(0.01, 100), "ours; default: 1, off"),
        ("seed", kinds.whole(0, 2**32 - 1), "alone decides the draw; default: drawn, and told"),
        ("stop", _stop, f"up to {_MOST_STOPS} strings, also across tokens"),
        ("n", kinds.whole(1, MOST_CHOICES), "choice i draws with seed + i"),
        ("stream", kinds.boolean, "server-sent events"),
        ("stream_options", _stream_options, "`include_usage`; `include_obfuscation` is ignored"),
        ("response_format", _response_format, "`text`, `json_object`, `json_schema`"),
        ("logprobs", kinds.boolean, "by the model itself, before temperature and the rest"),
        ("top_logprobs", kinds.whole(0, MOST_TOP_LOGPROBS), "needs `logprobs`"),
        ("modalities", _modalities, '`["text"]`; audio is refused'),
        ("ltu", _ltu, "ours: `mode` joint, audio, text; `resumable`; `prompt_lookup` (`--drafts`)"),
    ),
    *_rows(
        Handling.IGNORED,
        ("user", kinds.text(4_096), "nothing is kept of anybody"),
        ("safety_identifier", kinds.text(4_096), "nothing is kept of anybody"),
        ("metadata", kinds.mapping, "nothing is kept of anybody"),
        ("prompt_cache_key", kinds.text(4_096), "clips are known by their bytes"),
        ("prompt_cache_options", kinds.mapping, "clips are known by their bytes"),
        ("prompt_cache_retention", kinds.text(64), "clips are known by their bytes"),
        ("prediction", kinds.mapping, "answers are the same without"),
        ("service_tier", kinds.text(64), "there is one"),
        ("reasoning_effort", kinds.text(64), "the model does not reason first"),
        ("verbosity", kinds.text(64), "ask for it in words"),
        ("parallel_tool_calls", kinds.boolean, "there are no tools"),
    ),
    *_rows(
        Handling.REFUSED,
        ("frequency_penalty", kinds.real(-2, 2), "see `repetition_penalty`", 0),
        ("presence_penalty", kinds.real(-2, 2), "see `repetition_penalty`", 0),
        ("logit_bias", kinds.mapping, "", {}),
        ("store", kinds.boolean, "nothing is kept of anybody", False),
        ("audio", kinds.mapping, "the model answers in text"),
        ("tools", kinds.list_of(kinds.mapping, most=1_024), "the model calls no tools", ()),
        ("tool_choice", kinds.anything, "the model calls no tools", "none", "auto"),
        ("functions", kinds.list_of(kinds.mapping, most=1_024), "the model calls no tools", ()),
        ("function_call", kinds.anything, "the model calls no tools", "none", "auto"),
        ("web_search_options", kinds.mapping, "the server opens no addresses"),
        ("moderation", kinds.mapping, ""),
    ),
)  # fmt: skip
_BY_NAME = {one.name: one for one in FIELDS}


def table() -> str:
    """Return the table of the page."""
    lines = ["| field | | |", "|---|---|---|"]
    for one in FIELDS:
        accepted = ", ".join(f"`{brief(value)}`" for value in one.neutral)
        note = "; ".join(filter(None, (one.note, f"accepted: {accepted}" if accepted else "")))
        lines.append(f"| `{one.name}` | {one.handling} | {note} |")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A chat request that was read.

    Attributes:
        model: the name that was asked for.
        turns: the conversation, ending in the user's.
        max_new_tokens: None is the engine's default.
        configs: how each choice is drawn; None is greedy.
        seed: of the first choice; None where nothing is drawn.
        mode: what the model is given of clips; None where the request does not say.
        resumable: a stream that a client may leave and take up again.
    """

    model: str
    turns: tuple[ChatTurn, ...]
    max_new_tokens: int | None
    configs: tuple[SamplingConfig | None, ...]
    seed: int | None
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    grammar: JsonGrammar | None
    logprobs: bool
    top_logprobs: int
    mode: AnswerMode | None
    prompt_lookup: bool
    resumable: bool


def read_chat(body: Any) -> ChatRequest:
    """Read the JSON body of a request.

    Raises:
        ApiError: 400, naming the field.
    """
    if not isinstance(body, dict):
        raise ApiError(400, f"the body is {brief(body)}; send a JSON object", code="invalid_type")
    given = _given(body)
    ltu, options = given.get("ltu", {}), given.get("stream_options", {})
    if "stream_options" in given and not given.get("stream"):
        raise bad("stream_options", "needs stream: true")
    if given.get("top_logprobs") and not given.get("logprobs"):
        raise bad("top_logprobs", "needs logprobs: true")
    if ltu.get("resumable") and not given.get("stream"):
        raise bad("ltu.resumable", "needs stream: true")
    configs, seed = _drawing(given)
    mode = ltu.get("mode")
    return ChatRequest(
        model=given["model"],
        turns=given["messages"],
        max_new_tokens=_max_new_tokens(given),
        configs=configs,
        seed=seed,
        stop=given.get("stop", ()),
        stream=given.get("stream", False),
        include_usage=options.get("include_usage", False),
        grammar=given.get("response_format"),
        logprobs=given.get("logprobs", False),
        top_logprobs=given.get("top_logprobs", 0),
        mode=None if mode is None else AnswerMode(mode),
        prompt_lookup=ltu.get("prompt_lookup", False),
        resumable=ltu.get("resumable", False),
    )


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is honoured, by name; null is as if absent."""
    for name in ("model", "messages"):
        if body.get(name) is None:
            raise bad(name, "is missing", code="missing_required_parameter")
    found = {}
    for name, value in body.items():
        row = _BY_NAME.get(name)
        if row is None:
            raise bad(name[:80], "is unknown; see docs/serving.md", code="unknown_parameter")
        if value is None:
            continue
        read = row.read(name, value)
        if row.handling is Handling.HONOURED:
            found[name] = read
        elif row.handling is Handling.REFUSED and read not in row.neutral:
            why = f"is not supported: {row.note}" if row.note else "is not supported"
            raise bad(name, why, code="unsupported")
    return found


def _max_new_tokens(given: Mapping[str, Any]) -> int | None:
    values = {given[n] for n in ("max_completion_tokens", "max_tokens") if n in given}
    if len(values) > 1:
        raise bad("max_tokens", "is not max_completion_tokens; give one of them")
    return next(iter(values), None)


def _drawing(given: Mapping[str, Any]) -> tuple[tuple[SamplingConfig | None, ...], int | None]:
    """Return the settings of every choice, and the first one's seed."""
    temperature, top_p = given.get("temperature", 0.0), given.get("top_p", 1.0)
    penalty, count = given.get("repetition_penalty", 1.0), given.get("n", 1)
    drawn = temperature > _GREEDY_BELOW and top_p > _GREEDY_BELOW
    if not drawn and penalty == 1:
        return (None,) * count, None
    seed = given.get("seed", secrets.randbits(32))
    configs = tuple(
        SamplingConfig(
            temperature=temperature if drawn else 1.0,
            top_p=top_p if drawn else 1.0,
            top_k=given.get("top_k", 0) if drawn else 0,
            repetition_penalty=penalty,
            seed=(seed + number) % 2**32,
            pick="draw" if drawn else "argmax",
        )
        for number in range(count)
    )
    return configs, seed if drawn else None
