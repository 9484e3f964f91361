"""Checks of single values of a caller; each error names the argument and the value."""

import argparse
import math
import numbers
import operator
from typing import Any

from ltu_jax.core.errors import UserError, brief, spell


def whole(name: str, value: Any, *, least: int = 1, most: int | None = None, rule: str = "") -> int:
    """Return `value` as an integer of at least `least` and at most `most`; True and 8.0 are none.

    Raises:
        UserError: `rule`, or else the range in words.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # refuses floats and numpy's booleans
    except TypeError:
        raise UserError(f"{spell(name, value)}: {rule or 'must be a whole number'}") from None
    if number < least:
        raise UserError(f"{spell(name, value)}: {rule or f'must be at least {least}'}")
    if most is not None and number > most:
        raise UserError(f"{spell(name, value)}: {rule or f'must be at most {most}'}")
    return number


def number(name: str, value: Any, *, above: float, most: float, rule: str) -> float:
    """Return `value` as a finite number above `above` and at most `most`.

    Raises:
        UserError: `rule`.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not above < value <= most:  # no NaN, and no integer that no float holds
        raise UserError(f"{spell(name, value)}: {rule}")
    return float(value)


def real_number(text: str) -> float:
    """Read a limit of a command line, as argparse's `type`; NaN, which stops nothing, is none.

    Raises:
        ArgumentTypeError: no number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return value


def text(name: str, value: Any) -> str:
    """Return `value` as text that files and tokenizers can hold.

    Raises:
        UserError: another type, or half a character.
    """
    if not isinstance(value, str):
        advice = "decode them first" if isinstance(value, bytes | bytearray) else "give text"
        raise UserError(f"{spell(name)} is {type(value).__name__} {brief(value)}: {advice}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{spell(name)} has half a character, {value[error.start]!a} at {error.start}: it was "
            "not UTF-8 where it was read; decode it again"
        ) from None
    return value
