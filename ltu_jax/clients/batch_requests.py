"""Requests as files of OpenAI's batch form, and the results that come back.

    FOLDER/requests-0001.jsonl    to be handed in: one request a line, named by its `custom_id`
    FOLDER/results/*.jsonl        where a person puts the files of results and of errors

Results are joined by `custom_id`: their order, doubles and the files that they lie in do not
matter. A file is in the ledger when it is at its place, and at its place when it is in the ledger,
but for an instant that the next command sets right.
"""

import collections
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ltu_jax.clients.call_ledger import CallLedger
from ltu_jax.clients.chat import PATH, ChatReply, CompletionRequest, read_reply
from ltu_jax.clients.conversations import Conversation, ConversationState, standings
from ltu_jax.clients.endpoint import PASSING_STATUSES, EndpointError
from ltu_jax.clients.token_prices import TokenPrice, dollars
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import sha256_file

MOST_LINES = 50_000
MOST_BYTES = 200 * 1000 * 1000
RESULTS = "results"
_PART = ".part"
# Codes of errors that another batch may not meet.
_PASSING_CODES = ("batch_expired", "batch_cancelled", "server_error", "rate_limit_exceeded")


@dataclasses.dataclass
class BatchReport:
    """What was read from results, by what it was; which files were written with how many lines."""

    read: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    written: dict[str, int] = dataclasses.field(default_factory=dict)
    given_up: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    done: int = 0
    waiting: int = 0
    left: int = 0
    stopped: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchFolder:
    """A folder of batch files and their results.

    Attributes:
        path: the folder.
        ledger: opened to send.
        price: of a token.
        most_lines, most_bytes: of a file.
    """

    path: Path
    ledger: CallLedger
    price: TokenPrice
    most_lines: int = MOST_LINES
    most_bytes: int = MOST_BYTES

    def recover(self) -> None:
        """Finish the file that a killed command was about to put in its place, or delete it."""
        known = self.ledger.batches()
        for part in sorted(self.path.glob(f"requests-*.jsonl{_PART}")):
            place = part.with_name(part.name.removesuffix(_PART))
            if place.name in known:
                os.replace(part, place)
            else:
                part.unlink()

    def abandon(self, name: str) -> int:
        """Wait for the results of a file no longer; its calls count as paid. Return how many.

        Raises:
            UserError: nothing waits for results of this file.
        """
        waiting = self.ledger.open_batches()
        if name not in waiting:
            there = ", ".join(waiting) or "no file"
            raise UserError(f"--abandon {name}: requests wait for results of {there}")
        return self.ledger.lose(batch=name)

    def read(self, problem: Callable[[ChatReply], str], report: BatchReport) -> None:
        """Take in all files of results that were not read before.

        Args:
            problem: says why a reply cannot be used; "" if it can.
            report: counts what was read.

        Raises:
            UserError: a line is no result.
        """
        for path in sorted((self.path / RESULTS).glob("*.jsonl")):
            digest = sha256_file(path)
            if self.ledger.has_taken(digest):
                continue
            for where, line in _results(path):
                report.read[self._take(line, where=where, problem=problem)] += 1
            self.ledger.take(digest, path.name)

    def _take(
        self, line: dict[str, Any], *, where: str, problem: Callable[[ChatReply], str]
    ) -> str:
        """Write down one result; return what it was."""
        key = line.get("custom_id")
        if not isinstance(key, str):
            raise UserError(f"{where} has no custom_id: give the files of results as they came")
        call = self.ledger.batched_call(key)
        if call is None:
            return "double" if self.ledger.calls_of(key) else "not of this folder"
        response, error = line.get("response"), line.get("error")
        response = response if isinstance(response, dict) else {}
        status, body = response.get("status_code"), response.get("body")
        # vLLM leaves the status out of what went well
        if not error and status in (200, None) and isinstance(body, dict):
            try:
                reply = read_reply(body, url=where)
            except EndpointError:
                return self._settle(call, "refused", "no text in the reply")
            if reply.prompt_tokens is None or reply.completion_tokens is None:
                cost = self.ledger.reserved(call)
            else:
                used = (reply.prompt_tokens, reply.completion_tokens)
                cost = self.price.of(*used, batched=True)
            trouble = problem(reply)
            state = "refused" if trouble else "answered"
            return self._settle(call, state, trouble, reply=reply, cost=cost)
        code = error.get("code") if isinstance(error, dict) else None
        if code in _PASSING_CODES or status in PASSING_STATUSES:
            return self._settle(call, "failed", str(code or f"the server answered {status}"))
        return self._settle(call, "refused", f"the server answered {code or status or 'nothing'}")

    def _settle(
        self, call: int, state: str, reason: str, *, reply: ChatReply | None = None, cost: int = 0
    ) -> str:
        self.ledger.settle(call, state=state, reason=reason, reply=reply, cost=cost)
        return f"{state}: {reason}" if reason else state

    def write(
        self,
        conversations: Iterable[Conversation],
        report: BatchReport,
        *,
        tries: int,
        budget: int | None = None,
    ) -> None:
        """Write files of all requests that are neither answered nor waiting.

        Args:
            conversations: what is asked.
            report: is told what was written.
            tries: replies that cannot be used after which a request is given up.
            budget: billionths of a dollar that all calls of the ledger may cost.
        """
        lines: list[tuple[CompletionRequest, int]] = []
        size, seen, reserved = 0, set(), 0
        for standing in standings(conversations, self.ledger, tries=tries):
            if standing.state is not ConversationState.OPEN:
                report.done += standing.state is ConversationState.DONE
                report.waiting += standing.state is ConversationState.WAITING
                if standing.state is ConversationState.GIVEN_UP:
                    report.given_up[standing.record.reason] += 1
                continue
            request = standing.request
            if request.key in seen:
                continue
            amount = self.price.of(request.prompt_bound, request.most_tokens, batched=True)
            over = budget is not None and self.ledger.committed + reserved + amount > budget
            if over or report.stopped:
                report.stopped = report.stopped or (
                    f"the budget of {dollars(budget)} does not allow another request, which may "
                    f"cost {dollars(amount)}: {dollars(self.ledger.committed + reserved)} is set "
                    "aside or spent"
                )
                report.left += 1
                continue
            length = len(_line(request))
            if lines and (len(lines) == self.most_lines or size + length > self.most_bytes):
                self._put(lines, report)
                lines, size, reserved = [], 0, 0
            lines.append((request, amount))
            seen.add(request.key)
            size, reserved = size + length, reserved + amount
        if lines:
            self._put(lines, report)

    def _put(self, lines: list[tuple[CompletionRequest, int]], report: BatchReport) -> None:
        (self.path / RESULTS).mkdir(parents=True, exist_ok=True)
        numbers = [int(name[9:13]) for name in self.ledger.batches()]
        name = f"requests-{max(numbers, default=0) + 1:04d}.jsonl"
        part = self.path / f"{name}{_PART}"
        with part.open("wb") as file:
            for request, _ in lines:
                file.write(_line(request))
            file.flush()
            os.fsync(file.fileno())
        self.ledger.reserve_batch(name, lines)
        os.replace(part, self.path / name)
        report.written[name] = len(lines)


def _line(request: CompletionRequest) -> bytes:
    line = {
        "custom_id": request.key,
        "method": "POST",
        "url": f"/v1{PATH}",
        "body": request.body,
    }
    return (json.dumps(line) + "\n").encode()


def _results(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                result = json.loads(line)
            except (ValueError, RecursionError):
                result = None
            if not isinstance(result, dict):
                raise UserError(
                    f"{where} is no result of a batch, or is cut off: fetch the file again; the "
                    "lines before were taken in"
                )
            yield where, result
