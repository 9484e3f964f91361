"""Readers of single fields of a request: each returns the value or raises a 400 by its name."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ltu_jax.core.errors import UserError, brief
from ltu_jax.core.values import text as checked_text
from ltu_jax.serving.api_error import bad

Reader = Callable[[str, Any], Any]


def boolean(param: str, value: Any) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise bad(param, f"is {brief(value)}; give true or false", code="invalid_type")
    return value


def whole(least: int, most: int) -> Reader:
    """Return a reader of integers in a range."""

    def read(param: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise bad(param, f"is {brief(value)}; give an integer", code="invalid_type")
        if not least <= value <= most:
            raise bad(param, f"is {brief(value)}; give {least} to {most}")
        return value

    return read


def real(least: float, most: float) -> Reader:
    """Return a reader of numbers in a range."""

    def read(param: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise bad(param, f"is {brief(value)}; give a number", code="invalid_type")
        if not least <= value <= most:  # no NaN, and no integer that no float holds
            raise bad(param, f"is {brief(value)}; give {least:g} to {most:g}")
        return float(value)

    return read


def text(most: int, *, least: int = 0) -> Reader:
    """Return a reader of texts of so many characters."""

    def read(param: str, value: Any) -> str:
        if not isinstance(value, str):
            raise bad(param, f"is {brief(value)}; give a string", code="invalid_type")
        if not least <= len(value) <= most:
            raise bad(param, f"has {len(value):,} characters; give {least} to {most:,}")
        try:
            return checked_text(param, value)
        except UserError as error:
            raise bad(param, str(error)) from None

    return read


def one_of(*names: str) -> Reader:
    """Return a reader of one of a few words."""

    def read(param: str, value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise bad(param, f"is {brief(value)}; give one of {', '.join(names)}")
        return value

    return read


def list_of(reader: Reader, *, most: int) -> Reader:
    """Return a reader of lists."""

    def read(param: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise bad(param, f"is {brief(value)}; give a list", code="invalid_type")
        if len(value) > most:
            raise bad(param, f"has {len(value)} entries; give at most {most}")
        return tuple(reader(f"{param}[{number}]", one) for number, one in enumerate(value))

    return read


def mapping(param: str, value: Any) -> Mapping[str, Any]:
    """Read an object."""
    if not isinstance(value, dict):
        raise bad(param, f"is {brief(value)}; give an object", code="invalid_type")
    return value


def keys(
    param: str, value: Any, readers: Mapping[str, Reader], *, needed: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Read an object of known keys; null is as if absent. The body itself has no `param`, "".

    Raises:
        ApiError: another key, or one that is needed and not there.
    """
    value = mapping(param or "body", value)
    front = f"{param}." if param else ""
    for name in value:
        if name not in readers:
            raise bad(f"{front}{name[:80]}", "is unknown here", code="unknown_parameter")
    found = {
        name: reader(f"{front}{name}", value[name])
        for name, reader in readers.items()
        if value.get(name) is not None
    }
    for name in needed:
        if name not in found:
            raise bad(f"{front}{name}", "is missing", code="missing_required_parameter")
    return found


def anything(param: str, value: Any) -> Any:
    """Read any JSON of moderate size."""
    if len(json.dumps(value)) > 65_536:
        raise bad(param, "is longer than 64 KiB")
    return value
