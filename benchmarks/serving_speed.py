"""How fast a server is beside the library alone, on the same cores, taking turns.

Answers are drawn at temperature 2, so that they hardly end before their limit, and with one seed
each, so that server and library write the same tokens: that they do is checked too.
"""

import contextlib
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.served_process import ServedProcess
from benchmarks.serving_truths import QUESTIONS, body_of
from ltu_jax.generation.request import Request
from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.inference import Model
from ltu_jax.serving.server_load import LoadClip, ServerLoad, figures, run_load, shares
from ltu_jax.serving.timed_chat import TimedAnswer

TEMPERATURE = 2.0
_marks = itertools.count()


def _fresh(clip: LoadClip) -> LoadClip:
    """Return a clip in bytes that no server has met."""
    return clip.marked(f"speed {time.time_ns()} {next(_marks)}")


def _sampling(seed: int) -> SamplingConfig:
    return SamplingConfig(temperature=TEMPERATURE, seed=seed)


# --- many users -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alone:
    """The library without a server: seconds to hear and to answer, and the tokens it wrote."""

    hearing: float
    answering: float
    tokens: list[tuple[int, ...]]

    @property
    def count(self) -> int:
        return sum(map(len, self.tokens))


def _batched(model: Model, clips: Sequence[LoadClip], *, limit: int, batch: int) -> Alone:
    """Hear clips in batches, and answer in batches."""
    begun = time.perf_counter()
    wavs = [clip.wav for clip in clips]
    features = model.audio_features_batch(wavs)
    texts = [one.spoken_text for one in model.transcribe(wavs)]
    heard = time.perf_counter()
    requests = [
        Request(
            question=QUESTIONS[i % len(QUESTIONS)], spoken_text=text, audio_features=features[i]
        )
        for i, text in enumerate(texts)
    ]
    answers = model.answer_batch(
        requests, max_new_tokens=limit, sampling=[_sampling(i) for i in range(len(clips))],
        batch_size=batch,
    )  # fmt: skip
    return Alone(
        hearing=heard - begun,
        answering=time.perf_counter() - heard,
        tokens=[one.tokens for one in answers],
    )


def _one_by_one(model: Model, clips: Sequence[LoadClip], *, limit: int) -> Alone:
    """Hear and answer one clip behind the other, at batch 1."""
    hearing, answering, tokens = 0.0, 0.0, []
    for i, clip in enumerate(clips):
        begun = time.perf_counter()
        heard = model.listen(clip.wav)
        middle = time.perf_counter()
        tokens += [
            answer.tokens
            for answer in model.answer_batch(
                [
                    Request(
                        question=QUESTIONS[i % len(QUESTIONS)],
                        spoken_text=heard.spoken_text,
                        audio_features=heard.features,
                    )
                ],
                max_new_tokens=limit,
                sampling=_sampling(i),
                batch_size=1,
            )
        ]
        hearing += middle - begun
        answering += time.perf_counter() - middle
    return Alone(hearing=hearing, answering=answering, tokens=tokens)


def throughput(
    server: ServedProcess,
    model: Model,
    clips: Sequence[LoadClip],
    *,
    users: int,
    limit: int,
    rounds: int,
    show: Callable[[str], None],
) -> dict[str, Any]:
    """Compare users who send clips that nobody has heard with `answer_batch` and with batch 1.

    "hearing too" is the same work as the server's; "answers" is `answer_batch`, or `generate` at
    batch 1, with clips that were heard before. The users then ask about such clips too: "cached".
    """
    single = clips[: max(len(clips) // 4, 1)]
    _batched(model, clips[:users], limit=limit, batch=users)  # compiles
    _one_by_one(model, single[:1], limit=limit)
    load = ServerLoad(
        model=server.model, users=users, requests=len(clips), questions=QUESTIONS,
        clips=tuple(clips), uncached=True, max_tokens=limit, temperature=TEMPERATURE,
    )  # fmt: skip
    served, again, batched, ones = [], [], [], []
    known = dataclasses.replace(load, uncached=False)
    run_load(server.service, known)  # now they are
    for number in range(rounds):
        marked = dataclasses.replace(load, mark=f"throughput {time.time_ns()}")
        turns = [
            lambda marked=marked: served.append(run_load(server.service, marked)),
            lambda: again.append(run_load(server.service, known)),
            lambda: batched.append(_batched(model, clips, limit=limit, batch=users)),
            lambda: ones.append(_one_by_one(model, single, limit=limit)),
        ]
        for turn in turns if number % 2 == 0 else turns[::-1]:
            turn()
        show(f"throughput: round {number + 1} of {rounds}")
    unequal = sum(
        tuple(one.ltu["tokens"]) != tokens
        for result in [*served, *again]
        for one, tokens in zip(result.answers, batched[0].tokens, strict=True)
    )
    found = [figures(result) for result in served]
    rate = statistics.median(one["tokens_per_second"] for one in found)
    cached = statistics.median(figures(result)["tokens_per_second"] for result in again)

    def alone(runs: Sequence[Alone], *, hearing: bool) -> float:
        return statistics.median(
            run.count / (run.answering + (run.hearing if hearing else 0)) for run in runs
        )

    rates = {
        f"{name}, {what}": alone(runs, hearing=what == "hearing too")
        for name, runs in (("answer_batch", batched), ("batch 1", ones))
        for what in ("answers", "hearing too")
    }
    return {
        "users": users,
        "requests": len(clips),
        "tokens_an_answer": limit,
        "rounds": rounds,
        "server_tokens_per_second": rate,
        "tokens_per_second": {name: round(value, 2) for name, value in rates.items()},
        "times": {name: round(rate / value, 3) for name, value in rates.items()},
        "cached_tokens_per_second": cached,
        "cached_times": {
            name: round(cached / rates[f"{name}, answers"], 3)
            for name in ("answer_batch", "batch 1")
        },
        "unequal_answers": unequal,
        "seconds_hearing": {
            "in batches": round(statistics.median(run.hearing for run in batched), 3),
            "one by one, a clip": round(
                statistics.median(run.hearing for run in ones) / len(single), 3
            ),
        },
        "load": found[-1],
    }


# --- one user -------------------------------------------------------------------------------------


def lone(
    server: ServedProcess,
    model: Model,
    clips: Sequence[LoadClip],
    *,
    limit: int,
    show: Callable[[str], None],
) -> dict[str, Any]:
    """Compare a request that is alone with `Model.answer`; clips in turn, each new to both."""
    alone, answers, unequal = [], [], 0
    model.answer(clips[0].wav, QUESTIONS[0], max_new_tokens=limit, sampling=_sampling(0))
    _ask(server, _fresh(clips[0]), 0, limit=limit)
    for i, clip in enumerate(clips):
        question = QUESTIONS[i % len(QUESTIONS)]

        def library(clip=clip, question=question, i=i) -> tuple[int, ...]:
            begun = time.perf_counter()
            made = model.answer(clip.wav, question, max_new_tokens=limit, sampling=_sampling(i))
            alone.append(time.perf_counter() - begun)
            return made.tokens

        def asked(clip=clip, i=i) -> tuple[int, ...]:
            answers.append(_ask(server, _fresh(clip), i, limit=limit))
            return tuple(answers[-1].ltu["tokens"])

        first, second = (library, asked) if i % 2 else (asked, library)
        unequal += first() != second()
    show(f"lone: {len(clips)} clips")
    mine, theirs = statistics.median(alone), statistics.median(one.total for one in answers)
    spent = shares(answers)
    return {
        "requests": len(clips),
        "tokens_an_answer": limit,
        "answer_ms": round(1000 * mine, 1),
        "server_ms": round(1000 * theirs, 1),
        "times": round(theirs / mine, 3),
        "overhead_ms": spent["overhead_ms"],
        "overhead_allowed_ms": round(0.05 * 1000 * theirs + 10, 1),
        "mean_ms": spent["mean_ms"],
        "unequal_answers": unequal,
    }


def _ask(server: ServedProcess, clip: LoadClip, seed: int, *, limit: int) -> TimedAnswer:
    body = body_of(
        server, clip, QUESTIONS[seed % len(QUESTIONS)], mode="joint", stream=True,
        max_tokens=limit, temperature=TEMPERATURE, seed=seed,
    )  # fmt: skip
    answer = server.service.ask(body)
    if not answer.ended:
        raise RuntimeError(f"status {answer.status}: {answer.error}")
    return answer


def follow_up(
    server: ServedProcess, clips: Sequence[LoadClip], *, show: Callable[[str], None]
) -> dict[str, Any]:
    """Compare how soon the first question about a clip is answered, and the next one."""
    first, second, turn = [], [], []
    for i, clip in enumerate(clips):
        clip = _fresh(clip)
        asked = body_of(server, clip, QUESTIONS[0], mode="joint", stream=True, max_tokens=16)
        other = body_of(server, clip, QUESTIONS[1], mode="joint", stream=True, max_tokens=16)
        answers = [server.service.ask(asked), server.service.ask(other)]
        answers.append(server.service.ask(_next_turn(asked, answers[0].text, QUESTIONS[7])))
        if not all(one.ended for one in answers):
            raise RuntimeError([one.error for one in answers])
        if [one.ltu["cached"] for one in answers] != [False, True, True]:
            raise RuntimeError("a clip was cached that should not be, or was not")
        # An answer may be empty; its end is then what comes first.
        times = [one.total if one.first is None else one.first for one in answers]
        for kept, value in zip((first, second, turn), times, strict=True):
            kept.append(value)
        show(f"follow-up: {i + 1} of {len(clips)}")
    medians = [statistics.median(values) for values in (first, second, turn)]
    return {
        "clips": len(clips),
        "first_question_ms": round(1000 * medians[0], 1),
        "next_question_ms": round(1000 * medians[1], 1),
        "next_turn_ms": round(1000 * medians[2], 1),
        "times_sooner": round(medians[0] / medians[1], 2),
        "times_sooner_next_turn": round(medians[0] / medians[2], 2),
    }


def _next_turn(body: bytes, answer: str, question: str) -> bytes:
    asked = json.loads(body)
    asked["messages"] += [
        {"role": "assistant", "content": answer or "-"},
        {"role": "user", "content": question},
    ]
    return json.dumps(asked).encode()


# --- others at the same time ----------------------------------------------------------------------


def behind_long(server: ServedProcess, *, longs: int, limit: int) -> dict[str, Any]:
    """Send a short request when long ones are being answered: which end before it?

    Long ones that their model ends early are no long ones, and are not counted.
    """
    ends: dict[str, tuple[float, int]] = {}
    begun = time.perf_counter()

    def ask(name: str, **fields: Any) -> None:
        body = body_of(server, None, f"Tell a {name} story.", mode="text", stream=True, **fields)
        answer = server.service.ask(body)
        tokens = len(answer.ltu["tokens"]) if answer.ended else 0
        ends[name] = time.perf_counter() - begun, tokens

    threads = []
    for number in range(longs):
        fields = {"max_tokens": limit, "temperature": TEMPERATURE, "seed": number}
        threads.append(threading.Thread(target=ask, args=[f"long {number}"], kwargs=fields))
        threads[-1].start()
    while sum(server.occupied().values()) < longs:
        time.sleep(0.01)
    sent = time.perf_counter() - begun
    ask("short", max_tokens=2)
    for thread in threads:
        thread.join()
    short, _ = ends.pop("short")
    whole = [end for end, tokens in ends.values() if tokens == limit]
    return {
        "long_requests": len(whole),
        "tokens_of_a_long": limit,
        "short_ms": round(1000 * (short - sent), 1),
        "first_long_ended_ms": round(1000 * (min(whole) - sent), 1),
        "ended_before_the_short": sum(end < short for end in whole),
    }


def livez(
    server: ServedProcess,
    clips: Sequence[LoadClip],
    *,
    users: int,
    large: bytes,
    show: Callable[[str], None],
) -> dict[str, Any]:
    """Ask /livez again and again while users ask about clips, and while they send a large MP3."""
    asking = ServerLoad(
        model=server.model, users=users, requests=2 * users, questions=QUESTIONS,
        clips=tuple(clips), uncached=True, mark=f"livez {time.time_ns()}", max_tokens=32,
        temperature=TEMPERATURE,
    )  # fmt: skip
    sending = dataclasses.replace(
        asking, uncached=False, max_tokens=1, requests=users,
        clips=tuple(LoadClip(wav=_tagged(large), seconds=0.0) for _ in range(users)),
    )  # fmt: skip
    found = {}
    for name, load in (("idle", None), ("users ask", asking), ("users send MP3", sending)):
        with _polled(server) as polled:
            if load is None:
                time.sleep(2)
            else:
                result = run_load(server.service, load)
                if bad := [one.error for one in result.answers if not one.ended]:
                    raise RuntimeError(bad[0])
        found[name] = polled
        show(f"/livez, {name}: {found[name]}")
    return {"users": users, "large_bytes": len(large), "loads": found}


def _tagged(mp3: bytes) -> bytes:
    """Return the same MP3 in bytes that no server has met: with a tag in front."""
    mark = f"{time.time_ns()} {next(_marks)}".encode().ljust(64)
    comment = b"COMM" + (5 + len(mark)).to_bytes(4) + b"\0\0\0eng\0" + mark
    return b"ID3\x04\0\0" + len(comment).to_bytes(4) + comment + mp3


@contextlib.contextmanager
def _polled(server: ServedProcess) -> Iterator[dict[str, Any]]:
    """Ask /livez all through a block; the figures are in the dictionary behind it."""
    command = [sys.executable, "-m", "benchmarks.poll_livez", server.url]
    found: dict[str, Any] = {}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        yield found
        told, _ = process.communicate()
    milliseconds = 1000 * np.asarray(json.loads(told))
    p50, p99 = np.percentile(milliseconds, (50, 99))
    found |= {
        "count": len(milliseconds),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "most_ms": round(float(milliseconds.max()), 2),
    }
