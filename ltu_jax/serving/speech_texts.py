"""/v1/audio/transcriptions and /translations: files of any length, in five formats or a stream."""

import asyncio
import contextlib
import math
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ltu_jax.core.errors import UserError
from ltu_jax.generation.transcribe import Transcriber
from ltu_jax.generation.transcription import OPENAI, TranscribeOptions
from ltu_jax.generation.whisper_rules import Segment, Transcript
from ltu_jax.preprocessing.audio import Audio
from ltu_jax.serving import field_kinds as kinds
from ltu_jax.serving.answer_stream import AnswerStream, EventResponse, StreamRegistry
from ltu_jax.serving.api_error import ApiError, audio_errors, bad, log_error, of_user_error
from ltu_jax.serving.decode_pool import DecodePool
from ltu_jax.serving.http_body import Form, parse_form, read_body, watched
from ltu_jax.serving.server_settings import ServerSettings
from ltu_jax.serving.serving_metrics import ServingMetrics
from ltu_jax.serving.subtitles import srt, vtt

_FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
_MOST_DECODED = 2  # files at once, of up to 460 MB: one is transcribed, the next is at hand
_DEADLINE = "the transcript was not ready in time"
_AUDIO_TOKENS = 50  # of Whisper's encoder, a second
# Field -> what happens to it, beside those that are read.
IGNORED = ("chunking_strategy",)
REFUSED = ("prompt", "include[]", "keywords[]", "languages[]", "known_speaker_names[]",
           "known_speaker_references[]")  # fmt: skip
_PARTS = "timestamp_granularities"
_HONOURED = ("file", "model", "language", "response_format", "temperature", "stream", _PARTS,
             f"{_PARTS}[]")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SpeechRequest:
    """A request that was read; `file` is not yet decoded."""

    file: bytes
    format: str
    stream: bool
    options: TranscribeOptions


class _Stopped(Exception):
    """Nobody waits for the transcript any more."""


@dataclass(kw_only=True, eq=False)
class SpeechTexts:
    """Transcribes and translates with one Whisper, in a thread of `executor`."""

    transcriber: Transcriber | None
    pool: DecodePool
    executor: Executor
    settings: ServerSettings
    metrics: ServingMetrics
    streams: StreamRegistry
    _tasks: set = field(default_factory=set)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MOST_DECODED))

    async def transcriptions(self, request: Request) -> Response:
        """POST /v1/audio/transcriptions."""
        return await self._create(request, task="transcribe")

    async def translations(self, request: Request) -> Response:
        """POST /v1/audio/translations: into English."""
        return await self._create(request, task="translate")

    async def _create(self, request: Request, *, task: str) -> Response:
        if self.transcriber is None:
            raise ApiError(
                404, "this model comes without a Whisper that writes", code="model_not_found"
            )
        body = await read_body(request, self.settings)
        form = await asyncio.to_thread(parse_form, request.headers.get("content-type"), body)
        asked = self._read(form, task=task)
        del body, form
        with contextlib.ExitStack() as place:
            audio = await watched(request, self._decode(asked.file, place=place))
            if asked.stream:
                return self._stream(audio, asked, place=place)
            transcript = await watched(
                request, self._run(audio, asked.options, show=lambda segments: None)
            )
        return _response(transcript, audio, asked=asked, task=task)

    # --- reading ----------------------------------------------------------------------------------

    def _read(self, form: Form, *, task: str) -> SpeechRequest:
        """Read the fields of a form.

        Raises:
            ApiError: 400, naming the field; 404, another model.
        """
        fields = dict(form.fields)
        for name in (*fields, *form.files):
            plain = name if name.endswith("[]") else f"{name}[]"
            if name in REFUSED or plain in REFUSED:
                if any(fields.get(name, ["file"])):
                    raise bad(name, "is not supported", code="unsupported")
            elif name not in _HONOURED and name.partition("[")[0] not in IGNORED:
                raise bad(name[:80], "is unknown; see docs/serving.md", code="unknown_parameter")
        if len(form.files.get("file", ())) != 1 or set(form.files) != {"file"}:
            raise bad("file", "is missing; send one file", code="missing_required_parameter")
        parts = [*fields.pop(_PARTS, ()), *fields.pop(f"{_PARTS}[]", ())]
        for name, values in fields.items():
            if name in _HONOURED and len(values) > 1:
                raise bad(name, f"is given {len(values)} times; give it once")
        one = {name: values[0] for name, values in fields.items() if values[0] != ""}
        if "model" not in one:
            raise bad("model", "is missing", code="missing_required_parameter")
        if one["model"] != self.settings.model_name:
            raise ApiError(
                404, f"the model {one['model'][:80]!r} is not here; here is "
                f"{self.settings.model_name!r}", param="model", code="model_not_found",
            )  # fmt: skip
        format = kinds.one_of(*_FORMATS)("response_format", one.get("response_format", "json"))
        for part in parts:
            if part != "segment":
                raise bad(f"{_PARTS}[]", f"is {part[:20]!r}; give segment")
        if parts and format != "verbose_json":
            raise bad(f"{_PARTS}[]", "needs response_format verbose_json")
        stream = one.get("stream", "false").lower()
        if stream not in ("true", "false", "1", "0"):
            raise bad("stream", f"is {stream[:20]!r}; give true or false")
        if len(form.files["file"][0]) > self.settings.most_audio:
            raise ApiError(413, f"file: is larger than {self.settings.most_audio:,} bytes",
                           param="file", code="audio_too_large")  # fmt: skip
        return SpeechRequest(
            file=form.files["file"][0],
            format=format,
            stream=stream in ("true", "1"),
            options=self._options(one, task=task),
        )

    def _options(self, one: dict[str, str], *, task: str) -> TranscribeOptions:
        options = replace(OPENAI, task=task)
        vocabulary = self.transcriber.vocabulary
        if task == "translate" and not vocabulary.multilingual:
            raise bad("model", "has a Whisper that knows English only; it cannot translate",
                      code="unsupported")  # fmt: skip
        if "temperature" in one:
            try:
                given = float(one["temperature"])
            except ValueError:
                given = math.nan
            temperature = kinds.real(0, 1)("temperature", given)
            if temperature:  # 0, as with OpenAI, lets the thresholds raise it
                options = replace(options, temperatures=(temperature,))
        if "language" in one:
            if task == "translate":
                raise bad("language", "is not taken; the answer is English")
            try:
                vocabulary.language_id(one["language"])
            except UserError as error:
                raise of_user_error(error, param="language") from None
            if not vocabulary.multilingual and one["language"] != "en":
                raise bad("language", "has to be en: this Whisper knows English only")
            options = replace(options, language=one["language"])
        return options

    # --- working ----------------------------------------------------------------------------------

    async def _decode(self, data: bytes, *, place: contextlib.ExitStack) -> Audio:
        try:
            async with asyncio.timeout(self.settings.deadline):
                await self._places.acquire()
        except TimeoutError:
            raise ApiError(408, _DEADLINE, code="deadline") from None
        place.callback(self._places.release)
        with audio_errors("file"):
            most = self.settings.most_transcription_seconds
            audio = await self.pool.decode(data, most_seconds=most)
        self.metrics.audio_seconds.inc(audio.seconds)
        return audio

    async def _run(
        self,
        audio: Audio,
        options: TranscribeOptions,
        *,
        show: Callable[[Sequence[Segment]], None],
    ) -> Transcript:
        loop, stop = asyncio.get_running_loop(), threading.Event()

        def told(index: int, segments: Sequence[Segment]) -> None:
            if stop.is_set():
                raise _Stopped
            loop.call_soon_threadsafe(show, tuple(segments))

        def work() -> Transcript:
            if stop.is_set():
                raise _Stopped
            found = self.transcriber.iterate(
                [audio.samples], batch_size=1, options=options, show=told
            )
            return next(found)[1]

        try:
            async with asyncio.timeout(self.settings.deadline + audio.seconds):
                return await loop.run_in_executor(self.executor, work)
        except TimeoutError:
            raise ApiError(408, _DEADLINE, code="deadline") from None
        finally:
            stop.set()  # the thread ends with its window

    def _stream(
        self, audio: Audio, asked: SpeechRequest, *, place: contextlib.ExitStack
    ) -> EventResponse:
        stream = AnswerStream(
            id=f"transcript-{uuid.uuid4().hex}", resumable=False, cancel=lambda: task.cancel()
        )
        self.streams.open(stream)
        task = asyncio.ensure_future(self._write(audio, asked, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        kept = place.pop_all()
        task.add_done_callback(lambda done: kept.close())
        return EventResponse(stream=stream, registry=self.streams)

    async def _write(self, audio: Audio, asked: SpeechRequest, stream: AnswerStream) -> None:
        begun, shown, count = time.monotonic(), "", 0
        words = self.transcriber.decode_text
        end = self.transcriber.vocabulary.end

        def show(segments: Sequence[Segment]) -> None:
            nonlocal count
            if stream.ended:
                return  # the thread had not yet heard of it
            if asked.format == "verbose_json":
                for number in range(count, len(segments)):
                    stream.add(_segment_event(number, segments[number]))
            count = len(segments)
            ids = [token for one in segments for token in one.tokens if token < end]
            say(words(ids).strip())

        def say(text: str) -> None:
            nonlocal shown
            if text.startswith(shown) and text != shown:
                stream.add({"type": "transcript.text.delta", "delta": text[len(shown) :]})
                shown = text

        try:
            transcript = await self._run(audio, asked.options, show=show)
            say(transcript.text)
            stream.add(
                {
                    "type": "transcript.text.done",
                    "text": transcript.text,
                    "usage": _token_usage(transcript, audio),
                }
            )
        except asyncio.CancelledError:
            stream.add(ApiError(503, "the transcription was stopped", code="stopped").content())
        except ApiError as error:
            stream.add(error.content())
        except Exception as error:
            log_error(error)
            stream.add(ApiError(500, "the transcript could not be made").content())
        finally:
            stream.add("[DONE]")
            stream.end()
            self.metrics.latency.observe(time.monotonic() - begun)


def _response(transcript: Transcript, audio: Audio, *, asked: SpeechRequest, task: str) -> Response:
    texts = {
        "text": lambda: transcript.text + "\n",
        "srt": lambda: srt(transcript.segments),
        "vtt": lambda: vtt(transcript.segments),
    }
    if asked.format in texts:
        return PlainTextResponse(texts[asked.format]())
    if asked.format == "verbose_json":
        usage = {"type": "duration", "seconds": float(math.ceil(audio.seconds))}
        return JSONResponse(
            {
                "task": task,
                "language": transcript.language,
                "duration": audio.seconds,
                "text": transcript.text,
                "segments": [_segment(n, one) for n, one in enumerate(transcript.segments)],
                "usage": usage,
            }
        )
    return JSONResponse({"text": transcript.text, "usage": _token_usage(transcript, audio)})


def _segment(number: int, one: Segment) -> dict[str, Any]:
    return {
        "id": number,
        "seek": round(100 * one.window),
        "start": one.start,
        "end": one.end,
        "text": one.text,
        "tokens": list(one.tokens),
        "temperature": one.temperature,
        "avg_logprob": one.avg_logprob,
        "compression_ratio": one.compression_ratio,
        "no_speech_prob": one.no_speech_prob,
    }


def _segment_event(number: int, one: Segment) -> dict[str, Any]:
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{number}",
        "start": one.start,
        "end": one.end,
        "text": one.text,
        "speaker": "",  # whose voice it is, is not told
    }


def _token_usage(transcript: Transcript, audio: Audio) -> dict[str, Any]:
    heard = math.ceil(_AUDIO_TOKENS * audio.seconds)
    made = sum(len(one.tokens) for one in transcript.segments)
    return {
        "type": "tokens",
        "input_tokens": heard,
        "input_token_details": {"audio_tokens": heard, "text_tokens": 0},
        "output_tokens": made,
        "total_tokens": heard + made,
    }
