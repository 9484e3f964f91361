"""How many requests, and how many tokens, a server takes in a minute."""

import collections
import dataclasses

from ltu_jax.core.errors import UserError, spell

WINDOW = 60.0  # seconds


@dataclasses.dataclass
class RateLimits:
    """What was sent in the last minute; within any minute no more than the limits is.

    Attributes:
        requests_per_minute: None for no limit.
        tokens_per_minute: of prompts and the most of replies, as servers count; None for no limit.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{spell(name, value)}: give at least 1, or leave it out")
        self._sent: collections.deque[tuple[float, int]] = collections.deque()
        self._tokens = 0
        self._paused_until = float("-inf")

    def pause(self, until: float) -> None:
        """Send nothing before that time: the server has said that it is too much."""
        self._paused_until = max(self._paused_until, until)

    def wait(self, tokens: int, *, now: float) -> float:
        """Return the seconds after which a request of so many tokens may be sent; 0 for at once.

        Raises:
            UserError: it alone is more than a minute's tokens.
        """
        if self.tokens_per_minute is not None and tokens > self.tokens_per_minute:
            raise UserError(
                f"a request may take {tokens:,} tokens, more than a minute's "
                f"{spell('tokens_per_minute', self.tokens_per_minute)}: raise that, or let replies "
                "take fewer tokens"
            )
        while self._sent and self._sent[0][0] + WINDOW <= now:
            self._tokens -= self._sent.popleft()[1]
        until = self._paused_until
        count, left = len(self._sent), self._tokens
        for sent, size in self._sent:
            requests = self.requests_per_minute is None or count < self.requests_per_minute
            room = self.tokens_per_minute is None or left + tokens <= self.tokens_per_minute
            if requests and room:
                break
            count, left, until = count - 1, left - size, max(until, sent + WINDOW)
        return max(0.0, until - now)

    def record(self, tokens: int, *, now: float) -> None:
        """Count a request that is sent now."""
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            return
        self._sent.append((now, tokens))
        self._tokens += tokens
