"""Read frozen dataclasses from nested dicts strictly: a misspelt or forgotten key is an error."""

import dataclasses
import sys
import types
import typing
from typing import Any, Self, TypeVar

from ltu_jax.core.errors import UserError, brief

T = TypeVar("T")


class ConfigError(UserError):
    """A config with an unknown, missing or impossible value."""


class Config:
    """Base of the frozen, keyword-only model configs; the inverse of `dataclasses.asdict`."""

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Build the config from a mapping; see `read`."""
        return read(cls, values, where=cls.__name__)


def read(cls: type[T], values: Any, *, where: str) -> T:
    """Make dataclass `cls` from a mapping, nested ones included, every key accounted for.

    Args:
        cls: the dataclass; a default of a field does not allow its key to be left out.
        values: dict, JSON object or ConfigDict.
        where: how errors name it.

    Raises:
        ConfigError: unknown keys (with the known ones), missing keys, or a value of another type;
            each with its full name.
    """
    if not hasattr(values, "items"):
        raise ConfigError(f"{where} is {values!r}; give its keys")
    values, known = dict(values.items()), [field.name for field in dataclasses.fields(cls)]
    unknown = sorted(set(values) - set(known))
    missing = [name for name in known if name not in values]
    if unknown or missing:
        wrong = [f"unknown keys {', '.join(unknown)}"] if unknown else []
        wrong += [f"missing keys {', '.join(missing)}"] if missing else []
        raise ConfigError(f"{where} has {' and '.join(wrong)}; its keys are {', '.join(known)}")
    hints = typing.get_type_hints(cls)
    return cls(
        **{name: _convert(hints[name], values[name], where=f"{where}.{name}") for name in known}
    )


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        arms = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        if value is None and len(arms) < len(typing.get_args(hint)):
            return None
        (hint,) = arms
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else read(hint, value, where=where)
    if typing.get_origin(hint) is tuple:
        return _tuple(typing.get_args(hint), value, where=where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > sys.float_info.max:
            raise ConfigError(f"{where} is {brief(value)}; no such number is that large")
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} is {value!r}; give a value of type {hint.__name__}")
    return value


def _tuple(hints: tuple[Any, ...], value: Any, *, where: str) -> tuple[Any, ...]:
    if isinstance(value, str) and hints == (str, Ellipsis):
        value = (value,)  # one name is as good as a list of one
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} is {value!r}; give a list")
    each = [hints[0]] * len(value) if hints[-1] is Ellipsis else list(hints)
    if len(each) != len(value):
        raise ConfigError(f"{where} is {value!r}; give {len(each)} values")
    return tuple(
        _convert(hint, item, where=f"{where}[{index}]")
        for index, (hint, item) in enumerate(zip(each, value, strict=True))
    )


def require_positive(config: Any) -> None:
    """Raise ConfigError when a number field of `config` is not above zero."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and value <= 0:
            name = f"{type(config).__name__}.{field.name}"
            raise ConfigError(f"{name} is {value}; it must be above 0")


def require_divisible(config: Any, whole: str, part: str) -> None:
    """Raise ConfigError unless field `whole` is a multiple of field `part`."""
    if getattr(config, whole) % getattr(config, part):
        raise ConfigError(
            f"{type(config).__name__}.{whole} is {getattr(config, whole)}; it must be a multiple "
            f"of {part}, which is {getattr(config, part)}"
        )
