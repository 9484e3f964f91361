"""A server from its beginning to its end: keys, health, counts, signals."""

import asyncio
import base64
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ltu_jax.serving import decode_pool, http_server
from ltu_jax.serving.server_settings import read_keys
from tests.preprocessing.making_audio import wav
from tests.serving.scripted import scripted_app, served

CHAT, SPEECH = "/v1/chat/completions", "/v1/audio/transcriptions"
ASK = {"model": "scripted", "messages": [{"role": "user", "content": "What?"}]}
CLIP = wav(bytes(16_000))
_DATA = {"data": base64.b64encode(CLIP).decode(), "format": "wav"}
_PARTS = [{"type": "input_audio", "input_audio": _DATA}, {"type": "text", "text": "What?"}]
ASK_OF_CLIP = ASK | {"messages": [{"role": "user", "content": _PARTS}]}


def test_keys_metrics_and_the_end(tmp_path, caplog):
    (tmp_path / "keys").write_text("one\n\n two \nschlüssel\n", encoding="utf-8")
    keys = read_keys(tmp_path / "keys")
    caplog.set_level("INFO", logger="ltu_jax.serving")
    with served(keys=keys, drain=20.0) as server, httpx.Client(base_url=server.url) as http:
        for path, method in server.app.routes:
            path = path.replace("{id}", "x").replace("{id:path}", "x")
            got = [
                http.request(method, path, headers=headers).status_code
                for headers in ({}, {"authorization": "Bearer three"}, {"authorization": "one"})
            ]
            assert got == ([200] * 3 if path in ("/livez", "/readyz") else [401] * 3), path
        for key in ("one", "two", "schlüssel"):
            got = http.get("/v1/models", headers={b"authorization": f"Bearer {key}".encode()})
            assert got.status_code == 200, key
        http.headers["authorization"] = "Bearer two"
        server.engine.pace = 0.5
        with http.stream("POST", CHAT, json=ASK | {"stream": True, "user": "SECRET"}) as stream:
            lines = stream.iter_lines()
            next(lines)
            during = http.get("/metrics").text
            assert 'vllm:num_requests_running{model_name="scripted"} 1.0' in during
            server.stop()
            end = time.monotonic() + 20
            while http.get("/readyz").status_code == 200 and time.monotonic() < end:
                time.sleep(0.01)
            assert http.post(CHAT, json=ASK).status_code == 503
            assert http.get("/livez").status_code == 200
            server.engine.pace = 0.0
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        server.thread.join(30)
        assert not server.thread.is_alive() and server.engine.closed and not server.app.pool.pids
    assert "SECRET" not in caplog.text and "two" not in caplog.text and CHAT in caplog.text


def test_an_engine_that_failed_is_not_ready(server):
    server.engine.closed = True
    try:
        assert httpx.get(server.url + "/readyz").status_code == 503
        assert httpx.post(server.url + CHAT, json=ASK).status_code == 503
    finally:
        server.engine.closed = False
    assert httpx.get(server.url + "/readyz").status_code == 200


def test_counts_are_those_of_what_happened():
    with served() as server, httpx.Client(base_url=server.url, timeout=60) as http:
        for body in (ASK_OF_CLIP, ASK_OF_CLIP, ASK, ASK | {"n": 0}):
            http.post(CHAT, json=body)
        with server.settings(deadline=0.005):
            for stream in (False, True):
                http.post(CHAT, json=ASK | {"stream": stream})
        text = http.get("/metrics").text
        for line in (
            'vllm:request_success_total{finished_reason="stop",model_name="scripted"} 3.0',
            'vllm:request_success_total{finished_reason="deadline",model_name="scripted"} 2.0',
            'vllm:generation_tokens_total{model_name="scripted"} 36.0',
            'vllm:time_to_first_token_seconds_count{model_name="scripted"} 3.0',
            'vllm:num_requests_running{model_name="scripted"} 0.0',
            'ltu:audio_seconds_total{model_name="scripted"} 0.5',
            'ltu:heard_total{cache="hit",model_name="scripted"} 1.0',
            'ltu:heard_total{cache="miss",model_name="scripted"} 1.0',
            f'ltu:http_responses_total{{route="{CHAT}",status="200"}} 4.0',
            f'ltu:http_responses_total{{route="{CHAT}",status="400"}} 1.0',
        ):
            assert line in text, line


def test_a_second_signal_ends_what_still_runs():
    with served(drain=60.0) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        server.engine.pace = 5.0
        with http.stream("POST", CHAT, json=ASK | {"stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.stop()
            server.hurry()
            *_, done, empty = lines
            assert (done, empty) == ("data: [DONE]", "")
        server.thread.join(30)
        assert not server.thread.is_alive()


@pytest.mark.parametrize("stream", [False, True])
def test_a_file_that_is_being_transcribed_at_the_end_is_told(stream):
    with served(drain=60.0) as server, ThreadPoolExecutor(1) as other:
        server.whisper.pace = 10.0
        form = {"model": "scripted", "stream": str(stream)}
        waiting = other.submit(
            httpx.post, server.url + SPEECH, files={"file": CLIP}, data=form, timeout=60
        )
        end = time.monotonic() + 20
        while not server.whisper.options and time.monotonic() < end:
            time.sleep(0.01)
        server.stop()
        server.hurry()
        got = waiting.result()
    if stream:
        assert '"code": "stopped"' in got.text and got.text.endswith("data: [DONE]\n\n")
    else:
        assert got.status_code == 503 and got.json()["error"]["code"] == "draining"


def test_a_server_whose_workers_do_not_start_says_so(monkeypatch):
    monkeypatch.setattr(decode_pool, "_STARTING", 0.0)
    app, listener = scripted_app(), http_server.listen("127.0.0.1", 0)

    async def serve():
        await http_server.serve(app, listener, stop=asyncio.Event(), hurry=asyncio.Event())

    asyncio.run(serve())
    listener.close()
    assert app.failure == "a decoding process does not start" and not app.pool.pids


NEVER_READY = """
import threading
from ltu_jax.serving import http_server
from tests.serving.scripted import scripted_app

app = scripted_app()
app.warm = threading.Event().wait
listener = http_server.listen("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
http_server.run(app, listener=listener)
"""


def test_sigterm_before_it_is_ready_ends_it():
    process = subprocess.Popen([sys.executable, "-c", NEVER_READY], stdout=subprocess.PIPE)
    try:
        port = int(process.stdout.readline())
        got = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60)  # answered once it serves
        assert got.status_code == 503
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
