"""What is asked about a clip: all pairs at once, and the rest again where a reply was cut."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data_pipelines.open_asqa import draw
from data_pipelines.open_asqa.open_ended.material import KnownClip, material
from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer, read_pairs
from data_pipelines.open_asqa.open_ended.prompt_files import Prompt
from ltu_jax.clients.chat import ChatReply, CompletionRequest

MOST_PARTS = 4  # requests about a clip; each may take twice the tokens of the one before
_FRAME_TOKENS = 64  # of the JSON around the pairs
_ASKS = "What|Which|Why|How|Where|When|Who|Whose|Is|Are|Does|Do|Can|Could|Would"
_QUESTION = rf'^(?:{_ASKS}) [^"\\\n?]{{10,110}}\?$'
_ANSWER = r'^[A-Z][^"\\\n]{60,240}\.$'


@dataclasses.dataclass(frozen=True, kw_only=True)
class WriterSettings:
    """Which model writes, and how.

    Attributes:
        model: its name on the server.
        pairs: how many are asked for; None for what the prompt says.
        tokens_a_pair: that a reply may take.
        temperature: of the draw.
        structured: ask for JSON by a schema.
        patterns: of its texts, too, and of all pairs: a small model else copies the prompt's form.
        seeded: send a seed that belongs to the clip.
        limit_field: max_tokens, or what the server calls it.
        extra: further fields of every request.
    """

    model: str
    pairs: int | None = None
    tokens_a_pair: int = 90
    temperature: float = 1.0
    structured: bool = True
    patterns: bool = False
    seeded: bool = True
    limit_field: str = "max_tokens"
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenPair:
    """A pair, and the number of the reply that it stands in.

    Attributes:
        pair: question and answer.
        part: the number.
        wording: name of the wording where the question is one of ours; "" where the model asked.
    """

    pair: QuestionAnswer
    part: int
    wording: str = ""


class RequestAhead(NamedTuple):
    """A request that is to come, and the pairs that are asked for in it."""

    request: CompletionRequest
    pairs: int


class ClipConversation:
    """The requests about one clip."""

    def __init__(self, known: KnownClip, prompt: Prompt, settings: WriterSettings):
        """Take the material of a clip.

        Raises:
            MissingFieldError: the clip lacks a field that the prompt needs.
        """
        self.clip, self.prompt, self.settings = known.clip, prompt, settings
        self.material = material(
            known, required=prompt.file.required, optional=prompt.file.optional
        )

    @property
    def wanted(self) -> int:
        """Return how many pairs are asked for."""
        return self.settings.pairs or self.prompt.file.pairs

    def next_request(self, replies: Sequence[ChatReply]) -> CompletionRequest | None:
        """Return the first request, or one for what is missing after a cut reply."""
        pairs = [written.pair for written in self.pairs(replies)]
        missing = self.wanted - len(pairs)
        if replies and (missing <= 0 or not _cut(replies[-1]) or len(replies) == MOST_PARTS):
            return None
        return self._request(missing, pairs, part=len(replies))

    def ahead(self, replies: Sequence[ChatReply]) -> list[RequestAhead]:
        """Return the request that comes next, if there is one."""
        request = self.next_request(replies)
        missing = self.wanted - len(self.pairs(replies))
        return [] if request is None else [RequestAhead(request, missing)]

    def problem(self, reply: ChatReply) -> str:
        """Return why there is no use in a reply; a cut one tells that more tokens are needed."""
        return reply_problem(reply)

    def pairs(self, replies: Sequence[ChatReply]) -> list[WrittenPair]:
        """Return the whole pairs of all replies, no more than were asked for."""
        found = [
            WrittenPair(pair=pair, part=part)
            for part, reply in enumerate(replies)
            for pair in read_pairs(reply.content).pairs
        ]
        return found[: self.wanted]

    def _request(
        self, count: int, asked: Sequence[QuestionAnswer], *, part: int
    ) -> CompletionRequest:
        settings, clip = self.settings, self.clip
        system = _system(self.prompt, count, part > 0)
        content: dict[str, Any] = {"clip": self.material}
        if asked:
            content["already asked"] = [pair.question for pair in asked]
        most = (_FRAME_TOKENS + count * settings.tokens_a_pair) * 2**part
        parameters = {settings.limit_field: most, "temperature": settings.temperature}
        if settings.seeded:
            names = ("seed", clip.source, clip.clip_id, str(part))
            parameters["seed"] = int(draw.fraction(*names) * 2**31)
        if settings.structured:
            parameters["response_format"] = schema(count, patterns=settings.patterns)
        return CompletionRequest(
            prompt=self.prompt.name,
            model=settings.model,
            messages=(
                ("system", system),
                ("user", json.dumps(content, ensure_ascii=False)),
            ),
            parameters={**parameters, **settings.extra},
            most_tokens=most,
            # two clips of the same facts are two requests, whatever the server makes of the seed
            subject=f"{clip.source} {clip.clip_id}",
        )


def reply_problem(reply: ChatReply) -> str:
    """Return why there is no use in a reply; "" where there is."""
    if reply.finish_reason == "content_filter":
        return "content filter"
    if _cut(reply) or read_pairs(reply.content).pairs:
        return ""
    return "no pair in the reply" if reply.content.strip() else "empty reply"


def _cut(reply: ChatReply) -> bool:
    return reply.finish_reason == "length"


@functools.lru_cache(maxsize=256)
def _system(prompt: Prompt, count: int, again: bool) -> str:
    text = prompt.system.replace("{pairs}", str(count))
    return f"{text}\n{prompt.again}" if again else text


@functools.lru_cache(maxsize=64)
def schema(count: int, *, patterns: bool = False) -> dict[str, Any]:
    """Return the `response_format` of at most so many pairs.

    With `patterns` there are exactly so many, and their texts begin and end as such texts do: small
    models else stop early, and copy the form.
    """
    question, answer = (
        {"type": "string"} | ({"pattern": pattern} if patterns else {})
        for pattern in (_QUESTION, _ANSWER)
    )
    pair = {
        "type": "object",
        "properties": {"q": question, "a": answer},
        "required": ["q", "a"],
        "additionalProperties": False,
    }
    pairs = {"type": "array", "items": pair, "maxItems": count}
    if patterns:
        pairs["minItems"] = count
    return {
        "type": "json_schema",
        "json_schema": {
            "name": "pairs",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"pairs": pairs},
                "required": ["pairs"],
                "additionalProperties": False,
            },
        },
    }
