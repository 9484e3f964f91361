"""The messages of a chat request: turns of text and of audio, still encoded."""

import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ltu_jax.core.errors import brief
from ltu_jax.serving import field_kinds as kinds
from ltu_jax.serving.api_error import bad

MOST_MESSAGES = 256
_LONGEST = 1_000_000  # characters of a whole conversation: they are turned into tokens at once
_TEXT = kinds.text(_LONGEST)
_FORMAT = kinds.text(32)
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# What a client sends back of an answer. Null, or empty, they say nothing.
_SAYS_NOTHING = (None, [], {})
_SLICE = 4 << 18  # characters of base64 decoded at once, so that other work is not held up


@dataclass(frozen=True, kw_only=True)
class SentClip:
    """A clip as it was sent: base64 `data` of the field `param`."""

    param: str
    data: str

    def decode(self, *, most_bytes: int) -> bytes:
        """Return the bytes.

        Raises:
            ApiError: no base64, nothing, or too much.
        """
        if len(self.data) * 3 // 4 > most_bytes + 3:
            raise bad(self.param, f"is larger than {most_bytes:,} bytes", code="audio_too_large")
        parts = []
        try:
            for first in range(0, len(self.data), _SLICE):
                part = self.data[first : first + _SLICE].encode("ascii")
                parts.append(binascii.a2b_base64(part, strict_mode=True))
        except (binascii.Error, UnicodeEncodeError) as error:
            raise bad(self.param, f"is no base64 ({error})", code="invalid_base64") from None
        found = b"".join(parts)
        if not found:
            raise bad(self.param, "is empty; send the bytes of an audio file, in base64")
        return found


@dataclass(frozen=True, kw_only=True)
class ChatTurn:
    """What one side says: text, and clips; `role` is "system", "user" or "assistant"."""

    role: str
    text: str
    clips: tuple[SentClip, ...]


def read_messages(param: str, value: Any) -> tuple[ChatTurn, ...]:
    """Return the turns of a conversation, neighbours of one role as one turn.

    Raises:
        ApiError: what cannot be read, by its place: "messages[2].content[0].text".
    """
    messages = kinds.list_of(_message, most=MOST_MESSAGES)(param, value)
    if not messages:
        raise bad(param, "is empty; give at least one message of the user")
    if (size := sum(len(turn.text) for turn in messages)) > _LONGEST:
        raise bad(param, f"has {size:,} characters of text; give at most {_LONGEST:,}")
    turns: list[ChatTurn] = []
    for turn in messages:
        if turns and turns[-1].role == turn.role:
            last = turns.pop()
            joined = "\n".join(filter(None, (last.text, turn.text)))
            turn = ChatTurn(role=turn.role, text=joined, clips=last.clips + turn.clips)
        turns.append(turn)
    if [turn.role for turn in turns[1:]].count("system"):
        raise bad(param, "has instructions of the system behind the first turn; put them first")
    asked = [turn for turn in turns if turn.role != "system"]
    if not asked or asked[0].role != "user" or asked[-1].role != "user":
        raise bad(param, "has to begin (behind the system's) and to end with a message of the user")
    return tuple(turns)


def _message(param: str, value: Any) -> ChatTurn:
    message = kinds.mapping(param, value)
    role = message.get("role")
    if role in ("tool", "function"):
        raise bad(f"{param}.role", f"is {role!r}; this model calls no tools", code="unsupported")
    if not isinstance(role, str) or role not in _ROLES:
        raise bad(f"{param}.role", f"is {brief(role)}; give one of {', '.join(_ROLES)}")
    for name, given in message.items():
        if name == "name" and given is not None:
            kinds.text(256)(f"{param}.name", given)  # whose message it is does not matter
        elif name not in ("role", "content", "name", "ltu") and given not in _SAYS_NOTHING:
            raise bad(f"{param}.{name}", "is not supported", code="unsupported")
    content = message.get("content")
    if isinstance(content, str):
        return ChatTurn(role=_ROLES[role], text=_TEXT(f"{param}.content", content), clips=())
    if not isinstance(content, list) or not content:
        raise bad(f"{param}.content", f"is {brief(content)}; give a string, or a list of parts")
    texts, clips = [], []
    for number, part in enumerate(content):
        place = f"{param}.content[{number}]"
        made = _part(place, kinds.mapping(place, part))
        if isinstance(made, str):
            texts.append(made)
        elif _ROLES[role] != "user":
            raise bad(f"{place}.type", f"is audio, in a message of the {role}; give text")
        else:
            clips.append(made)
    return ChatTurn(role=_ROLES[role], text="\n".join(texts), clips=tuple(clips))


def _part(param: str, part: Mapping[str, Any]) -> str | SentClip:
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _PARTS:
        known = ", ".join(_PARTS)
        raise bad(f"{param}.type", f"is {brief(kind)}; known are {known}", code="unsupported")
    for name, given in part.items():
        if name not in ("type", kind) and given is not None:
            raise bad(f"{param}.{name}", "is not supported", code="unknown_parameter")
    return _PARTS[kind](f"{param}.{kind}", part.get(kind))


def _input_audio(param: str, value: Any) -> SentClip:
    # What the format says is not believed: the bytes tell it.
    audio = kinds.keys(param, value, {"data": _string, "format": _FORMAT}, needed=("data",))
    return SentClip(param=f"{param}.data", data=audio["data"])


def _audio_url(param: str, value: Any) -> SentClip:
    param = f"{param}.url"
    address = kinds.keys(param[:-4], value, {"url": _string}, needed=("url",))["url"]
    head, comma, data = address.partition(",")
    if not address[:5].lower() == "data:":
        raise bad(
            param,
            f"{address[:40]!r} is no data: address, and this server fetches nothing; send the "
            "audio itself (input_audio, or data:audio/wav;base64,...)",
            code="unsupported_url",
        )
    if not comma or not head.lower().endswith(";base64"):
        raise bad(param, "has to be data:audio/TYPE;base64,DATA", code="unsupported_url")
    return SentClip(param=param, data=data)


def _string(param: str, value: Any) -> str:
    if not isinstance(value, str):
        raise bad(param, f"is {brief(value)}; give a string", code="invalid_type")
    return value


_PARTS: dict[str, Callable[[str, Any], str | SentClip]] = {
    "text": _TEXT,
    "input_audio": _input_audio,
    "audio_url": _audio_url,
}
