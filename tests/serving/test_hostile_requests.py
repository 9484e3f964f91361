"""Requests of strangers: each gets a clean 4xx by name and soon, and nobody else is harmed."""

import base64
import contextlib
import http.client
import json
import socket
import time

import httpx
import pytest

from ltu_jax.serving import http_body, http_server
from tests.preprocessing.making_audio import wav
from tests.serving import hostile_audio

CHAT, SPEECH = "/v1/chat/completions", "/v1/audio/transcriptions"
ASK = {"model": "scripted", "messages": [{"role": "user", "content": "What?"}]}
GOOD = wav(bytes(16_000))
_DATA = base64.b64encode(GOOD).decode()


def _audio(data, **more) -> dict:
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav", **more}}
    return _parts(part)


def _url(url) -> dict:
    return _parts({"type": "audio_url", "audio_url": {"url": url}})


def _parts(*parts) -> dict:
    content = [*parts, {"type": "text", "text": "What?"}]
    return ASK | {"messages": [{"role": "user", "content": content}]}


def _said(message) -> dict:
    return ASK | {"messages": [message]}


HERE = "messages[0]"
PART = f"{HERE}.content[0]"
# Bodies of a chat -> the field that the error names.
CHATS = {
    "a list": ([], None),
    "a number": (5, None),
    "no model": ({"messages": ASK["messages"]}, "model"),
    "no messages": ({"model": "scripted"}, "messages"),
    "empty messages": (ASK | {"messages": []}, "messages"),
    "messages as text": (ASK | {"messages": "What?"}, "messages"),
    "300 messages": (ASK | {"messages": ASK["messages"] * 300}, "messages"),
    "a message as text": (_said("What?"), HERE),
    "no role": (_said({"content": "What?"}), f"{HERE}.role"),
    "another role": (_said({"role": "root", "content": "What?"}), f"{HERE}.role"),
    "a tool's message": (_said({"role": "tool", "content": "What?"}), f"{HERE}.role"),
    "no content": (_said({"role": "user"}), f"{HERE}.content"),
    "empty parts": (_said({"role": "user", "content": []}), f"{HERE}.content"),
    "an empty question": (_said({"role": "user", "content": " "}), "messages"),
    "the assistant first": (_said({"role": "assistant", "content": "Yes."}), "messages"),
    "half a character": (_said({"role": "user", "content": "\ud800"}), f"{HERE}.content"),
    "a part as text": (_parts("x"), PART),
    "a part of no type": (_parts({"text": "x"}), f"{PART}.type"),
    "a picture": (_parts({"type": "image_url", "image_url": {"url": "x"}}), f"{PART}.type"),
    "a file": (_parts({"type": "file", "file": {"file_id": "x"}}), f"{PART}.type"),
    "more in a part": (_parts({"type": "text", "text": "x", "y": 1}), f"{PART}.y"),
    "audio without data": (_parts({"type": "input_audio"}), f"{PART}.input_audio"),
    "data of no type": (_audio(5), f"{PART}.input_audio.data"),
    "data that are empty": (_audio(""), f"{PART}.input_audio.data"),
    "bad base64": (_audio("====" + _DATA), f"{PART}.input_audio.data"),
    "base64 cut off": (_audio(_DATA[:-3]), f"{PART}.input_audio.data"),
    "base64 with an umlaut": (_audio("ä" * 8), f"{PART}.input_audio.data"),
    "a data address as data": (_audio(f"data:audio/wav;base64,{_DATA}"),
                               f"{PART}.input_audio.data"),
    "a path as data": (_audio("../../etc/passwd"), f"{PART}.input_audio.data"),
    "audio of the system": (
        ASK | {"messages": [{"role": "system", "content": _audio(_DATA)["messages"][0]["content"]},
                            *ASK["messages"]]}, f"{PART}.type"),
    "30 MB of audio": (_audio("A" * 40_000_000), None),
    "nine clips": (_parts(*_audio(_DATA)["messages"][0]["content"][:1] * 9), "messages"),
    "nested deeply": ("[" * 200_000, None),
    "not JSON": ('{"model": ', None),
    "NaN": ('{"model": "scripted", "messages": [], "temperature": NaN}', None),
    "a huge number": ('{"model": "scripted", "messages": [], "seed": 1' + "0" * 9_000 + "}", None),
    "a temperature that no float holds": (ASK | {"temperature": 10**400}, "temperature"),
    "not UTF-8": (b'{"model": "\xff"}', None),
    "a secret field": (ASK | {"trust_remote_code": True}, "trust_remote_code"),
    "a mode of no kind": (ASK | {"ltu": {"mode": "loud"}}, "ltu.mode"),
    "audio mode without audio": (ASK | {"ltu": {"mode": "audio"}}, "ltu.mode"),
    "17 choices": (ASK | {"n": 17}, "n"),
    "five stops": (ASK | {"stop": list("abcde")}, "stop"),
    "an empty stop": (ASK | {"stop": ""}, "stop"),
    "two limits": (ASK | {"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
    "a model elsewhere": (ASK | {"model": "../../other"}, "model"),
    **{
        f"the address {address}": (_url(address), f"{PART}.audio_url.url")
        for address in (
            "http://127.0.0.1:1/x.wav", "https://example.com/x.wav", "HTTP://LOCALHOST/",
            "http://169.254.169.254/latest/meta-data", "http://[::ffff:127.0.0.1]/",
            "http://0x7f000001/", "file:///etc/passwd", "ftp://h/x", "//host/x", "/etc/passwd",
            "\tdata:audio/wav;base64,AAAA", "data:audio/wav,AAAA", "data:;base64", "gopher://h", "",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_is_refused_by_name(server, name):
    body, param = CHATS[name]
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    begun = len(server.engine.requests)
    got = httpx.post(
        server.url + CHAT, content=content, headers={"content-type": "application/json"}, timeout=60
    )
    assert 400 <= got.status_code < 500, got.text
    error = got.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and len(error["message"]) < 500
    assert param is None or (error["param"] or "").startswith(param), error
    assert len(server.engine.requests) == begun


def test_a_book_is_refused_before_it_is_split_into_tokens(server, monkeypatch):
    monkeypatch.setattr(server.app.chat, "tokenizer", None)
    got = httpx.post(server.url + CHAT, json=_said({"role": "user", "content": "a " * 140_000}))
    error = got.json()["error"]
    assert got.status_code == 400 and error["code"] == "context_length_exceeded"
    assert error["param"] == "messages"


def test_hostile_audio_is_refused_and_the_next_is_heard(server):
    with server.settings(most_transcription_seconds=hostile_audio.MOST_SECONDS):
        server.app.chat.hearing.most_seconds = hostile_audio.MOST_SECONDS
        for name, content in hostile_audio.table().items():
            body = _audio(base64.b64encode(content).decode())
            got = httpx.post(server.url + CHAT, json=body, timeout=60)
            assert got.status_code == 400, (name, got.text)
            assert got.json()["error"]["param"] == f"{PART}.input_audio.data", name
        server.app.chat.hearing.most_seconds = 600.0
        bomb = {"file": ("x.flac", hostile_audio.silence(600, format="FLAC"))}
        got = httpx.post(server.url + SPEECH, files=bomb, data={"model": "scripted"}, timeout=60)
        assert got.status_code == 400 and got.json()["error"]["code"] == "invalid_audio"
    assert httpx.post(server.url + CHAT, json=_audio(_DATA), timeout=60).status_code == 200


def test_a_body_that_can_just_be_read_is_not_too_deep_to_be_refused(server):
    """Whoever writes the message has less of Python's stack left than whoever read the body."""
    for depth in range(860, 1000, 2):
        body = json.dumps(ASK)[:-1] + ', "temperature": ' + "[" * depth + "]" * depth + "}"
        json_kind = {"content-type": "application/json"}
        got = httpx.post(server.url + CHAT, content=body, headers=json_kind, timeout=60)
        assert got.status_code == 400, depth


FORMS = {
    "no file": ({}, {"model": "scripted"}, "file"),
    "two files": ([("file", GOOD), ("file", GOOD)], {"model": "scripted"}, "file"),
    "a file of another name": ({"audio": GOOD}, {"model": "scripted"}, "audio"),
    "no model": ({"file": GOOD}, {}, "model"),
    "another model": ({"file": GOOD}, {"model": "whisper-1"}, "model"),
    "an unknown field": ({"file": GOOD}, {"model": "scripted", "x": "y"}, "x"),
    "a prompt": ({"file": GOOD}, {"model": "scripted", "prompt": "Hm."}, "prompt"),
    "another format": ({"file": GOOD}, {"model": "scripted", "response_format": "exe"},
                       "response_format"),
    "a hot temperature": ({"file": GOOD}, {"model": "scripted", "temperature": "nan"},
                          "temperature"),
    "another language": ({"file": GOOD}, {"model": "scripted", "language": "xx"}, "language"),
    "words": ({"file": GOOD}, {"model": "scripted", "timestamp_granularities[]": "word"},
              "timestamp_granularities[]"),
    "segments of text": (
        {"file": GOOD}, {"model": "scripted", "timestamp_granularities": "segment"},
        "timestamp_granularities[]"),
    "two languages": ({"file": GOOD}, {"model": "scripted", "language": ["de", "en"]}, "language"),
    "a stream of no kind": ({"file": GOOD}, {"model": "scripted", "stream": "maybe"}, "stream"),
    "no audio": ({"file": b"hello"}, {"model": "scripted"}, "file"),
    "too many parts": ([("file", GOOD)] * 80, {"model": "scripted"}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_refused_by_name(server, name):
    files, data, param = FORMS[name]
    if not files:
        files = {"nothing": ""}
        param = "nothing"
    got = httpx.post(server.url + SPEECH, files=files, data=data, timeout=60)
    assert 400 <= got.status_code < 500
    assert got.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "body", [b"", b"--b\r\n", b"--b\r\nno header\r\n\r\nx\r\n--b--\r\n", b"x" * 1000]
)
def test_a_broken_form_is_refused(server, body):
    kind = {"content-type": "multipart/form-data; boundary=b"}
    got = httpx.post(server.url + SPEECH, content=body, headers=kind, timeout=60)
    assert got.status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404), ("GET", "/v1/../etc/passwd", 404), ("GET", "/v1/models/%2e%2e%2f", 404),
        ("GET", CHAT, 405), ("PUT", "/v1/models", 405), ("DELETE", f"{CHAT}/chatcmpl-0", 404),
        ("GET", f"{CHAT}/chatcmpl-0/stream", 404), ("POST", "/v1/audio/speech", 404),
        ("TRACE", "/v1/models", 405),
    ],
)  # fmt: skip
def test_other_addresses(server, method, path, status):
    got = httpx.request(method, server.url + path)
    assert got.status_code == status and got.json()["error"]["message"]


def test_content_types_and_other_sites(server):
    text = httpx.post(server.url + CHAT, content=json.dumps(ASK),
                      headers={"content-type": "text/plain"})  # fmt: skip
    assert text.status_code == 415  # what a page elsewhere can send without asking
    site = httpx.post(server.url + CHAT, json=ASK, headers={"sec-fetch-site": "cross-site"})
    assert site.status_code == 403


# --- sizes and speeds -----------------------------------------------------------------------------


def _connect(server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def _head(length: str) -> bytes:
    return (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{length}\r\n\r\n"
    ).encode()


def _status(connection: socket.socket) -> int:
    return int(connection.makefile("rb").readline().split()[1])


def _reply(connection: socket.socket) -> int:
    """Return the status of a reply that is read whole."""
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    reply.read()
    return reply.status


def test_each_head_on_a_connection_has_time_of_its_own(server, monkeypatch):
    monkeypatch.setattr(http_server, "_HEAD_SECONDS", 1.0)
    head = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
    with _connect(server) as connection:
        connection.sendall(head)
        assert _reply(connection) == 200
        time.sleep(0.8)
        connection.sendall(head[:20])
        time.sleep(0.3)  # the time of the first head is over
        connection.sendall(head[20:])
        assert _reply(connection) == 200
        connection.sendall(head[:20])
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""  # it is cut off


def test_a_body_too_large_is_refused_before_it_comes_and_while_it_comes(server):
    with server.settings(most_body=100_000), _connect(server) as stated:
        stated.sendall(_head("content-length: 100000000"))
        assert _status(stated) == 413
    with server.settings(most_body=100_000), _connect(server) as chunked:
        chunked.sendall(_head("transfer-encoding: chunked"))
        sent, chunk = 0, b"4000\r\n" + b" " * 0x4000 + b"\r\n"
        chunked.settimeout(0.2)
        try:
            while sent < 100_000_000:
                sent += chunked.send(chunk)
        except (TimeoutError, ConnectionError):
            pass  # it reads no more
        assert sent < 20_000_000  # what it read, and what lies between
    whole = httpx.post(server.url + CHAT, content=b" " * 100_000_000, timeout=60,
                       headers={"content-type": "application/json"})  # fmt: skip
    assert whole.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "kind", "status"),
    [
        ("POST", CHAT, "text/plain", 415),
        ("POST", "/nowhere", "x", 404),
        ("GET", "/livez", "x", 200),
    ],
)
def test_who_owes_a_body_that_nobody_reads_is_not_waited_for(
    server, monkeypatch, method, path, kind, status
):
    monkeypatch.setattr(http_body, "_LINGER_SECONDS", 0.2)
    with _connect(server) as connection:
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n"
        connection.sendall(f"{head}content-length: 1000\r\n\r\n".encode() + b"{")
        answer = connection.makefile("rb").read()  # up to the end of the connection
    assert int(answer.split()[1]) == status and b"connection: close" in answer.lower()


def test_a_refused_body_that_comes_to_its_end_leaves_the_connection(server):
    with httpx.Client(base_url=server.url, timeout=60) as http:
        text = {"content-type": "text/plain"}
        for _ in range(2):
            got = http.post(CHAT, content=b" " * 3_000_000, headers=text)
            assert got.status_code == 415 and "connection" not in got.headers


def test_slow_senders_are_dropped(server):
    with server.settings(idle=0.3), _connect(server) as stopped:
        stopped.sendall(_head("content-length: 1000") + b"{")
        assert _status(stopped) == 408
    assert server.app.active == 0


def test_more_than_may_be_worked_at_get_429(server):
    with server.settings(most_requests=1, idle=5), _connect(server) as first:
        first.sendall(_head("content-length: 1000") + b"{")
        end = time.monotonic() + 20
        while not server.app.active and time.monotonic() < end:
            time.sleep(0.01)
        got = httpx.post(server.url + CHAT, json=ASK)
        assert got.status_code == 429 and got.headers["retry-after"] == "1"
        assert httpx.get(server.url + "/livez").status_code == 200
    while server.app.active and time.monotonic() < end:
        time.sleep(0.01)
    assert httpx.post(server.url + CHAT, json=ASK).status_code == 200
