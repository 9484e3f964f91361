"""A server whose model is a script: real sockets, workers and protocol, answers that are known."""

import asyncio
import contextlib
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.core.errors import UserError
from ltu_jax.generation.request import AnswerMode, EncodedClip
from ltu_jax.generation.whisper_rules import Segment, Transcript
from ltu_jax.preprocessing.tokenizer import Tokenizer, load_tokenizer
from ltu_jax.preprocessing.whisper_vocabulary import Vocabulary
from ltu_jax.serving import http_server
from ltu_jax.serving.chat_answers import ChatAnswers
from ltu_jax.serving.clip_batches import ClipBatches
from ltu_jax.serving.clip_cache import ClipCache
from ltu_jax.serving.decode_pool import DecodePool
from ltu_jax.serving.engine_types import (
    EngineRequest,
    EngineStats,
    Event,
    Finished,
    FinishReason,
    NewToken,
    QueueFull,
    RequestTimings,
    TokenLogprob,
    TokenUsage,
)
from ltu_jax.serving.http_app import HttpApp
from ltu_jax.serving.server_settings import ServerSettings
from ltu_jax.serving.serving_metrics import ServingMetrics
from ltu_jax.serving.speech_texts import SpeechTexts

AUDIO_TOKENS = 25
SPM = Path(__file__).resolve().parent.parent / "golden" / "text_cases" / "spm320.model"


def words_of(request: EngineRequest) -> list[str]:
    """Return the answer to a request: words that follow from everything that may decide it."""
    hasher = hashlib.sha256(repr((request.prompt, request.sampling, request.grammar)).encode())
    for clip in request.clips:
        hasher.update(b"" if clip.features is None else clip.features.tobytes())
    count = min(12, request.max_new_tokens or 12)
    return [f"{hasher.hexdigest()[4 * i : 4 * i + 4]} " for i in range(count)]


@dataclass(kw_only=True, eq=False)
class ScriptedEngine:
    """Answers `words_of`, a word every `pace` seconds; `busy` of `slots` count."""

    slots: int = 4
    queue: int = 4
    pace: float = 0.0
    requests: list[EngineRequest] = field(default_factory=list)
    alive: set = field(default_factory=set)
    closed: bool = False

    def submit(self, request: EngineRequest) -> "_Ticket":
        if len(self.alive) >= self.slots + self.queue:
            raise QueueFull("the queue is full", retry_after=2.0)
        if len(request.prompt) > 900:
            raise UserError("prompt: 901 tokens, and 900 fit: ask shorter")
        self.requests.append(request)
        ticket = _Ticket(engine=self, request=request)
        self.alive.add(ticket)
        return ticket

    def stats(self) -> EngineStats:
        busy = len(self.alive)
        return EngineStats(
            ready=not self.closed, slots=self.slots, slot_tokens=2048, busy=min(busy, self.slots),
            queued=max(busy - self.slots, 0), submitted=len(self.requests), finished={}, failed=0,
            prompt_tokens=0, completion_tokens=0, dispatches=0, compiled=0, kv_bytes=0,
        )  # fmt: skip

    def warm(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
        for ticket in list(self.alive):
            ticket.cancel()


@dataclass(kw_only=True, eq=False)
class _Ticket:
    engine: ScriptedEngine
    request: EngineRequest
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True
        self.engine.alive.discard(self)

    async def stream(self) -> AsyncIterator[Event]:
        request, text, tokens = self.request, "", []
        reason, stop = FinishReason.LENGTH, None
        if request.max_new_tokens is None or request.max_new_tokens > 12:
            reason = FinishReason.STOP
        for word in words_of(request):
            end = time.monotonic() + self.engine.pace
            while not self.cancelled and time.monotonic() < end:
                await asyncio.sleep(min(self.engine.pace, 0.02))
            if self.cancelled:
                reason = FinishReason.CANCELLED
                break
            if request.deadline is not None and request.deadline < 0.01:
                reason = FinishReason.DEADLINE
                break
            tokens.append(5 + len(tokens))
            logprob = TokenLogprob(id=tokens[-1], token=word, data=word.encode(), logprob=-0.5)
            found = [one for one in request.stop if one in text + word]
            if found:
                stop, reason = found[0], FinishReason.STOP
                yield NewToken(text="", id=tokens[-1], logprob=None, top=())
                break
            text += word
            yield NewToken(
                text=word, id=tokens[-1], logprob=logprob if request.logprobs else None,
                top=(logprob,) * request.top_logprobs,
            )  # fmt: skip
        self.engine.alive.discard(self)
        audio = AUDIO_TOKENS * sum(one.features is not None for one in request.clips)
        yield Finished(
            reason=reason, text="", stop=stop, tokens=tuple(tokens),
            usage=TokenUsage(prompt=audio + len(request.prompt), audio=audio, cached=0,
                             completion=len(tokens)),
            timings=RequestTimings(queued=0.0, first_token=0.01, decoding=0.02),
        )  # fmt: skip


@dataclass(kw_only=True, eq=False)
class ListeningModel:
    """Hears of a clip how long it is and how loud; `together` has the size of each batch."""

    together: list[int] = field(default_factory=list)

    @property
    def heard(self) -> int:
        return sum(self.together)

    def listen_each(self, clips: Any, *, modes: Any) -> Iterator[tuple[int, EncodedClip]]:
        self.together.append(len(clips))
        for index, (audio, mode) in enumerate(zip(clips, modes, strict=True)):
            yield index, self._listen(audio, mode=mode)

    def _listen(self, audio: Any, *, mode: AnswerMode) -> EncodedClip:
        features = np.zeros((2, AUDIO_TOKENS, 4), np.float32) + np.abs(audio.samples).mean()
        return EncodedClip(
            features=None if mode is AnswerMode.TEXT else features,
            spoken_text="" if mode is AnswerMode.AUDIO else f"about {audio.seconds:.1f} s",
            seconds=audio.seconds,
            seconds_dropped=max(audio.seconds - 10, 0.0),
            mode=mode,
        )


@dataclass(kw_only=True, eq=False)
class WritingWhisper:
    """Writes one segment for every begun 30 s; `pace` seconds each."""

    vocabulary: Vocabulary = field(default_factory=lambda: Vocabulary.of_size(51_865))
    pace: float = 0.0
    options: list[Any] = field(default_factory=list)

    def decode_text(self, ids: list[int]) -> str:
        return " ".join(f"word{one}" for one in ids)

    def iterate(self, clips: Any, *, batch_size: int, options: Any, show: Callable) -> Iterator:
        self.options.append(options)
        for index, samples in enumerate(clips):
            segments: list[Segment] = []
            for window in range(-(-len(samples) // 480_000)):
                if self.pace:
                    threading.Event().wait(self.pace)
                start, end = 30.0 * window, min(30.0 * window + 30, len(samples) / 16_000)
                segments.append(
                    Segment(
                        start=start,
                        end=end,
                        text=f"word{window}",
                        window=start,
                        tokens=(window,),
                        temperature=0.0,
                        avg_logprob=-0.3,
                        compression_ratio=0.9,
                        no_speech_prob=0.1,
                    )  # fmt: skip
                )
                show(index, segments)
            text = self.decode_text([t for one in segments for t in one.tokens])
            yield index, Transcript(
                text=text, segments=tuple(segments), language=options.language or "de",
                no_speech_prob=0.1, avg_logprob=-0.3,
            )  # fmt: skip


@dataclass(kw_only=True, eq=False)
class Scripted:
    """The parts of a running server; `tokenizer` is the real one of the toy models."""

    url: str
    engine: ScriptedEngine
    model: ListeningModel
    whisper: WritingWhisper
    tokenizer: Tokenizer
    app: HttpApp
    stop: Callable[[], None]
    hurry: Callable[[], None]
    thread: threading.Thread

    @contextlib.contextmanager
    def settings(self, **changed: Any) -> Iterator[None]:
        """Change settings for a while."""
        parts = (self.app, self.app.chat, self.app.speech)
        before = self.app.settings
        for part in parts:
            part.settings = replace(before, **changed)
        try:
            yield
        finally:
            for part in parts:
                part.settings = before


def scripted_app(**settings: Any) -> HttpApp:
    """Return a server's application over the parts of a script."""
    options = ServerSettings(model_name="scripted", decode_workers=1, **settings)
    engine, model, whisper = ScriptedEngine(), ListeningModel(), WritingWhisper()
    tokenizer = load_tokenizer(SPM)
    metrics, pool = ServingMetrics("scripted"), DecodePool(workers=1)
    hearing = ClipCache(
        batches=ClipBatches(whispers=model, executor=ThreadPoolExecutor(1), most=8),
        fingerprint="f", pool=pool, metrics=metrics,
        most_bytes=options.cache_bytes, most_seconds=options.most_chat_seconds,
    )  # fmt: skip
    chat = ChatAnswers(
        engine=engine, tokenizer=tokenizer, hearing=hearing, settings=options, metrics=metrics,
        ends=frozenset((tokenizer.eos_id,)),
        fingerprint="ltu_f",
    )  # fmt: skip
    speech = SpeechTexts(
        transcriber=whisper, pool=pool, executor=ThreadPoolExecutor(1), settings=options,
        metrics=metrics, streams=chat.streams,
    )  # fmt: skip
    return HttpApp(
        settings=options, engine=engine, pool=pool, chat=chat, speech=speech, metrics=metrics,
        warm=engine.warm, describe={},
    )  # fmt: skip


def start(**settings: Any) -> Scripted:
    """Start a server in a thread."""
    ready, failed = threading.Event(), threading.Event()
    app = scripted_app(**settings)
    app.on_ready = ready.set
    listener = http_server.listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    begun: list[Any] = []

    def set_event(number: int) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended
            begun[0].call_soon_threadsafe(begun[number].set)

    async def main() -> None:
        begun.extend([asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()])
        await http_server.serve(app, listener, stop=begun[1], hurry=begun[2])

    def run() -> None:
        try:
            asyncio.run(main())
        finally:
            failed.set()
            ready.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    assert not failed.is_set()
    return Scripted(
        url=url, engine=app.engine, model=app.chat.hearing.batches.whispers,
        whisper=app.speech.transcriber, tokenizer=app.chat.tokenizer, app=app,
        stop=lambda: set_event(1), hurry=lambda: set_event(2), thread=thread,
    )  # fmt: skip


@contextlib.contextmanager
def served(**settings: Any) -> Iterator[Scripted]:
    """Run a server for a block."""
    server = start(**settings)
    try:
        yield server
    finally:
        server.stop()
        server.hurry()
        server.thread.join(30)
        assert not server.thread.is_alive()
