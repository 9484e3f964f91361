"""No minute has more requests or tokens than the limits say, and no wait is longer than needed."""

import random

import pytest

from ltu_jax.clients.rate_limits import WINDOW, RateLimits
from ltu_jax.core.errors import UserError


@pytest.mark.parametrize("requests, tokens", [(5, None), (None, 1000), (7, 2000), (1, 50_000)])
def test_within_any_minute_the_limits_hold_and_waits_are_tight(requests, tokens):
    generator, now, sent = random.Random(0), 0.0, []
    limits = RateLimits(requests_per_minute=requests, tokens_per_minute=tokens)

    def fits(size, at):
        recent = [(t, s) for t, s in sent if t + WINDOW > at] + [(at, size)]
        return (requests is None or len(recent) <= requests) and (
            tokens is None or sum(s for _, s in recent) <= tokens
        )

    for _ in range(300):
        now += generator.choice([0.0, 0.5, 3.0, 40.0])
        size = generator.randrange(1, 900)
        pause = limits.wait(size, now=now)
        assert fits(size, now + pause)
        if pause:
            assert not fits(size, now + pause * (1 - 1e-9) - 1e-6)
        now += pause
        limits.record(size, now=now)
        sent.append((now, size))


def test_a_pause_holds_everything():
    limits = RateLimits()
    assert limits.wait(1, now=5.0) == 0
    limits.pause(9.0)
    limits.pause(7.0)
    assert limits.wait(1, now=5.0) == 4.0
    assert limits.wait(1, now=9.5) == 0


def test_a_request_above_a_minutes_tokens_and_limits_of_nothing_are_refused():
    with pytest.raises(UserError, match="1,001 tokens"):
        RateLimits(tokens_per_minute=1000).wait(1001, now=0.0)
    with pytest.raises(UserError, match="requests_per_minute=0"):
        RateLimits(requests_per_minute=0)
