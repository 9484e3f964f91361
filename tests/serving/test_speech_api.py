"""Transcriptions and translations by the official client: five formats, and streams."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest

from ltu_jax.generation.transcription import OPENAI
from tests.preprocessing.making_audio import wav

MINUTES = wav(bytes(2 * 8_000 * 95), rate=8_000)  # 95 s: four windows of the script
MODEL = "scripted"


def times(text: str, point: str) -> list[tuple[float, float]]:
    """The times of subtitles, read without the writer's code."""
    stamp = rf"(\d\d):(\d\d):(\d\d){re.escape(point)}(\d\d\d)"
    found = re.findall(rf"^{stamp} --> {stamp}$", text, re.MULTILINE)
    seconds = [[int(n) for n in one] for one in found]
    weights = np.array([3600, 60, 1, 0.001])
    return [(float(one[:4] @ weights), float(one[4:] @ weights)) for one in np.array(seconds)]


KNOWN = [(0.0, 30.0), (30.0, 60.0), (60.0, 90.0), (90.0, 95.0)]


def test_formats(server, client):
    create = client.audio.transcriptions.create
    plain = create(model=MODEL, file=("x.wav", MINUTES))
    assert plain.text == "word0 word1 word2 word3" and server.whisper.options[-1] == OPENAI
    for strategy in ("auto", {"type": "server_vad"}):
        same = create(model=MODEL, file=("x.wav", MINUTES), chunking_strategy=strategy)
        assert same.text == plain.text
    assert plain.usage.input_token_details.audio_tokens == 95 * 50
    assert create(model=MODEL, file=("x", MINUTES), response_format="text") == plain.text + "\n"
    told = create(
        model=MODEL, file=("x.mp3", MINUTES), response_format="verbose_json", language="en",
        timestamp_granularities=["segment"], temperature=0.2,
    )  # fmt: skip
    assert [(one.start, one.end) for one in told.segments] == KNOWN
    assert [one.seek for one in told.segments] == [0, 3_000, 6_000, 9_000]
    assert (told.duration, told.language, told.task) == (95.0, "en", "transcribe")
    asked = server.whisper.options[-1]
    assert (asked.language, asked.temperatures) == ("en", (0.2,))
    srt = create(model=MODEL, file=("x", MINUTES), response_format="srt")
    vtt = create(model=MODEL, file=("x", MINUTES), response_format="vtt")
    assert times(srt, ",") == times(vtt, ".") == KNOWN
    assert srt.startswith("1\n00:00:00,000 --> ") and vtt.startswith("WEBVTT\n\n")


def test_translations(server, client):
    told = client.audio.translations.create(
        model=MODEL, file=("x", MINUTES), response_format="verbose_json"
    )
    assert len(told.segments) == 4 and server.whisper.options[-1].task == "translate"
    with pytest.raises(openai.BadRequestError):
        client.audio.translations.create(
            model=MODEL, file=("x", MINUTES), extra_body={"language": "de"}
        )


def test_a_stream_comes_window_by_window(server, client):
    with client.audio.transcriptions.create(
        model=MODEL, file=("x", MINUTES), stream=True
    ) as stream:
        *deltas, done = stream
    assert [one.type for one in deltas] == ["transcript.text.delta"] * 4
    assert "".join(one.delta for one in deltas) == done.text == "word0 word1 word2 word3"
    assert done.usage.total_tokens == 95 * 50 + 4
    stream = client.audio.transcriptions.create(
        model=MODEL, file=("x", MINUTES), stream=True, response_format="verbose_json"
    )
    segments = [one for one in stream if one.type == "transcript.text.segment"]
    assert [(one.start, one.end) for one in segments] == KNOWN


def test_files_that_wait_are_not_yet_decoded(server, monkeypatch):
    """Each would be a hundred times as large."""
    gate, iterate = threading.Event(), server.whisper.iterate

    def gated(*given, **options):
        gate.wait(60)
        yield from iterate(*given, **options)

    monkeypatch.setattr(server.whisper, "iterate", gated)
    before = audio_seconds(server)

    def decoded() -> float:
        return (audio_seconds(server) - before) / 95

    with ThreadPoolExecutor(5) as at_once:
        asked = [
            at_once.submit(
                httpx.post, f"{server.url}/v1/audio/transcriptions", files={"file": MINUTES},
                data={"model": MODEL, "stream": str(number % 2 == 0)}, timeout=60,
            )
            for number in range(5)
        ]  # fmt: skip
        end = time.monotonic() + 30
        while (server.app.active < 5 or decoded() < 2) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.3)  # in which the others would be
        assert decoded() == 2
        gate.set()
        assert [one.result().status_code for one in asked] == [200] * 5
    assert decoded() == 5


def audio_seconds(server) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return float(re.search(r"^ltu:audio_seconds_total\S* (\S+)$", text, re.MULTILINE)[1])


def test_who_leaves_ends_the_work(server):
    server.whisper.pace = 0.2
    long = wav(bytes(2 * 8_000 * 3_000), rate=8_000)  # 100 windows: 20 s
    with httpx.stream(
        "POST", f"{server.url}/v1/audio/transcriptions", files={"file": long},
        data={"model": MODEL, "stream": "true"}, timeout=60,
    ) as got:  # fmt: skip
        assert next(got.iter_bytes())
    server.whisper.pace = 0.0
    answer = httpx.post(
        f"{server.url}/v1/audio/transcriptions", files={"file": MINUTES}, data={"model": MODEL},
        timeout=15,
    )  # fmt: skip
    assert answer.json()["text"].endswith("word3")
