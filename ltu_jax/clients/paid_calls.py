"""Many conversations with a model at once: within rate limits, within a budget, each call once.

A conversation says what to ask next, given the replies so far. A request that the ledger has an
answer to is not sent. What is sent was written down before, with the most that it can cost; a call
whose cost might exceed the budget is not sent.
"""

import collections
import contextlib
import dataclasses
import heapq
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from ltu_jax.clients.call_ledger import CallLedger
from ltu_jax.clients.chat import PATH, ChatReply, CompletionRequest, read_reply
from ltu_jax.clients.conversations import (
    Conversation,
    ConversationState,
    Standing,
    advanced,
    standings,
)
from ltu_jax.clients.endpoint import Endpoint, EndpointError, PassingFailure
from ltu_jax.clients.rate_limits import RateLimits
from ltu_jax.clients.token_prices import TokenPrice, dollars
from ltu_jax.core.errors import UserError

_LONGEST_WAIT = 120.0  # seconds between two attempts
_OTHER_API = (
    200  # the status of a reply that is none of this API's, and may be charged all the same
)
# Statuses that any other request would get as well; None: there was no answer.
_LASTING = (None, _OTHER_API, 401, 403, 404, 429)
_ALL_REFUSED = 5  # requests in a row, with nothing answered yet, after which no more are sent


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallRules:
    """How calls are made.

    Attributes:
        price: of a token.
        budget: the most that all calls of the ledger may cost, billionths of a dollar; None for no
            limit.
        limits: of the server.
        workers: requests in flight at once.
        attempts: to send a request while the server is busy or broken.
        tries: replies that cannot be used after which a request is given up.
        first_wait: seconds before the second attempt; doubled before each further one.
    """

    price: TokenPrice
    budget: int | None = None
    limits: RateLimits = dataclasses.field(default_factory=RateLimits)
    workers: int = 8
    attempts: int = 6
    tries: int = 2
    first_wait: float = 1.0


@dataclasses.dataclass
class CallReport:
    """What became of conversations: `done`, `given_up` by reason, and what is still `waiting`."""

    done: int = 0
    answered: int = 0
    given_up: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    troubles: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    waiting: int = 0
    stopped: str = ""


@dataclasses.dataclass(kw_only=True, eq=False)
class _Turn:
    """A conversation whose request has to be sent."""

    standing: Standing
    attempt: int = 1
    call: int = 0
    reserved: int = 0

    @property
    def request(self) -> CompletionRequest:
        return self.standing.request


class PaidCalls:
    """Conversations held through one server and one ledger."""

    def __init__(
        self,
        endpoint: Endpoint,
        ledger: CallLedger,
        rules: CallRules,
        *,
        progress: Callable[[CallReport], Any] = lambda report: None,
    ):
        self.endpoint, self.ledger, self.rules, self.progress = endpoint, ledger, rules, progress
        self.report = CallReport()
        self._ready: collections.deque[_Turn] = collections.deque()
        self._later: list[tuple[float, int, _Turn]] = []  # a heap by the time to try again
        self._active: dict[Future, _Turn] = {}
        self._same: dict[str, list[_Turn]] = {}  # turns that wait for an equal request in flight
        self._number = itertools.count()
        self._refused_in_a_row = self._failed_in_a_row = 0

    def hold(self, conversations: Iterable[Conversation]) -> CallReport:
        """Hold all conversations to their end, or until the budget does not allow another call.

        Raises:
            UserError: the server cannot be reached, refuses everything, or fails again and again;
                what was answered is in the ledger.
        """
        source = standings(conversations, self.ledger, tries=self.rules.tries)
        with ThreadPoolExecutor(self.rules.workers) as pool:
            try:
                while self._fill(source) or self._active or self._later:
                    pause = self._send(pool)
                    if not self._active and (self.report.stopped or pause is None):
                        break
                    self._collect(timeout=pause)
            finally:
                self._finish()
        left = len(self._ready) + len(self._later) + sum(map(len, self._same.values()))
        if self.report.stopped:
            left += sum(standing.state is not ConversationState.DONE for standing in source)
        self.report.waiting += left
        return self.report

    def _finish(self) -> None:
        """Write down what becomes of requests in flight: they are paid for."""
        wait(self._active)
        for future in list(self._active):
            turn = self._active.pop(future)
            with contextlib.suppress(UserError):  # the first one is on its way already
                self._end(turn, future, again=False)

    def _fill(self, source: Iterator[Standing]) -> bool:
        """Look up further conversations until enough are ready; tell whether any is."""
        while not self.report.stopped and len(self._ready) < self.rules.workers:
            standing = next(source, None)
            if standing is None:
                break
            self._place(standing)
        return bool(self._ready) and not self.report.stopped

    def _place(self, standing: Standing) -> None:
        """Count a conversation that is over, or let its request wait to be sent."""
        if standing.state is ConversationState.OPEN:
            key, turn = standing.request.key, _Turn(standing=standing)
            if key in self._same:
                self._same[key].append(turn)
            else:
                self._same[key] = []
                self._ready.append(turn)
            return
        if standing.state is ConversationState.DONE:
            self.report.done += 1
        elif standing.state is ConversationState.WAITING:
            self.report.waiting += 1
        else:
            self.report.given_up[standing.record.reason] += 1
        self.progress(self.report)

    def _send(self, pool: ThreadPoolExecutor) -> float | None:
        """Send what may be sent now; return the seconds until more may be, None for not before.

        The budget decides for good only when nothing is in flight that may turn out cheaper.
        """
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._ready.appendleft(heapq.heappop(self._later)[2])
        pause = self._later[0][0] - now if self._later else None
        while self._ready and len(self._active) < self.rules.workers and not self.report.stopped:
            turn = self._ready[0]
            size = turn.request.prompt_estimate + turn.request.most_tokens
            if (delay := self.rules.limits.wait(size, now=now)) > 0:
                return delay if pause is None else min(pause, delay)
            price, request = self.rules.price, turn.request
            turn.reserved = price.of(request.prompt_bound, request.most_tokens)
            budget = self.rules.budget
            if budget is not None and self.ledger.committed + turn.reserved > budget:
                if not self._active:
                    self.report.stopped = (
                        f"the budget of {dollars(budget)} does not allow another call, which may "
                        f"cost {dollars(turn.reserved)}: {dollars(self.ledger.committed)} is spent"
                    )
                return None
            self._ready.popleft()
            turn.call = self.ledger.reserve(request, turn.reserved)
            self.rules.limits.record(size, now=now)
            self._active[pool.submit(self.endpoint.post_once, PATH, request.body)] = turn
        return pause

    def _collect(self, *, timeout: float | None) -> None:
        """Wait for replies, at most so long."""
        if not self._active:
            time.sleep(timeout or 0.0)
            return
        done, _ = wait(self._active, timeout=timeout, return_when=FIRST_COMPLETED)
        for future in done:
            self._end(self._active.pop(future), future)

    def _end(self, turn: _Turn, future: Future, *, again: bool = True) -> None:
        """Write down how a call ended, and go on with its conversation if `again`."""
        try:
            reply = read_reply(future.result(), url=self.endpoint.url)
        except PassingFailure as failure:
            cost = turn.reserved if failure.at_work else 0
            reason = _short(failure)
            self.ledger.settle(turn.call, state="failed", cost=cost, reason=reason)
            self.report.troubles[reason] += 1
            if again:
                self._try_later(turn, failure)
            return
        except UserError as error:
            # one that is no EndpointError: nothing was sent
            status = error.status if isinstance(error, EndpointError) else None
            if status in _LASTING:
                cost = turn.reserved if status == _OTHER_API else 0
                self.ledger.settle(turn.call, state="failed", cost=cost, reason=_short(error))
                raise
            reason = f"the server answered {status}"
            self.ledger.settle(turn.call, state="refused", cost=0, reason=reason)
            self._refused_in_a_row += not self.report.answered
            if self._refused_in_a_row >= _ALL_REFUSED:
                raise
        else:
            self._take(turn, reply)
        if again:
            self._release(turn)

    def _take(self, turn: _Turn, reply: ChatReply) -> None:
        """Write down a reply, whether it can be used, and what it cost."""
        self._failed_in_a_row = 0
        cost, problem = self._cost(turn, reply), turn.standing.conversation.problem(reply)
        state = "refused" if problem else "answered"
        self.ledger.settle(turn.call, state=state, cost=cost, reason=problem, reply=reply)
        if not problem:
            self._refused_in_a_row = 0
            self.report.answered += 1
        self._check_cost(turn, cost)

    def _cost(self, turn: _Turn, reply: ChatReply) -> int:
        """Return what a reply cost; the most that it can where the server does not count."""
        if reply.prompt_tokens is None or reply.completion_tokens is None:
            return turn.reserved
        return self.rules.price.of(reply.prompt_tokens, reply.completion_tokens)

    def _check_cost(self, turn: _Turn, cost: int) -> None:
        if self.rules.budget is not None and cost > turn.reserved:
            raise UserError(
                f"{self.endpoint.url} counted {dollars(cost)} for a call that could cost "
                f"{dollars(turn.reserved)} at most: it does not keep to the limit of "
                f"{turn.request.most_tokens} tokens, or calls that limit by another field"
            )

    def _release(self, turn: _Turn) -> None:
        """Go on with all conversations that waited for this request."""
        for one in [turn, *self._same.pop(turn.request.key)]:
            self._place(advanced(one.standing, self.ledger, tries=self.rules.tries))

    def _try_later(self, turn: _Turn, failure: PassingFailure) -> None:
        pause = min(self.rules.first_wait * 2 ** (turn.attempt - 1), _LONGEST_WAIT)
        if failure.wait is not None:
            pause = failure.wait
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self.rules.attempts * self.rules.workers:
            raise EndpointError(
                f"{self.endpoint.url} {failure}, {self._failed_in_a_row} times in a row; run the "
                "same command again later: what was answered is kept"
            )
        turn.attempt += 1
        if turn.attempt > self.rules.attempts or pause > _LONGEST_WAIT:
            for _ in [turn, *self._same.pop(turn.request.key)]:
                self.report.given_up[f"{_short(failure)} (tried again by the next run)"] += 1
            self.progress(self.report)
            return
        until = time.monotonic() + pause
        if str(failure).startswith("answered 429"):
            self.rules.limits.pause(until)
        heapq.heappush(self._later, (until, next(self._number), turn))


def _short(error: Exception) -> str:
    """Return what happened, without the server's own words."""
    return str(error).partition(":")[0].strip() if isinstance(error, PassingFailure) else "refused"
