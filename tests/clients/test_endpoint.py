"""The HTTP client against a real server on this machine: retries, limits, and who sees the key."""

import json
import socket

import pytest

from ltu_jax.clients import endpoint
from ltu_jax.clients.endpoint import Endpoint, EndpointError, split_spec
from ltu_jax.core.errors import UserError
from tests.support.openai_server import ok, servers

SECRET = "sk-very-secret-0123456789"


@pytest.fixture
def serve(monkeypatch):
    """Starts servers; none outlives the test, and no proxy stands between."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(endpoint.KEY_VARIABLE, raising=False)
    with servers() as start:
        yield start


def client(server, **settings):
    """An endpoint, and the waits that it would have made."""
    waits = []
    return Endpoint(url=server.url, sleep=waits.append, **settings), waits


def in_turn(*replies):
    return lambda number, path, body: replies[min(number, len(replies)) - 1]


def test_a_body_is_posted_and_the_reply_comes_back(serve):
    server = serve(lambda number, path, body: ok({"got": body, "at": path}))
    reply = client(server)[0].post("/embeddings", {"input": ["é", "b"]})
    assert reply == {"got": {"input": ["é", "b"]}, "at": "/v1/embeddings"}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_after_longer_and_longer_waits(serve, status):
    bad = (status, {}, b"busy")
    server = serve(in_turn(bad, bad, bad, ok({"a": 1})))
    asked, waits = client(server)
    assert asked.post("/x", {}) == {"a": 1}
    assert waits == [1, 2, 4]


def test_it_waits_as_long_as_the_server_asks(serve):
    server = serve(in_turn((429, {"Retry-After": "17"}, b""), ok({})))
    asked, waits = client(server)
    asked.post("/x", {})
    assert waits == [17]


def test_a_date_in_retry_after_leaves_the_usual_wait(serve):
    date = {"Retry-After": "Wed, 21 Oct 2037 07:28:00 GMT"}
    asked, waits = client(serve(in_turn((503, date, b""), ok({}))))
    asked.post("/x", {})
    assert waits == [1]


def test_a_wait_of_an_hour_is_an_error_at_once(serve):
    server = serve(in_turn((429, {"Retry-After": "3600"}, b"")))
    asked, waits = client(server)
    with pytest.raises(EndpointError, match="asks to wait 3600 s, after 1 attempts; run the same"):
        asked.post("/x", {})
    assert waits == []


def test_after_the_last_attempt_the_error_names_address_status_and_what_to_do(serve):
    server = serve(in_turn((503, {}, b'{"error": "overloaded"}')))
    asked, waits = client(server, attempts=3)
    with pytest.raises(EndpointError) as error:
        asked.post("/chat/completions", {})
    assert str(error.value) == (
        f"{server.url}/chat/completions answered 503 Service Unavailable: "
        '\'{"error": "overloaded"}\', after 3 attempts; run the same command again later: what '
        "was answered is kept in the cache"
    )
    assert waits == [1, 2] and len(server.requests) == 3


@pytest.mark.parametrize(
    "status, advice",
    [
        (400, "check the model's name and what this server accepts"),
        (401, "set OPENAI_API_KEY to a key of this server"),
        (403, "set OPENAI_API_KEY to a key of this server"),
        (404, "check the model's name and the address, which usually ends in /v1"),
    ],
)
def test_a_refusal_is_not_tried_again(serve, status, advice):
    server = serve(in_turn((status, {}, b"no")))
    with pytest.raises(EndpointError, match=f"answered {status} .*'no'; {advice}"):
        client(server)[0].post("/x", {})
    assert len(server.requests) == 1


def test_an_empty_account_is_not_asked_again(serve):
    server = serve(in_turn((429, {}, b'{"error": {"code": "insufficient_quota"}}')))
    with pytest.raises(EndpointError, match="the account has no quota left"):
        client(server)[0].post("/x", {})
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"<html>Welcome</html>", "'<html>Welcome</html>'"),
        (b"[1, 2]", "'[1, 2]'"),
        (b"", "''"),
        (b"[" * 100_000, "'[[["),
    ],
)
def test_a_reply_that_is_no_json_object_is_an_error(serve, content, shown):
    server = serve(in_turn((200, {}, content)))
    with pytest.raises(EndpointError) as error:
        client(server)[0].post("/x", {})
    assert f"replied with something else than a JSON object: {shown}" in str(error.value)
    assert len(str(error.value)) < 600  # an excerpt of a long reply, not all of it
    assert len(server.requests) == 1


def test_a_huge_reply_is_not_read_to_its_end(serve, monkeypatch):
    monkeypatch.setattr(endpoint, "_MOST_BYTES", 1 << 20)
    server = serve(in_turn((200, {}, b" " * (8 << 20))))
    with pytest.raises(EndpointError, match="replied with more than 1 MB"):
        client(server)[0].post("/x", {})


def test_a_reply_that_breaks_off_is_asked_for_again(serve):
    broken = (200, {"Content-Length": "100"}, b'{"a": ')
    asked, waits = client(serve(in_turn(broken, ok({"a": 2}))))
    assert asked.post("/x", {}) == {"a": 2}
    assert waits == [1]


def test_a_server_that_hangs_times_out(serve):
    server = serve(lambda number, path, body: server.stop.wait(60) and ok({}))
    with pytest.raises(EndpointError, match=r"timed out after 0.1 s, after 2 attempts"):
        client(server, timeout=0.1, attempts=2)[0].post("/x", {})


def test_no_server_is_an_error_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    waits = []
    with pytest.raises(EndpointError, match="cannot be reached .*refused.*; check the address"):
        Endpoint(url=url, sleep=waits.append).post("/x", {})
    assert waits == []


def test_redirects_are_not_followed(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    other = serve(in_turn(ok({})))
    server = serve(in_turn((302, {"Location": other.url}, b"")))
    with pytest.raises(EndpointError, match="answered 302 .*redirects are not followed"):
        client(server)[0].post("/x", {})
    assert other.requests == []


def test_the_key_of_the_environment_is_sent(serve, monkeypatch):
    monkeypatch.setenv("MY_KEY", f" {SECRET}\n")  # as `export MY_KEY=$(cat file)` may leave it
    server = serve(in_turn(ok({})))
    client(server, key_variable="MY_KEY")[0].post("/x", {})
    assert server.requests[0][1]["Authorization"] == f"Bearer {SECRET}"


def test_without_a_key_none_is_sent(serve):
    server = serve(in_turn(ok({})))
    client(server)[0].post("/x", {})
    assert "Authorization" not in server.requests[0][1]


@pytest.mark.parametrize("status", [200, 400, 401, 503])
def test_no_error_shows_the_key_even_if_the_server_does(serve, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server = serve(in_turn((status, {}, f"bad key {SECRET}\x1b[31m".encode())))
    asked, _ = client(server, attempts=2)
    with pytest.raises(EndpointError, match=r"bad key \[key\]") as error:
        asked.post("/x", {})
    assert SECRET not in str(error.value) + repr(asked) and "\x1b" not in str(error.value)


def test_a_server_that_sends_back_what_it_got_does_not_spread_the_key(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server = serve(lambda *_: ok({"headers": server.requests[0][1]}))
    reply = client(server)[0].post("/x", {})
    assert reply["headers"]["Authorization"] == "Bearer [key]"


def test_a_key_with_a_line_break_is_refused_unseen(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a\nX-Evil: 1")
    server = serve(in_turn(ok({})))
    with pytest.raises(UserError, match="OPENAI_API_KEY has characters that are in no key") as e:
        client(server)[0].post("/x", {})
    assert "sk-a" not in str(e.value) and server.requests == []


@pytest.mark.parametrize(
    "url, sent",
    [
        ("https://api.openai.com/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://api.openai.com/v1", False),
        ("http://10.0.0.7:8000/v1", False),
        ("http://localhost.example.com/v1", False),
    ],
)
def test_the_key_goes_over_https_or_to_this_machine_only(url, sent):
    assert Endpoint(url=url)._may_send_key() is sent


def test_replies_come_in_the_order_of_the_bodies(serve):
    server = serve(lambda number, path, body: ok({"n": body["n"]}))
    replies = client(server)[0].post_all("/x", [{"n": n} for n in range(20)], workers=4)
    assert [reply["n"] for reply in replies] == list(range(20))


def test_after_a_failure_nothing_more_is_sent(serve):
    server = serve(lambda number, path, body: ok({}) if body["n"] < 2 else (400, {}, b"no"))
    replies = client(server)[0].post_all("/x", [{"n": n} for n in range(500)], workers=2)
    with pytest.raises(EndpointError, match="answered 400"):
        list(replies)
    assert len(server.requests) < 500


def test_a_spec_is_an_address_and_a_model():
    assert split_spec("https://api.openai.com/v1/#text-embedding-ada-002") == (
        "https://api.openai.com/v1",
        "text-embedding-ada-002",
    )
    assert split_spec("http://[::1]:8000/v1#org/model#2") == ("http://[::1]:8000/v1", "org/model#2")


@pytest.mark.parametrize(
    "spec, message",
    [
        ("https://api.openai.com/v1", "names no model; write URL#model"),
        ("https://api.openai.com/v1# ", "names no model; write URL#model"),
        ("ftp://host/v1#m", "is not an address; write http"),
        ("http:///v1#m", "is not an address; write http"),
        ("http://[::1/v1#m", "is not an address; write http"),
        ("http://host:port/v1#m", "is not an address; write http"),
        ("http://host/v1?key=1#m", "is not an address; write http"),
        ("http://host/a b#m", "is not an address; write http"),
        ("http://me:hunter2@host/v1#m", "holds a user name or password"),
    ],
)
def test_an_unusable_spec_says_what_to_write(spec, message):
    with pytest.raises(UserError, match=message) as error:
        split_spec(spec)
    assert "hunter2" not in str(error.value)


def test_bodies_are_json_in_utf8(serve):
    server = serve(in_turn(ok({})))
    client(server)[0].post("/x", {"text": "naïve 東京 \ud800"})
    assert server.requests[0][2] == json.loads(json.dumps({"text": "naïve 東京 \ud800"}))


@pytest.mark.parametrize("told", [True, False])
def test_a_reply_cut_at_any_byte_may_pass(serve, told):
    status, _, content = ok({"choices": [{"message": {"content": "caf\u00e9 {}"}}]})
    cuts = iter(range(1, len(content)))
    length = {"Content-Length": str(len(content))} if told else {"Connection": "close"}

    def reply(number, path, body):
        return status, length, content[: next(cuts)]

    asked, _ = client(serve(reply))
    for cut in range(1, len(content)):
        with pytest.raises(endpoint.PassingFailure) as caught:
            asked.post_once("/x", {})
        assert caught.value.at_work, cut
