"""Conversations through a real server: what is sent how often, what it costs, when it stops."""

import threading

import pytest

from ltu_jax.clients import rate_limits
from ltu_jax.clients.call_ledger import open_ledger
from ltu_jax.clients.chat import CompletionRequest
from ltu_jax.clients.endpoint import Endpoint, EndpointError
from ltu_jax.clients.paid_calls import CallRules, PaidCalls
from ltu_jax.clients.token_prices import TokenPrice
from ltu_jax.core.errors import UserError
from tests.support.openai_server import servers
from tests.support.stub_writer import chat

PRICE = TokenPrice(input=2, output=5)
PAID = 300 * 2 + 50 * 5  # of a reply of the stub


class Ask:
    """One question, and a second one where the first answer ends in "more"."""

    def __init__(self, text):
        self.text = text

    def next_request(self, replies):
        if len(replies) == 2 or (replies and not replies[-1].content.endswith("more")):
            return None
        return CompletionRequest(
            prompt="p",
            model="m",
            messages=(("user", f"{self.text} {len(replies)}"),),
            parameters={"max_tokens": 100},
            most_tokens=100,
        )

    def problem(self, reply):
        return "empty" if not reply.content else ""


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with servers() as start:
        yield start


@pytest.fixture
def hold(tmp_path):
    """Holds conversations about texts; returns the report and what was spent."""

    def run(server, texts, **rules):
        rules = {"price": PRICE, "first_wait": 0.01, "workers": 3} | rules
        with open_ledger(tmp_path / "l.sqlite", send=True) as ledger:
            endpoint = Endpoint(url=server.url, timeout=5, attempts=1)
            calls = PaidCalls(endpoint, ledger, CallRules(**rules))
            try:
                return calls.hold(map(Ask, texts)), ledger.committed
            finally:
                run.states = ledger.calls_by_state()

    return run


def text_of(body):
    return body["messages"][0]["content"]


def test_each_question_once_and_what_follows_from_it(serve, hold):
    server = serve(lambda number, path, body: chat("more" if "b" in text_of(body) else "done"))
    report, spent = hold(server, "abc")
    assert (report.done, report.answered, report.waiting) == (3, 4, 0)
    assert sorted(text_of(body) for _, _, body in server.requests) == ["a 0", "b 0", "b 1", "c 0"]
    assert spent == 4 * PAID
    report, spent = hold(server, "abcd")
    assert (report.done, report.answered, len(server.requests)) == (4, 1, 5)


def test_equal_questions_are_one_call(serve, hold):
    server = serve(lambda *_: chat("done"))
    report, _ = hold(server, "a" * 20 + "b" * 20)
    assert (report.done, report.answered, len(server.requests)) == (40, 2, 2)


@pytest.mark.parametrize(
    "fault",
    [
        (429, {"Retry-After": "0"}, b""), (500, {}, b""), (503, {}, b""), (408, {}, b""),
        (200, {"Content-Length": "99"}, b'{"choices"'),
    ],
)  # fmt: skip
def test_a_fault_that_passes_is_tried_again(serve, hold, fault):
    server = serve(lambda number, *_: fault if number in (1, 3) else chat("done"))
    report, spent = hold(server, "abc")
    assert (report.done, sum(report.troubles.values())) == (3, 2)
    assert hold.states == {"answered": 3, "failed": 2}
    # a reply that broke off may have been charged
    lost = 2 * (PRICE.of(Ask("a").next_request(()).prompt_bound, 100) if fault[0] == 200 else 0)
    assert spent == 3 * PAID + lost


def test_a_server_that_stays_broken_is_given_up_for_this_run(serve, hold):
    server = serve(lambda number, path, body: (500, {}, b"") if "a" in text_of(body) else chat("x"))
    report, _ = hold(server, "abbb", attempts=3)
    assert report.done == 3 and sum(report.given_up.values()) == 1
    assert sum("a" in text_of(body) for _, _, body in server.requests) == 3
    server = serve(lambda *_: chat("x"))
    assert hold(server, "a")[0].done == 1


def test_a_server_that_fails_always_ends_the_run(serve, hold):
    server = serve(lambda *_: (500, {}, b""))
    with pytest.raises(EndpointError, match="6 times in a row"):
        hold(server, map(str, range(100)), attempts=2)
    assert len(server.requests) <= 6 + 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_every_request_would_get_ends_the_run(serve, hold, status):
    server = serve(lambda *_: (status, {}, b"no"))
    with pytest.raises(EndpointError, match=str(status)):
        hold(server, map(str, range(100)))
    assert len(server.requests) <= 3
    assert set(hold.states) == {"failed"}


def test_requests_that_are_all_refused_end_the_run_others_do_not(serve, hold):
    server = serve(lambda *_: (400, {}, b"bad field"))
    with pytest.raises(EndpointError, match="bad field"):
        hold(server, map(str, range(100)), tries=1)
    assert len(server.requests) <= 5 + 3
    server = serve(lambda n, p, body: (400, {}, b"") if "7" in text_of(body) else chat("x"))
    report, _ = hold(server, [f"x{n}" for n in range(20)], tries=1)
    assert (report.done, report.given_up) == (18, {"the server answered 400": 2})


def test_a_reply_without_use_is_asked_for_again_so_often(serve, hold):
    server = serve(lambda n, p, body: chat(None if "a" in text_of(body) else "x"))
    report, spent = hold(server, "ab", tries=3)
    assert (report.done, report.given_up) == (1, {"empty": 1})
    assert len(server.requests) == 4 and spent == 4 * PAID
    assert hold(server, "ab", tries=3)[0].given_up == {"empty": 1}
    assert len(server.requests) == 4
    hold(server, "ab", tries=4)
    assert len(server.requests) == 5


def test_calls_never_cost_more_than_the_budget(serve, hold):
    charged, most, lock = (
        [0],
        PRICE.of(Ask("10").next_request(()).prompt_bound, 100),
        threading.Lock(),
    )

    def reply(*_):
        with lock:
            charged[0] += 10 * 2 + 100 * 5
        return chat("x", tokens=100)

    server, budget = serve(reply), 20_000
    texts = [str(number) for number in range(10, 90)]
    report, spent = hold(server, texts, budget=budget)
    assert charged[0] <= spent <= budget < spent + most
    assert "budget" in report.stopped and report.done + report.waiting == 80
    before = report.done
    report, spent = hold(server, texts, budget=2 * budget)
    assert budget < spent <= 2 * budget and report.done > before
    report, _ = hold(server, texts, budget=100 * budget)
    assert (report.done, report.stopped, len(server.requests)) == (80, "", 80)


@pytest.mark.parametrize("content", ["x", None])  # a reply that can be used, and one that cannot
def test_a_server_that_counts_more_than_it_may_ends_the_run(serve, hold, content):
    server = serve(lambda *_: chat(content, tokens=100_000))
    with pytest.raises(UserError, match="does not keep to the limit of 100 tokens"):
        hold(server, map(str, range(100)), budget=10**9)
    assert len(server.requests) <= 3


def test_a_count_of_tokens_that_no_reply_has_costs_what_was_set_aside(serve, hold):
    server = serve(lambda *_: chat("x", tokens=2**64 - 1))
    report, spent = hold(server, "a", budget=10**9)
    assert (report.done, spent) == (1, PRICE.of(Ask("a").next_request(()).prompt_bound, 100))


@pytest.mark.parametrize("content", [b"<html>Welcome</html>", b'{"error": "no choices"}'])
def test_a_reply_that_is_no_chat_ends_the_run_and_counts_as_paid(serve, hold, tmp_path, content):
    server = serve(lambda *_: (200, {}, content))
    with pytest.raises(EndpointError, match="replied"):
        hold(server, "abcdefgh")
    most = PRICE.of(Ask("a").next_request(()).prompt_bound, 100)
    with open_ledger(tmp_path / "l.sqlite", send=False) as ledger:
        assert ledger.committed == ledger.cost == len(server.requests) * most > 0


def test_nothing_is_paid_where_the_key_cannot_be_sent(serve, hold, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a\nX-Evil: 1")
    server = serve(lambda *_: chat("x"))
    with pytest.raises(UserError, match="characters that are in no key"):
        hold(server, "abc")
    with open_ledger(tmp_path / "l.sqlite", send=True) as ledger:
        assert (ledger.committed, server.requests) == (0, [])
        assert set(ledger.calls_by_state()) == {"failed"}


def test_rates_are_kept(serve, hold, monkeypatch):
    monkeypatch.setattr(rate_limits, "WINDOW", 0.2)
    sent = []

    class Limits(rate_limits.RateLimits):
        def record(self, tokens, *, now):
            sent.append(now)
            super().record(tokens, now=now)

    report, _ = hold(
        serve(lambda *_: chat("x")), map(str, range(12)), limits=Limits(requests_per_minute=4)
    )
    assert report.done == len(sent) == 12
    assert all(later >= earlier + 0.2 for earlier, later in zip(sent, sent[4:], strict=False))
