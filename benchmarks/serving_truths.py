"""What has to be true of a server under load: equal answers, free slots, memory that stays.

Each function asks a server that runs; those of `benchmarks.serving` in their long form, those of
the tests in a short one.
"""

import base64
import dataclasses
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.served_process import ServedProcess
from ltu_jax.core.jsonl import JsonlWriter, read_jsonl
from ltu_jax.generation.request import drain
from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.inference import Model
from ltu_jax.preprocessing.audio import SAMPLE_RATE
from ltu_jax.serving.server_load import LoadClip, run_users
from ltu_jax.serving.timed_chat import TimedAnswer

QUESTIONS = (
    "What can be inferred from the audio?",
    "Can you identify the spoken text?",
    "What sound is in the background?",
    "Name the sound in the clip.",
    "Is the speaker a man or a woman?",
    "How does the speaker feel?",
    "What music is this?",
    "Describe the clip.",
)
MODES = ("joint", "audio", "text")
_OFFICIAL = {"temperature": 0.1, "top_p": 0.95, "top_k": 500, "repetition_penalty": 1.1}
DRAWINGS = ({}, {"temperature": 1.0}, {}, {"temperature": 0.8, "top_p": 0.9}, _OFFICIAL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One question: about clip number `clip`; `drawing` are fields of the request, {} is greedy."""

    clip: int
    question: str
    mode: str
    drawing: dict[str, Any]
    limit: int

    def body(self, server: ServedProcess, clip: LoadClip, *, stream: bool) -> bytes:
        """Return the request."""
        return body_of(
            server, clip, self.question, mode=self.mode, stream=stream, max_tokens=self.limit,
            **self.drawing,
        )  # fmt: skip


def body_of(
    server: ServedProcess, clip: LoadClip | None, question: str, *, mode: str, **fields: Any
) -> bytes:
    """Return a request about a clip as JSON."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": question}]
    if clip is not None:
        data = {"data": base64.b64encode(clip.wav).decode(), "format": "wav"}
        parts.insert(0, {"type": "input_audio", "input_audio": data})
    messages = [{"role": "user", "content": parts}]
    ltu = {"mode": mode} if clip is not None else {}
    return json.dumps({"model": server.model, "messages": messages, "ltu": ltu, **fields}).encode()


def make_cases(*, clips: int, count: int, limit: int) -> list[Case]:
    """Return different questions: every clip, all modes, greedy and drawn with many seeds."""
    rng = np.random.default_rng(0)
    cases = []
    for number in range(count):
        drawing = DRAWINGS[int(rng.integers(len(DRAWINGS)))]
        cases.append(
            Case(
                clip=number % clips,
                question=QUESTIONS[int(rng.integers(len(QUESTIONS)))],
                mode=MODES[int(rng.integers(len(MODES)))],
                drawing={**drawing, "seed": number} if drawing else {},
                limit=int(rng.integers(limit // 2, limit + 1)),
            )
        )
    return cases


def noises(count: int) -> list[LoadClip]:
    """Return clips of noise, half a second to three long."""
    clips = []
    for number in range(count):
        rng = np.random.default_rng(number)
        size = int(SAMPLE_RATE * rng.uniform(0.5, 3))
        clips.append(LoadClip.of_samples(rng.normal(scale=0.1, size=size).astype(np.float32)))
    return clips


class KnownAnswers:
    """What `Model.answer` gives for cases; kept in a file, for a benchmark that goes on."""

    def __init__(self, model: Model, clips: Sequence[LoadClip], *, file: Path | None):
        self._model, self._clips = model, clips
        self._heard: dict[tuple[int, str], Any] = {}
        self._kept = {}
        self._writer = None
        if file is not None:
            self._kept = {one["key"]: one for _, one in read_jsonl(file)}
            self._writer = JsonlWriter(file)

    def of(self, case: Case) -> dict[str, Any]:
        """Return tokens, text, spoken text, dropped seconds and how it ended."""
        wav = hashlib.sha256(self._clips[case.clip].wav).hexdigest()
        facts = [self._model.weights_sha256, wav, dataclasses.asdict(case)]
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        if key not in self._kept:
            self._kept[key] = {"key": key, **self._answer(case)}
            if self._writer is not None:
                self._writer.append(self._kept[key])
        return self._kept[key]

    def _answer(self, case: Case) -> dict[str, Any]:
        """As `Model.answer`, but a clip is heard once for all questions about it."""
        place = case.clip, case.mode
        if place not in self._heard:
            self._heard[place] = self._model.listen(self._clips[case.clip].wav, mode=case.mode)
        answer = drain(
            self._model.stream(
                self._heard[place], case.question, max_new_tokens=case.limit,
                sampling=SamplingConfig(**case.drawing) if case.drawing else None,
            )
        )  # fmt: skip
        return {
            "tokens": list(answer.tokens),
            "text": answer.text,
            "spoken_text": answer.spoken_text,
            "seconds_dropped": answer.seconds_dropped,
            "finish_reason": {"eos": "stop", "length": "length"}[answer.finish_reason],
        }


def equality(
    server: ServedProcess,
    clips: Sequence[LoadClip],
    known: Sequence[dict[str, Any]],
    cases: Sequence[Case],
    *,
    requests: int,
    clients: int,
    show: Callable[[str], None],
) -> dict[str, Any]:
    """Ask all cases in random order from many clients, some again, and compare every answer.

    Half of the requests are streamed; of every ten one is left on the way, and has to be the
    beginning of its answer.
    """
    rng = np.random.default_rng(1)
    order = rng.permutation(np.arange(requests) % len(cases))
    leaves = np.where(rng.random(requests) < 0.1, rng.integers(1, 6, requests), -1)
    answers: dict[int, TimedAnswer] = {}

    def ask(index: int) -> None:
        case, leave = cases[order[index]], int(leaves[index])
        body = case.body(server, clips[case.clip], stream=leave > 0 or index % 2 == 0)
        answers[index] = server.service.ask(body, leave_after=leave if leave > 0 else None)

    run_users(
        ask, users=clients, count=requests,
        watch=lambda: show(f"equality: {len(answers):,} of {requests:,}"),
    )  # fmt: skip
    wrong, crossed, failed = [], 0, Counter()
    others = {tuple(one["tokens"]) for one in known}
    for index, answer in answers.items():
        want = known[order[index]]
        if answer.error is not None:
            failed[answer.error] += 1
        elif not is_same(answer, want):
            wrong.append({"case": dataclasses.asdict(cases[order[index]]), "text": answer.text,
                          "wanted": want["text"], "left": answer.left})  # fmt: skip
            crossed += tuple(answer.ltu.get("tokens", ())) in others
    return {
        "requests": requests,
        "clients": clients,
        "clips": len({case.clip for case in cases}),
        "different_questions": len(cases),
        "different_answers": len(others),
        "drawn": sum(bool(cases[one].drawing) for one in order),
        "text_mode": sum(cases[one].mode == "text" for one in order),
        "cancelled": sum(one.left for one in answers.values()),
        "tokens_compared": sum(
            len(one.ltu.get("tokens", ())) for one in answers.values() if one.ended
        ),
        "failed": dict(failed),
        "differences": len(wrong),
        "cross_talk": crossed,
        "first_differences": wrong[:5],
        "occupied_after": _occupied_at_rest(server),
    }


def is_same(answer: TimedAnswer, want: dict[str, Any]) -> bool:
    """Tell whether an answer is the known one; one that was left is the beginning of its text."""
    if not answer.ended:
        return want["text"].startswith(answer.text.rstrip())
    return (
        answer.ltu["tokens"] == want["tokens"]
        and answer.text == want["text"]
        and answer.ltu["spoken_text"] == want["spoken_text"]
        and abs(answer.ltu["seconds_dropped"] - want["seconds_dropped"]) < 1e-6
        and answer.finish_reason == want["finish_reason"]
    )


def _occupied_at_rest(server: ServedProcess) -> dict[str, int]:
    server.rest()
    return server.occupied()


def disconnects(
    server: ServedProcess, clips: Sequence[LoadClip], *, count: int, clients: int
) -> dict[str, Any]:
    """Leave many requests: while a body is read, a clip is heard, or an answer is made.

    What the server has at the end, and whether it still answers, is in the result.
    """
    rng = np.random.default_rng(2)
    leaves = rng.integers(0, 5, count)

    def leave(index: int) -> None:
        clip = clips[index % len(clips)].marked(f"left {index}") if index % 2 else None
        body = body_of(
            server, clip, QUESTIONS[index % len(QUESTIONS)], mode="audio", stream=True,
            max_tokens=64, temperature=2.0, seed=index,
        )  # fmt: skip
        server.service.ask(body, leave_after=int(leaves[index]))

    run_users(leave, users=clients, count=count, watch=lambda: None)
    seconds = server.rest()
    after = server.service.ask(body_of(server, None, "Still there?", mode="text", max_tokens=4))
    return {
        "disconnects": count,
        "clients": clients,
        "left_before_a_reply": int((leaves == 0).sum()),
        "seconds_until_free": round(seconds, 3),
        "occupied_after": server.occupied(),
        "answers_after": after.ended,
    }


def soak(
    server: ServedProcess,
    clips: Sequence[LoadClip],
    *,
    requests: int,
    clients: int,
    settled: int,
    show: Callable[[str], None],
) -> dict[str, Any]:
    """Ask for a long time, half of it about clips that were heard before; watch the process.

    Of twenty requests ten are about ten old clips, seven about clips in new bytes (one of which is
    left on the way), one has no clip, one is no request, one names another model. Memory is that of
    the server with its workers, at request `settled` and at the end.
    """
    lock, done, samples = threading.Lock(), Counter(), []
    first: dict[int, list[int]] = {}
    unequal, unexpected = [], Counter()

    def sample() -> None:
        memory = server.memory()
        samples.append({"requests": done["all"], **memory, "descriptors": server.descriptors()})

    def ask(index: int) -> None:
        kind, old, leave, status = index % 20, index % 40, None, 200
        if kind < 10:
            clip = clips[kind]
        elif kind < 17:
            clip, leave = (
                clips[index % len(clips)].marked(f"new {index}"),
                2 if kind == 16 else None,
            )
        else:
            clip, status = None, {17: 200, 18: 400, 19: 404}[kind]
        fields: dict[str, Any] = {"max_tokens": 8, "stream": index % 3 == 0 or leave is not None}
        if kind % 2:
            fields |= {"temperature": 1.0, "seed": old}
        if kind == 18:
            fields["max_tokens"] = "many"
        if kind == 19:
            fields["model"] = "another"
        mode = ("audio", "joint")[old // 20]
        body = body_of(server, clip, QUESTIONS[old % len(QUESTIONS)], mode=mode, **fields)
        answer = server.service.ask(body, leave_after=leave)
        with lock:
            done["all"] += 1
            if not answer.left and answer.status != status:
                unexpected[f"{answer.status}: {answer.error}"] += 1
            if kind < 10 and answer.ended:
                done["cached"] += bool(answer.ltu.get("cached"))
                tokens = first.setdefault(old, answer.ltu["tokens"])
                if tokens != answer.ltu["tokens"]:
                    unequal.append(old)
            if done["all"] == settled:
                sample()

    def watch() -> None:
        show(f"soak: {done['all']:,} of {requests:,}, {server.memory()['server'] / 1e6:.0f} MB")
        with lock:
            if done["all"] > settled:
                sample()

    run_users(ask, users=clients, count=requests, watch=watch)
    server.rest()
    sample()
    at = next(one for one in samples if one["requests"] == settled)
    total = [one["server"] + one["workers"] for one in (at, samples[-1])]
    return {
        "requests": requests,
        "clients": clients,
        "about_cached_clips": done["cached"],
        "settled_at": settled,
        "memory_growth_percent": round(100 * (total[1] / total[0] - 1), 2),
        "memory_mb": [round(one / 1e6, 1) for one in total],
        "descriptors": [at["descriptors"], samples[-1]["descriptors"]],
        "unexpected": dict(unexpected),
        "unequal_answers": len(unequal),
        "occupied_after": server.occupied(),
        "samples": samples[:: max(len(samples) // 40, 1)],
    }
