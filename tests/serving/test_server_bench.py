"""`serve bench`: what it counts is what happened, at this server and at others."""

import contextlib
import io
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile

from ltu_jax import serve
from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.audio import load_audio
from ltu_jax.serving.server_load import LoadClip, LoadResult, ServerLoad, figures, shares
from ltu_jax.serving.server_settings import digest
from ltu_jax.serving.timed_chat import ChatService, TimedAnswer
from tests.preprocessing.making_audio import tone


def bench(*arguments):
    """Return the exit status of the command."""
    with pytest.raises(SystemExit) as ended:
        serve.main(["bench", *map(str, arguments)])
    return ended.value.code


@pytest.fixture
def clips(tmp_path):
    """Two files of other rates and formats than what is sent."""
    for name, rate, seconds in (("a.flac", 44_100, 1.0), ("b.ogg", 16_000, 0.5)):
        soundfile.write(tmp_path / name, tone(rate=rate, seconds=seconds, channels=2), rate)
    return [tmp_path / "a.flac", tmp_path / "b.ogg"]


def answer(**changed):
    told = {
        "status": 200, "error": None, "id": "x", "text": "word", "first": 0.1, "last": 0.4,
        "total": 0.5, "tokens": 4, "counted": True, "finish_reason": "stop", "ltu": {},
        "left": False,
    }  # fmt: skip
    return TimedAnswer(**told | changed)


# --- this server ----------------------------------------------------------------------------------


def test_everything_is_counted(server, clips, tmp_path, capsys):
    before, heard = len(server.engine.requests), server.model.heard
    out = tmp_path / "figures.json"
    status = bench("--url", server.url, "--users", 1, "--requests", 8, "--audio", *clips,
                   "--max-tokens", 5, "--question", "What?", "Why?", "--json", out)  # fmt: skip
    assert status == 0
    asked = server.engine.requests[before:]
    assert len(asked) == 9 and all(one.max_new_tokens == 5 for one in asked)
    assert server.model.heard - heard == 2  # the same bytes again are cached
    found = json.loads(out.read_text())
    assert (found["answered"], found["tokens"], found["failed"]) == (8, 40, {})
    assert found["tokens_counted_by"] == "server" and found["model"] == "scripted"
    assert found["audio_seconds"] == [1.0, 0.5]
    assert found["audio_seconds_per_second"] * found["seconds"] == pytest.approx(6, rel=0.02)
    assert found["server"]["cached"] == 7  # one request goes before, about the first clip
    parts = found["server"]["mean_ms"]
    assert sum(parts.values()) == pytest.approx(found["answer_ms"]["mean"], rel=0.02)
    assert parts["first_token"] == pytest.approx(10) and parts["decoding"] == pytest.approx(20)
    assert "tokens/s" in capsys.readouterr().out


def test_uncached_clips_are_heard_each_time_and_sound_the_same(server, clips):
    before, heard = len(server.engine.requests), server.model.heard
    status = bench("--url", f"{server.url}/v1", "--users", 2, "--requests", 4, "--audio", clips[0],
                   "--uncached", "--temperature", 1, "--model", "scripted")  # fmt: skip
    assert status == 0 and server.model.heard - heard == 5
    asked = server.engine.requests[before:]
    assert len({one.clips[0].features.tobytes() for one in asked}) == 1
    assert {one.sampling.seed for one in asked} == {0, 1, 2, 3}


def test_a_marked_clip_is_the_same_sound():
    samples = tone(rate=16_000, seconds=0.3)[:, 0].astype(np.float32)
    clip = LoadClip.of_samples(samples)
    one, other = clip.marked("1"), clip.marked("2")
    assert len({clip.wav, one.wav, other.wav}) == 3 and one.seconds == clip.seconds
    for each in (clip, one, other):
        np.testing.assert_allclose(load_audio(each.wav).samples, samples, atol=1e-4)
    assert soundfile.read(io.BytesIO(one.wav))[0].shape == samples.shape


def test_refused_requests_are_failures(server, capsys, tmp_path):
    out = tmp_path / "figures.json"
    with server.settings(most_requests=1):
        server.engine.pace = 0.02
        try:
            status = bench("--url", server.url, "--users", 2, "--requests", 4, "--json", out)
        finally:
            server.engine.pace = 0.0
    found = json.loads(out.read_text())
    assert status == 1 and 0 < found["answered"] < 4
    assert sum(found["failed"].values()) == 4 - found["answered"]
    assert all(why.startswith("429") for why in found["failed"])


def test_keys(server, tmp_path, capsys):
    (tmp_path / "key").write_text("schlüssel\nanother\n", encoding="utf-8")
    few = ("--url", server.url, "--users", 1, "--requests", 1)
    with server.settings(keys=frozenset([digest("schlüssel".encode())])):
        assert bench(*few, "--api-key-file", tmp_path / "key") == 0
        assert bench(*few) == 2
    assert "--api-key-file" in capsys.readouterr().err
    with pytest.raises(UserError, match="https"):
        ChatService(url="http://example.org/v1", key="secret")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("--url", "http://127.0.0.1:9"), "http://127.0.0.1:9"),
        (("--url", "ftp://a"), "ftp://a"),
        (("--users", "0"), "--users 0"),
        (("--requests", "0"), "--requests 0"),
        (("--max-tokens", "0"), "--max-tokens 0"),
        (("--temperature", "nan"), "--temperature nan"),
        (("--timeout", "0"), "--timeout 0"),
        (("--uncached",), "--uncached"),
        (("--audio", "no.wav"), "no.wav"),
        (("--model", "another"), "another"),
        (("--api-key-file", "no.key"), "--api-key-file no.key"),
    ],
)
def test_errors_name_what_is_wrong(server, capsys, given, named):
    assert bench("--url", server.url, *given) == 2
    told = capsys.readouterr().err
    assert named in told and "Traceback" not in told


def test_a_file_of_somebody_else_is_not_replaced(server, tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text("{}")
    assert bench("--url", server.url, "--json", mine) == 2
    assert mine.read_text() == "{}"


# --- other servers --------------------------------------------------------------------------------


class _Other(BaseHTTPRequestHandler):
    """Speaks an older dialect: no `stream_options`, no usage; pieces of two words."""

    protocol_version = "HTTP/1.1"
    broken = False

    def log_message(self, *_):
        pass

    def _reply(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self._reply(200, b'{"data": [{"id": "other"}]}')

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "stream_options" in asked:
            self._reply(422, b'{"detail": "stream_options"}')
            return
        events = [{"delta": {"role": "assistant"}}, {"delta": {"content": "one two"}},
                  {"delta": {"content": " three"}}]  # fmt: skip
        if not self.broken:
            events.append({"delta": {}, "finish_reason": "stop"})
        lines = [json.dumps({"id": "1", "choices": [one]}) for one in events]
        done = [] if self.broken else ["[DONE]"]
        body = "".join(f": ping\r\ndata: {line}\r\n\r\n" for line in [*lines, *done])
        self._reply(200, body.encode(), "text/event-stream")


@contextlib.contextmanager
def other(**attributes):
    made = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Other,), attributes))
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}/v1"
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


def test_a_server_of_another_dialect(tmp_path):
    out = tmp_path / "figures.json"
    with other() as url:
        assert bench("--url", url, "--users", 2, "--requests", 4, "--json", out) == 0
    found = json.loads(out.read_text())
    assert (found["model"], found["answered"], found["tokens"]) == ("other", 4, 8)
    assert found["tokens_counted_by"] == "pieces" and found["server"] is None


def test_what_speaks_no_http_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.recv(1 << 16)

        thread = threading.Thread(target=greet)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert bench("--url", url) == 2
        thread.join()
    told = capsys.readouterr().err
    assert f"{url} does not say which models it has (no reply of HTTP)" in told


def test_an_answer_that_breaks_off_is_none(capsys):
    with other(broken=True) as url:
        assert bench("--url", url, "--users", 1, "--requests", 1) == 2
    assert "broke off" in capsys.readouterr().err


# --- figures --------------------------------------------------------------------------------------


def test_figures_are_those_of_the_answers():
    clip = LoadClip(wav=b"", seconds=3.0)
    load = ServerLoad(model="m", users=2, requests=4, questions=("?",), clips=(clip,))
    answers = (
        answer(first=0.1, last=0.4, total=0.5, tokens=4),
        answer(first=0.3, last=0.7, total=0.9, tokens=5),
        answer(first=None, last=None, total=0.2, tokens=1, text=""),
        answer(status=429, error="full", finish_reason="", first=None, last=None, tokens=0),
    )
    found = figures(LoadResult(load=load, answers=answers, seconds=2.0))
    assert found["first_text_ms"] == {"p50": 200.0, "p99": 298.0, "mean": 200.0}
    assert found["per_token_ms"]["p50"] == 100.0
    assert found["answer_ms"]["p50"] == 500.0
    assert found["tokens_per_second"] == 5.0 and found["requests_per_second"] == 1.5
    assert found["audio_seconds_per_second"] == 4.5 and found["failed"] == {"429: full": 1}


def test_overhead_is_what_is_neither_hearing_nor_the_language_model():
    timings = {"decode_audio": 0.02, "listen": 0.3, "queued": 0.01, "first_token": 0.1,
               "decoding": 0.4, "total": 0.85}  # fmt: skip
    found = shares([answer(total=0.9, ltu={"timings": timings, "cached": True})])
    assert found["mean_ms"] == {
        "http": 50.0, "decode_audio": 20.0, "listen": 300.0, "queued": 10.0, "first_token": 100.0,
        "decoding": 400.0, "other": 20.0,
    }  # fmt: skip
    assert found["overhead_ms"] == 100.0 and found["overhead_share"] == round(0.1 / 0.9, 4)
    assert found["cached"] == 1
