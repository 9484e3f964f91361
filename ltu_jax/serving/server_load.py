"""What a server of chat completions does under load: many users, and figures of their answers."""

import base64
import io
import json
import struct
import threading
import time
import wave
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.core.errors import UserError, spell
from ltu_jax.core.values import number, whole
from ltu_jax.preprocessing.audio import SAMPLE_RATE, load_audio
from ltu_jax.serving.timed_chat import ChatService, TimedAnswer

_SHOW_SECONDS = 5.0
# Where a whole answer's time goes, by the timings that a server of this project tells.
TIMED = ("decode_audio", "listen", "queued", "first_token", "decoding")


@dataclass(frozen=True, kw_only=True)
class LoadClip:
    """A clip to send: a WAV of 16 kHz, mono, 16 bits, which every server reads."""

    wav: bytes
    seconds: float

    @classmethod
    def of(cls, path: Path) -> "LoadClip":
        """Read a file of any format.

        Raises:
            UserError: no audio.
        """
        audio = load_audio(path)
        return cls.of_samples(audio.samples)

    @classmethod
    def of_samples(cls, samples: np.ndarray) -> "LoadClip":
        """Take float32 samples of 16 kHz."""
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(SAMPLE_RATE)
            out.writeframes((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
        return cls(wav=file.getvalue(), seconds=len(samples) / SAMPLE_RATE)

    def marked(self, mark: str) -> "LoadClip":
        """Return the same sound in other bytes: with a comment behind it."""
        comment = f"{mark:<32}".encode()
        chunk = b"INFOICMT" + struct.pack("<I", len(comment)) + comment
        body = self.wav[8:] + b"LIST" + struct.pack("<I", len(chunk)) + chunk
        return replace(self, wav=b"RIFF" + struct.pack("<I", len(body)) + body)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What servers differ in: the name of the limit, and whether they take `stream_options`."""

    limit: str = "max_tokens"
    usage: bool = True


_DIALECTS = (Dialect(), Dialect(limit="max_completion_tokens"), Dialect(usage=False))


@dataclass(frozen=True, kw_only=True)
class ServerLoad:
    """Requests to send, and how many at once.

    Attributes:
        model: its name.
        users: requests on their way at once: each user sends the next when one is answered.
        requests: in all.
        questions: asked in turn.
        clips: sent in turn; none: text alone.
        uncached: every request sends its clip in bytes of its own, which no server has met.
        mark: what makes them so, beside the number of the request.
        max_tokens: an answer ends there.
        temperature: 0 is greedy; else request i draws with seed i.
        dialect: of the server.
    """

    model: str
    users: int
    requests: int
    questions: tuple[str, ...]
    clips: tuple[LoadClip, ...] = ()
    uncached: bool = False
    mark: str = ""
    max_tokens: int = 64
    temperature: float = 0.0
    dialect: Dialect = Dialect()

    def __post_init__(self) -> None:
        for name in ("users", "requests", "max_tokens"):
            whole(name, getattr(self, name))
        number("temperature", self.temperature, above=-1e-9, most=100, rule="must be 0 to 100")
        if self.uncached and not self.clips:
            raise UserError(f"{spell('uncached')} is about clips; give {spell('audio')}")

    def body(self, index: int) -> bytes:
        """Return request `index` as JSON."""
        parts = [{"type": "text", "text": self.questions[index % len(self.questions)]}]
        if self.clips:
            clip = self.clips[index % len(self.clips)]
            clip = clip.marked(f"{self.mark} {index}") if self.uncached else clip
            data = base64.b64encode(clip.wav).decode()
            audio = {"data": data, "format": "wav"}
            parts.insert(0, {"type": "input_audio", "input_audio": audio})
        content = parts if self.clips else parts[0]["text"]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "stream": True,
            self.dialect.limit: self.max_tokens,
            "temperature": self.temperature,
        }
        if self.temperature:
            body["seed"] = index
        if self.dialect.usage:
            body["stream_options"] = {"include_usage": True}
        return json.dumps(body).encode()

    def seconds(self, index: int) -> float:
        """Return how much audio request `index` sends."""
        return self.clips[index % len(self.clips)].seconds if self.clips else 0.0


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """The answers to a load in the order of its requests, and the seconds that all took."""

    load: ServerLoad
    answers: tuple[TimedAnswer, ...]
    seconds: float


def understood(service: ChatService, load: ServerLoad) -> ServerLoad:
    """Return the load in the dialect of the server, which answers one request, not counted.

    Raises:
        UserError: it answers in none; the message is its own.
    """
    first, refused = replace(load, mark=f"first {load.mark}"), None
    for dialect in _DIALECTS:
        answer = service.ask(replace(first, dialect=dialect).body(0))
        if answer.ended:
            return replace(load, dialect=dialect)
        if refused is None or answer.status not in (400, 422):
            refused = answer
        if answer.status not in (400, 422):
            break
    raise UserError(
        f"{service.url} does not answer model {load.model!r}: status {refused.status}, "
        f"{refused.error}"
    )


def run_load(
    service: ChatService, load: ServerLoad, *, show: Callable[[str], None] = lambda line: None
) -> LoadResult:
    """Send all requests of a load; `show` gets a line of progress now and then."""
    answers: dict[int, TimedAnswer] = {}
    begun = time.perf_counter()

    def ask(index: int) -> None:
        answers[index] = service.ask(load.body(index))

    def tell() -> None:
        show(_progress(dict(answers), load, seconds=time.perf_counter() - begun))

    run_users(ask, users=load.users, count=load.requests, watch=tell)
    return LoadResult(
        load=load,
        answers=tuple(answers[index] for index in range(load.requests)),
        seconds=time.perf_counter() - begun,
    )


def run_users(
    work: Callable[[int], None],
    *,
    users: int,
    count: int,
    watch: Callable[[], None],
    every: float = _SHOW_SECONDS,
) -> None:
    """Call `work` for 0 to `count` - 1 in the threads of `users`, and `watch` every few seconds.

    The first error of one ends all, and is raised.
    """
    numbers, lock, errors = iter(range(count)), threading.Lock(), []

    def user() -> None:
        while not errors:
            with lock:
                index = next(numbers, None)
            if index is None:
                return
            try:
                work(index)
            except Exception as error:
                errors.append(error)

    # An interrupt does not wait for daemons.
    threads = [threading.Thread(target=user, daemon=True) for _ in range(min(users, count))]
    for thread in threads:
        thread.start()
    watched = time.perf_counter()
    for thread in threads:
        while thread.is_alive():
            thread.join(min(0.2, every))
            if time.perf_counter() - watched >= every:
                watched = time.perf_counter()
                watch()
    if errors:
        raise errors[0]


def _progress(answers: Mapping[int, TimedAnswer], load: ServerLoad, *, seconds: float) -> str:
    tokens = sum(one.tokens for one in answers.values())
    return (
        f"{len(answers):,} of {load.requests:,} requests, {tokens / seconds:.1f} tokens/s, "
        f"{seconds:.0f} s"
    )


# --- figures --------------------------------------------------------------------------------------


def figures(result: LoadResult) -> dict[str, Any]:
    """Return what a load came to; times are milliseconds.

    Raises:
        UserError: nothing was answered.
    """
    load, ended = result.load, [one for one in result.answers if one.ended]
    failed = Counter(
        f"{one.status or 'no reply'}: {one.error}" for one in result.answers if not one.ended
    )
    if not ended:
        raise UserError(f"nothing was answered; first: {next(iter(failed))}")
    tokens = sum(one.tokens for one in ended)
    heard = sum(load.seconds(i) for i, one in enumerate(result.answers) if one.ended)
    return {
        "model": load.model,
        "users": load.users,
        "requests": load.requests,
        "answered": len(ended),
        "failed": dict(failed),
        "seconds": round(result.seconds, 6),  # a load of toys takes some milliseconds
        "tokens": tokens,
        "tokens_counted_by": "server" if all(one.counted for one in ended) else "pieces",
        "first_text_ms": _spread([one.first for one in ended if one.first is not None]),
        "per_token_ms": _spread(
            [(one.last - one.first) / (one.tokens - 1) for one in ended
             if one.first is not None and one.tokens > 1]
        ),
        "answer_ms": _spread([one.total for one in ended]),
        "requests_per_second": round(len(ended) / result.seconds, 3),
        "tokens_per_second": round(tokens / result.seconds, 2),
        "audio_seconds_per_second": round(heard / result.seconds, 2),
        "server": shares([one for one in ended if one.ltu.get("timings")]),
    }  # fmt: skip


def _spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return median, 99th percentile and mean in milliseconds; None of nothing."""
    if not seconds:
        return None
    milliseconds = 1000 * np.asarray(seconds)
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return {
        "p50": round(float(p50), 3),
        "p99": round(float(p99), 3),
        "mean": round(float(milliseconds.mean()), 3),
    }


def shares(answers: Sequence[TimedAnswer]) -> dict[str, Any] | None:
    """Return where the time of whole answers goes, by a server that tells; None of no answers.

    `http` is what the client waits beyond the server's own total, `other` what of that total is in
    no part. Overhead is all but hearing and the language model: HTTP, audio decoding, queue, other.
    """
    if not answers:
        return None
    parts = {name: 0.0 for name in ("http", *TIMED, "other")}
    for one in answers:
        timings = one.ltu["timings"]
        told = {name: timings.get(name, 0.0) for name in TIMED}
        for name, value in told.items():
            parts[name] += value
        parts["http"] += one.total - timings["total"]
        parts["other"] += timings["total"] - sum(told.values())
    whole_time = sum(one.total for one in answers)
    overhead = parts["http"] + parts["decode_audio"] + parts["queued"] + parts["other"]
    return {
        "mean_ms": {name: round(1000 * sum_ / len(answers), 3) for name, sum_ in parts.items()},
        "overhead_ms": round(1000 * overhead / len(answers), 3),
        "overhead_share": round(overhead / whole_time, 4),
        "cached": sum(bool(one.ltu.get("cached")) for one in answers),
    }


_WORDS = {
    "http": "HTTP",
    "decode_audio": "audio decoding",
    "listen": "hearing",
    "queued": "queue",
    "first_token": "prompt",
    "decoding": "answer",
    "other": "other",
}


def table(found: Mapping[str, Any]) -> str:
    """Lay out figures for a terminal."""
    lines = [
        f"{found['answered']:,} of {found['requests']:,} answered in {found['seconds']:.1f} s, "
        f"{found['users']} users, model {found['model']}",
        "",
        f"{'milliseconds':<24}{'p50':>10}{'p99':>10}{'mean':>10}",
    ]
    for name, what in (
        ("first_text_ms", "to the first text (TTFT)"),
        ("per_token_ms", "a token behind it"),
        ("answer_ms", "whole answer"),
    ):
        if (row := found[name]) is not None:
            lines.append(f"{what:<24}" + "".join(f"{row[one]:>10.1f}" for one in row))
    counted = "" if found["tokens_counted_by"] == "server" else " (pieces of text, not told)"
    lines += [
        "",
        f"{'tokens/s':<24}{found['tokens_per_second']:>10.1f}{counted}",
        f"{'requests/s':<24}{found['requests_per_second']:>10.2f}",
        f"{'audio-seconds/s':<24}{found['audio_seconds_per_second']:>10.1f}",
    ]
    if (server := found["server"]) is not None:
        whole_ms = sum(server["mean_ms"].values())
        lines += ["", "mean answer, by the server's own clock"]
        for name, value in server["mean_ms"].items():
            lines.append(f"  {_WORDS[name]:<22}{value:>10.1f} ms{value / whole_ms:>8.1%}")
        lines.append(
            f"  {'overhead':<22}{server['overhead_ms']:>10.1f} ms{server['overhead_share']:>8.1%}"
            "  (all but hearing, prompt and answer)"
        )
    for why, count in found["failed"].items():
        lines.append(f"failed: {count} x {why}")
    return "\n".join(lines)
