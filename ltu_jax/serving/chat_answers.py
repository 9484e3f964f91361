"""/v1/chat/completions: a request read, its clips heard, its answers made, whole or in a stream."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ltu_jax.core.errors import UserError
from ltu_jax.generation.request import AnswerMode
from ltu_jax.preprocessing.tokenizer import Tokenizer
from ltu_jax.serving.answer_stream import AnswerStream, EventResponse, StreamRegistry
from ltu_jax.serving.api_error import ApiError, audio_errors, bad, log_error, of_user_error
from ltu_jax.serving.chat_fields import ChatRequest, read_chat
from ltu_jax.serving.chat_messages import ChatTurn, SentClip
from ltu_jax.serving.chat_shapes import AnswerHead, ChoiceText, delta, finish_reason, usage
from ltu_jax.serving.chat_template import ChatTemplate
from ltu_jax.serving.clip_cache import ClipCache, HeardClip
from ltu_jax.serving.conversation import conversation_ids
from ltu_jax.serving.engine_types import (
    AnswerEngine,
    AnswerTicket,
    EngineClosed,
    EngineRequest,
    Failed,
    Finished,
    FinishReason,
    NewToken,
    QueueFull,
)
from ltu_jax.serving.http_body import parse_json, read_body, watched
from ltu_jax.serving.server_settings import ServerSettings
from ltu_jax.serving.serving_metrics import ServingMetrics

_LONGEST_TOKEN = 128  # characters; of the vocabularies that there are
_DEADLINE = "the answer was not ready in time; ask shorter, or later"


@dataclass(kw_only=True, eq=False)
class _Asked:
    """A request that the engine has taken: a ticket for each choice."""

    chat: ChatRequest
    head: AnswerHead
    heard: tuple[HeardClip, ...]
    ltu: dict[str, Any]
    choices: list[ChoiceText]
    tickets: list[AnswerTicket]
    begun: float
    stopped: bool = False  # from outside: the client, or the end of the server

    def stop(self) -> None:
        self.stopped = True
        self.free()

    def free(self) -> None:
        """Let the engine go on without it; what has ended does not mind."""
        for ticket in self.tickets:
            ticket.cancel()

    @property
    def cached_tokens(self) -> int:
        """Audio tokens whose clip needed no hearing."""
        tokens = [one.clip.features.shape[1] for one in self.heard
                  if one.cached and one.clip.features is not None]  # fmt: skip
        return sum(tokens)

    def told(self) -> dict[str, Any]:
        """The `ltu` object of an answer that has ended."""
        ends = [one.finished for one in self.choices if one.finished is not None]
        timings = dict(self.ltu["timings"])
        if ends:
            times = ends[0].timings
            timings |= {
                "queued": times.queued,
                "first_token": times.first_token,
                "decoding": times.decoding,
            }
        timings["total"] = time.monotonic() - self.begun
        told = {**self.ltu, "timings": timings, "tokens": list(ends[0].tokens) if ends else []}
        return told | ({"stopped": True} if self.stopped else {})


@dataclass(kw_only=True, eq=False)
class ChatAnswers:
    """Answers chat requests by one engine.

    Attributes:
        hearing: hears clips; None for a language model alone.
        template: how that one is asked; None is `conversation`, of LTU-AS.
        ends: ids that end an answer and are no part of it.
    """

    engine: AnswerEngine
    tokenizer: Tokenizer
    hearing: ClipCache | None
    ends: frozenset[int]
    settings: ServerSettings
    metrics: ServingMetrics
    fingerprint: str
    template: ChatTemplate | None = None
    streams: StreamRegistry = field(default_factory=StreamRegistry)
    _tasks: set = field(default_factory=set)

    async def create(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        begun = time.monotonic()
        body = await read_body(request, self.settings)
        chat = read_chat(await asyncio.to_thread(parse_json, body))
        del body
        asked = await watched(request, self._ask(chat, begun=begun))
        if chat.stream:
            return self._stream(asked)
        try:
            await watched(request, self._drain(asked))
        finally:
            asked.free()
            self._count(asked)
        ends = [one.finished for one in asked.choices]
        if any(end.reason is FinishReason.DEADLINE for end in ends):
            raise ApiError(408, _DEADLINE, code="deadline", headers={"x-should-retry": "false"})
        if any(end.reason is FinishReason.CANCELLED for end in ends):
            raise ApiError(503, "the server is about to end", headers={"retry-after": "5"})
        return JSONResponse(
            asked.head.whole(
                [one.message() for one in asked.choices],
                usage=usage(ends, cached=asked.cached_tokens),
                ltu=asked.told(),
            )
        )

    async def resume(self, request: Request) -> Response:
        """GET /v1/chat/completions/{id}/stream: the rest of a resumable answer."""
        stream = self.streams.get(request.path_params["id"])
        if not stream.resumable:
            raise ApiError(404, "this stream is not resumable", code="stream_not_found")
        number = request.headers.get("last-event-id", "0")
        if not number.isdecimal() or len(number) > 9:
            raise bad("Last-Event-ID", "is no number")
        stream.behind(int(number))
        return EventResponse(stream=stream, registry=self.streams, number=int(number))

    async def stop(self, request: Request) -> Response:
        """DELETE /v1/chat/completions/{id}: end an answer that is being streamed."""
        stream = self.streams.get(request.path_params["id"])
        stream.cancel()
        return JSONResponse({"id": stream.id, "object": "chat.completion.deleted", "deleted": True})

    # --- asking -----------------------------------------------------------------------------------

    async def _ask(self, chat: ChatRequest, *, begun: float) -> _Asked:
        """Hear the clips, and give the engine a request for every choice."""
        self.check_model(chat.model)
        heard, prompt, mode = await self.hear(chat.turns, mode=chat.mode)
        left = max(self.settings.deadline - (time.monotonic() - begun), 0.001)
        request = EngineRequest(
            prompt=prompt,
            clips=tuple(one.clip for one in heard),
            max_new_tokens=chat.max_new_tokens,
            stop=chat.stop,
            logprobs=chat.logprobs,
            top_logprobs=chat.top_logprobs,
            grammar=chat.grammar,
            deadline=left,
            prompt_lookup=chat.prompt_lookup,
        )
        tickets = self._submit(request, chat)
        return _Asked(
            chat=chat,
            head=AnswerHead(
                id=f"chatcmpl-{uuid.uuid4().hex}",
                created=int(time.time()),
                model=self.settings.model_name,
                fingerprint=self.fingerprint,
            ),
            heard=heard,
            ltu=_ltu(heard, mode=mode, seed=chat.seed),
            choices=[
                ChoiceText(index=number, ends=self.ends, with_logprobs=chat.logprobs)
                for number in range(len(tickets))
            ],
            tickets=tickets,
            begun=begun,
        )

    def check_model(self, name: str) -> None:
        """Require the name of this model: 404 for another."""
        if name != self.settings.model_name:
            raise ApiError(
                404, f"the model {name[:80]!r} is not here; here is {self.settings.model_name!r}",
                param="model", code="model_not_found",
            )  # fmt: skip

    async def hear(
        self, turns: Sequence[ChatTurn], *, mode: AnswerMode | None
    ) -> tuple[tuple[HeardClip, ...], tuple[int, ...], AnswerMode]:
        """Return what is heard of a conversation's clips, its prompt, and the mode.

        Raises:
            ApiError: too much text, too many clips, or one that cannot be used; 408, it takes too
                long.
        """
        length = sum(len(turn.text) for turn in turns)
        most = _LONGEST_TOKEN * self.engine.stats().slot_tokens
        if length > most:  # what cannot fit is not even split into tokens
            raise bad(
                "messages", f"have {length:,} characters; give at most {most:,}",
                code="context_length_exceeded",
            )  # fmt: skip
        sent = [clip for turn in turns for clip in turn.clips]
        if len(sent) > self.settings.most_clips:
            raise bad(
                "messages", f"have {len(sent)} clips; give at most {self.settings.most_clips}"
            )
        if sent and self.hearing is None:
            raise bad(sent[0].param, "is audio, and this is a language model alone")
        if mode is AnswerMode.AUDIO and not sent:
            raise bad("ltu.mode", "is audio, and no message has a clip")
        mode = (mode or AnswerMode.JOINT) if sent else AnswerMode.TEXT
        try:
            async with asyncio.timeout(self.settings.deadline):
                heard = tuple([await self._hear(one, mode=mode) for one in sent])
        except TimeoutError:
            raise ApiError(408, _DEADLINE, code="deadline") from None
        return heard, await asyncio.to_thread(self._prompt, turns, heard), mode

    def _prompt(self, turns: Sequence[ChatTurn], heard: Sequence[HeardClip]) -> tuple[int, ...]:
        if self.template is not None:
            return self.template.ids(turns, tokenizer=self.tokenizer)
        texts = [one.clip.spoken_text for one in heard]
        return conversation_ids(turns, texts, tokenizer=self.tokenizer)

    async def _hear(self, sent: SentClip, *, mode: AnswerMode) -> HeardClip:
        def decoded() -> tuple[bytes, bytes]:
            data = sent.decode(most_bytes=self.settings.most_audio)
            return data, hashlib.sha256(data).digest()

        data, digest = await asyncio.to_thread(decoded)
        with audio_errors(sent.param):
            return await self.hearing.hear(data, digest=digest, mode=mode)

    def _submit(self, request: EngineRequest, chat: ChatRequest) -> list[AnswerTicket]:
        tickets: list[AnswerTicket] = []
        try:
            for config in chat.configs:
                tickets.append(self.engine.submit(replace(request, sampling=config)))
        except UserError as error:
            for ticket in tickets:
                ticket.cancel()
            raise _refusal(error) from None
        return tickets

    # --- answering --------------------------------------------------------------------------------

    async def _drain(self, asked: _Asked) -> None:
        async def one(choice: ChoiceText, ticket: AnswerTicket) -> None:
            async for event in ticket.stream():
                _take(choice, event)

        await _each(asked, one)

    def _stream(self, asked: _Asked) -> EventResponse:
        stream = AnswerStream(id=asked.head.id, resumable=asked.chat.resumable, cancel=asked.stop)
        try:
            self.streams.open(stream)
        except ApiError:
            asked.free()
            raise
        task = asyncio.ensure_future(self._write(asked, stream))
        self._tasks.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(self._tasks.discard)
        return EventResponse(stream=stream, registry=self.streams)

    async def _write(self, asked: _Asked, stream: AnswerStream) -> None:
        """Make the events of a stream, up to its end."""
        chat = asked.chat
        shared = {"usage": None} if chat.include_usage else {}

        def say(choice: dict[str, Any], **more: Any) -> None:
            stream.add(asked.head.chunk([choice], **shared, **more))

        async def one(choice: ChoiceText, ticket: AnswerTicket) -> None:
            say(delta(choice.index, {"role": "assistant", "content": ""}), ltu=asked.ltu)
            async for event in ticket.stream():
                _take(choice, event)
                if choice.text:
                    text, logprobs = choice.flush()
                    say(delta(choice.index, {"content": text}, logprobs=logprobs))
            if choice.finished.reason is FinishReason.DEADLINE:
                raise ApiError(408, _DEADLINE, code="deadline")
            _, logprobs = choice.flush()
            say(
                delta(choice.index, {}, logprobs=logprobs if logprobs and logprobs["content"]
                      else None, finish_reason=finish_reason(choice.finished)),
                ltu=asked.told() if choice.index == 0 else asked.ltu,
            )  # fmt: skip

        try:
            await _each(asked, one)
            if chat.include_usage:
                ends = [choice.finished for choice in asked.choices]
                told = usage(ends, cached=asked.cached_tokens)
                stream.add(asked.head.chunk([], usage=told))
        except ApiError as error:
            stream.add(error.content())
        except Exception as error:
            log_error(error)
            stream.add(ApiError(500, "the answer could not be made").content())
        finally:
            asked.free()
            stream.add("[DONE]")
            stream.end()
            self._count(asked)

    def _count(self, asked: _Asked) -> None:
        self.metrics.latency.observe(time.monotonic() - asked.begun)
        for choice in asked.choices:
            if choice.finished is not None:
                self.metrics.finished(choice.finished)


async def _each(asked: _Asked, work: Callable[[ChoiceText, AnswerTicket], Any]) -> None:
    """Do the work of every choice at once; the first error ends all."""
    try:
        async with asyncio.TaskGroup() as group:
            for choice, ticket in zip(asked.choices, asked.tickets, strict=True):
                group.create_task(work(choice, ticket))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _take(choice: ChoiceText, event: Any) -> None:
    if isinstance(event, NewToken):
        choice.take(event)
    elif isinstance(event, Finished):
        choice.finish(event)
    elif isinstance(event, Failed):
        if isinstance(event.error, UserError):
            raise _refusal(event.error)
        log_error(event.error)
        raise ApiError(500, "the answer could not be made")


def _refusal(error: UserError) -> ApiError:
    """The error of a request that the engine does not take."""
    if isinstance(error, QueueFull):
        after = {"retry-after": f"{max(error.retry_after, 1):.0f}"}
        return ApiError(429, str(error), code="queue_full", headers=after)
    if isinstance(error, EngineClosed):
        return ApiError(503, str(error), code="draining", headers={"retry-after": "5"})
    text = str(error)
    if text.startswith("prompt") or text.startswith("max_new_tokens"):
        text = text.replace("max_new_tokens", "max_completion_tokens", 1)
        param = "messages" if text.startswith("prompt") else "max_completion_tokens"
        return ApiError(400, text, param=param, code="context_length_exceeded")
    if text.startswith("stop"):
        return of_user_error(error, param="stop")
    if text.startswith("clips"):
        return of_user_error(error, param="messages")
    return of_user_error(error, param="response_format" if "schema" in text else None)


def _ltu(heard: Sequence[HeardClip], *, mode: AnswerMode, seed: int | None) -> dict[str, Any]:
    """What an answer says of the clips; of several also each by itself."""
    clips = [
        {
            "spoken_text": one.clip.spoken_text,
            "seconds": one.clip.seconds,
            "seconds_dropped": one.clip.seconds_dropped,
            "cached": one.cached,
        }
        for one in heard
    ]
    last = clips[-1] if clips else {}
    return {
        "mode": str(mode),
        "spoken_text": last.get("spoken_text", ""),
        "seconds": sum(one["seconds"] for one in clips),
        "seconds_dropped": sum(one["seconds_dropped"] for one in clips),
        "cached": bool(clips) and all(one["cached"] for one in clips),
        "clips": clips,
        "seed": seed,
        "timings": {
            "decode_audio": sum(one.decoding for one in heard),
            "listen": sum(one.listening for one in heard),
        },
    }
