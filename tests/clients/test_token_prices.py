"""Prices from a table, in whole billionths of a dollar."""

import pytest

from ltu_jax.clients.token_prices import DOLLAR, TokenPrice, dollars, price_of, read_prices
from ltu_jax.core.errors import UserError


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "prices.toml"
        path.write_text(text)
        return path

    return write


def test_a_price_is_per_million_tokens(table):
    path = table('[models."a b"]\ninput = 0.15\noutput = 0.07\nbatch = 0.5\n[models.free]\n'
                 "input = 0\noutput = 0\n")  # fmt: skip
    prices = read_prices(path)
    assert prices == {
        "a b": TokenPrice(input=150, output=70, batch=0.5),
        "free": TokenPrice(input=0, output=0),
    }
    price = price_of("a b", prices, path=path)
    assert price.of(1_000_000, 1_000_000) == 0.22 * DOLLAR
    assert price.of(1, 1, batched=True) == 110
    assert price.of(1, 0, batched=True) == 75
    with pytest.raises(UserError, match=r"no price for 'c', only for a b, free"):
        price_of("c", prices, path=path)


@pytest.mark.parametrize(
    "text, named",
    [
        ("[models.m]\ninput = 1\n", "m: give input and output"),
        ("[models.m]\ninput = 1\noutput = 1\ncached = 1\n", "m: give input and output"),
        ("[models.m]\ninput = 1\noutput = -1\n", "output is -1"),
        ("[models.m]\ninput = 1\noutput = 1\nbatch = 2\n", "batch is 2"),
        ("[models.m]\ninput = true\noutput = 1\n", "input is True"),
        ("[model.m]\ninput = 1\noutput = 1\n", "and nothing else"),
        ("models = 3\n", "and nothing else"),
        ("[models", "not valid TOML"),
    ],
)
def test_a_broken_table_is_named(table, text, named):
    with pytest.raises(UserError, match=f"prices.toml.*{named}"):
        read_prices(table(text))


def test_amounts_for_people():
    shown = [dollars(amount) for amount in (0, DOLLAR, 3 * DOLLAR // 1000, 12_345_678_901)]
    assert shown == ["$0.00", "$1.00", "$0.003000", "$12.35"]
