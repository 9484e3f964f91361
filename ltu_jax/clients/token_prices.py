"""What tokens cost: a table that people keep, in dollars for a million tokens.

    [models."gpt-4o-mini"]
    input = 0.15
    output = 0.60
    batch = 0.5                   # of these prices, for requests in batch files

Amounts are whole billionths of a dollar: sums of them are exact.
"""

import dataclasses
import math
import tomllib
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.text_files import read_text

DOLLAR = 10**9


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenPrice:
    """Billionths of a dollar for a token; `batch` is the share of it that batch files cost."""

    input: int
    output: int
    batch: float = 1.0

    def of(self, prompt_tokens: int, completion_tokens: int, *, batched: bool = False) -> int:
        """Return what a call costs, rounded up."""
        price = prompt_tokens * self.input + completion_tokens * self.output
        return math.ceil(price * self.batch) if batched else price


FREE = TokenPrice(input=0, output=0)


def read_prices(path: Path) -> dict[str, TokenPrice]:
    """Return model -> its price, from such a table.

    Raises:
        UserError: the file is missing, is no TOML, or has something else than such prices.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a table of prices")
    try:
        content = tomllib.loads(read_text(path, expected="TOML"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    models = content.get("models")
    if not isinstance(models, dict) or set(content) != {"models"}:
        raise UserError(f'{path} should hold tables [models."NAME"] and nothing else')
    return {model: _price(fields, where=f"{path}: {model}") for model, fields in models.items()}


def price_of(model: str, prices: dict[str, TokenPrice], *, path: Path) -> TokenPrice:
    """Return the price of a model.

    Raises:
        UserError: the table does not have it.
    """
    if model not in prices:
        raise UserError(
            f"{path} has no price for {model!r}, only for {shorten(prices)}: add "
            f'[models."{model}"] with input and output in dollars for a million tokens (0 for a '
            "server of your own) to a copy, and give it as --prices"
        )
    return prices[model]


def _price(fields: Any, *, where: str) -> TokenPrice:
    known = {"input", "output", "batch"}
    if not isinstance(fields, dict) or not {"input", "output"} <= set(fields) <= known:
        raise UserError(f"{where}: give input and output, and batch if it differs")
    for name, value in fields.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= (1 if name == "batch" else 10**6):
            raise UserError(f"{where}: {name} is {value!r}; give dollars for a million tokens")
    # a dollar for a million tokens is a thousand billionths for one
    return TokenPrice(
        input=math.ceil(round(fields["input"] * 1000, 6)),
        output=math.ceil(round(fields["output"] * 1000, 6)),
        batch=float(fields.get("batch", 1.0)),
    )


def dollars(amount: int) -> str:
    """Write an amount for people: $1.23, or more digits below a cent."""
    value = amount / DOLLAR
    return f"${value:.2f}" if value >= 0.01 or not amount else f"${value:.6f}"
