"""Options of commands that ask a language model: which one, how fast, and for how much."""

import argparse
import dataclasses
import math
from importlib import resources
from pathlib import Path
from typing import Any

from data_pipelines.open_asqa.open_ended.clip_conversation import WriterSettings
from ltu_jax.clients.call_ledger import CallLedger
from ltu_jax.clients.chat import ChatReply, CompletionRequest
from ltu_jax.clients.endpoint import KEY_VARIABLE, Endpoint
from ltu_jax.clients.paid_calls import CallRules, PaidCalls
from ltu_jax.clients.rate_limits import RateLimits
from ltu_jax.clients.token_prices import DOLLAR, FREE, TokenPrice, price_of, read_prices
from ltu_jax.core.errors import UserError
from ltu_jax.core.jsonl import parse_object
from ltu_jax.core.values import number, real_number, whole

STRUCTURED = ("auto", "schema", "off")
# Fields of a request that decide what it costs, or that we write ourselves.
_OWN = frozenset(
    {"model", "messages", "n", "stream", "max_tokens", "max_completion_tokens", "temperature",
     "seed", "response_format"}
)  # fmt: skip
_PROBE_TOKENS = 64


def add_model_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the options of a model, its server, its limits and its price; is a model required?"""
    model = parser.add_argument_group("the model")
    model.add_argument("--endpoint", metavar="URL", help="address of the server up to /v1")
    model.add_argument("--model", required=required, metavar="M", help="its name on the server")
    model.add_argument(
        "--key-variable",
        default=KEY_VARIABLE,
        metavar="NAME",
        help="environment variable with the server's key (default: %(default)s)",
    )
    model.add_argument(
        "--structured",
        choices=STRUCTURED,
        default="auto",
        help="ask for JSON by a schema; auto: if the server takes one, which one call finds out",
    )
    model.add_argument("--temperature", type=real_number, default=1.0, help="default: %(default)s")
    model.add_argument("--no-seed", action="store_true", help="send no seed")
    model.add_argument(
        "--limit-field",
        choices=("max_tokens", "max_completion_tokens"),
        default="max_tokens",
        help="how the server calls the most tokens of a reply (default: %(default)s)",
    )
    model.add_argument(
        "--extra", default="{}", metavar="JSON", help="further fields of every request"
    )
    rules = parser.add_argument_group("limits")
    rules.add_argument(
        "--budget",
        type=real_number,
        metavar="DOLLARS",
        help="that all calls of DIR may cost together",
    )
    rules.add_argument(
        "--prices", type=Path, metavar="FILE", help="table of prices (default: the one in here)"
    )
    rules.add_argument("--rpm", type=int, metavar="N", help="requests a minute")
    rules.add_argument("--tpm", type=int, metavar="N", help="tokens a minute")
    rules.add_argument("--workers", type=int, default=8, help="requests at once (default: 8)")
    rules.add_argument(
        "--attempts", type=int, default=6, help="while the server is busy or broken (default: 6)"
    )
    rules.add_argument(
        "--tries", type=int, default=2, help="for a reply that can be used (default: 2)"
    )
    rules.add_argument(
        "--wait",
        type=real_number,
        default=1.0,
        metavar="SECONDS",
        help="before the second attempt, doubled before each further one (default: 1)",
    )
    rules.add_argument(
        "--timeout", type=real_number, default=120.0, metavar="SECONDS", help="default: 120"
    )


def default_prices() -> Path:
    """Return the table of prices that comes with the package."""
    return Path(str(resources.files(__package__).joinpath("prices.toml")))


def price(arguments: argparse.Namespace) -> TokenPrice | None:
    """Return the price of the model; None where nobody needs it and the table lacks it.

    Raises:
        UserError: a budget without a price.
    """
    path = arguments.prices or default_prices()
    prices = read_prices(path)
    if arguments.budget is None and arguments.prices is None and arguments.model not in prices:
        return None
    return price_of(arguments.model, prices, path=path)


def budget(arguments: argparse.Namespace) -> int | None:
    """Return the budget in billionths of a dollar."""
    if arguments.budget is None:
        return None
    rule = "give dollars above 0"
    return round(number("budget", arguments.budget, above=0, most=1e6, rule=rule) * DOLLAR)


def endpoint(arguments: argparse.Namespace) -> Endpoint:
    """Return the server.

    Raises:
        UserError: none is given, or no address.
    """
    if not arguments.endpoint:
        raise UserError(
            "--endpoint: give the address of a server up to /v1, or --batch-files or --dry-run"
        )
    timeout = number(
        "timeout", arguments.timeout, above=0, most=86_400, rule="give seconds above 0"
    )
    return Endpoint(
        url=arguments.endpoint, key_variable=arguments.key_variable, timeout=timeout, attempts=1
    )


def call_rules(arguments: argparse.Namespace) -> CallRules:
    """Return how calls are made.

    Raises:
        UserError: a limit that is none.
    """
    for name in ("workers", "attempts", "tries"):
        whole(name, getattr(arguments, name))
    for name in ("rpm", "tpm"):
        if getattr(arguments, name) is not None:
            whole(name, getattr(arguments, name))
    if not 0 <= arguments.wait < math.inf:
        raise UserError(f"--wait {arguments.wait}: give seconds")
    return CallRules(
        price=price(arguments) or FREE,
        budget=budget(arguments),
        limits=RateLimits(requests_per_minute=arguments.rpm, tokens_per_minute=arguments.tpm),
        workers=arguments.workers,
        attempts=arguments.attempts,
        tries=arguments.tries,
        first_wait=arguments.wait,
    )


def settings(arguments: argparse.Namespace, *, structured: bool, **own: Any) -> WriterSettings:
    """Return which model writes, and how; `own` are fields of one command alone.

    Raises:
        UserError: a value that no server takes.
    """
    extra = parse_object(arguments.extra, where="--extra")
    if taken := sorted(_OWN & set(extra)):
        raise UserError(f"--extra has {', '.join(taken)}, which this command sets itself")
    temperature = number(
        "temperature", arguments.temperature, above=-1e-9, most=2.0, rule="give 0 to 2"
    )
    return WriterSettings(
        model=arguments.model,
        temperature=temperature,
        structured=structured,
        seeded=not arguments.no_seed,
        limit_field=arguments.limit_field,
        extra=extra,
        **own,
    )


class _Probe:
    """One short call with a schema: does the server take it?"""

    def __init__(self, url: str, model: WriterSettings, response_format: dict[str, Any]):
        self._request = CompletionRequest(
            prompt="probe 1",
            model=model.model,
            messages=(("user", 'Write one pair: {"pairs": [{"q": "Who?", "a": "I."}]}'),),
            parameters={
                model.limit_field: _PROBE_TOKENS,
                "response_format": response_format,
                **model.extra,
            },
            most_tokens=_PROBE_TOKENS,
            subject=f"structured output of {url}",
        )

    def next_request(self, replies: Any) -> CompletionRequest | None:
        return None if replies else self._request

    def problem(self, reply: ChatReply) -> str:
        return ""


def takes_schema(
    server: Endpoint,
    ledger: CallLedger,
    rules: CallRules,
    *,
    model: WriterSettings,
    response_format: dict[str, Any],
) -> bool:
    """Tell whether a server takes a schema; one call finds out, and the ledger keeps it by address.

    Raises:
        UserError: the server fails, or the budget does not allow the call.
    """
    calls = PaidCalls(server, ledger, dataclasses.replace(rules, tries=1))
    report = calls.hold([_Probe(server.url, model, response_format)])
    if report.stopped:
        raise UserError(report.stopped)
    if report.waiting or any("again" in reason for reason in report.given_up):
        raise UserError(f"{server.url} {', '.join(report.given_up)}: try again later")
    return report.done > 0
