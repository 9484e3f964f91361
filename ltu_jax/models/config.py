"""Frozen model configs, read strictly: a misspelt or forgotten key is an error."""

import dataclasses
import types
import typing
from typing import Any, Self

from ltu_jax.core.errors import UserError


class ConfigError(UserError):
    """A model config with an unknown, missing or impossible value."""


class Config:
    """Base of the frozen, keyword-only model configs; the inverse of `dataclasses.asdict`."""

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Build the config from a mapping (dict, JSON object or ConfigDict), nested ones included.

        Raises:
            ConfigError: unknown keys (with the known ones), missing keys, or a value of the wrong
                type.
        """
        values = dict(values.items())
        hints = typing.get_type_hints(cls)
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [key for key in values if key not in known]
        if unknown:
            raise ConfigError(f"{cls.__name__}: unknown keys {unknown}; the known keys are {known}")
        missing = [key for key in known if key not in values]
        if missing:
            raise ConfigError(f"{cls.__name__}: missing keys {missing}; all of {known} are needed")
        return cls(**{k: _convert(f"{cls.__name__}.{k}", hints[k], v) for k, v in values.items()})


def _convert(name: str, hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        (hint,) = [arm for arm in typing.get_args(hint) if arm is not type(None)]
    if isinstance(hint, type) and issubclass(hint, Config):
        if isinstance(value, hint):
            return value
        if not hasattr(value, "items"):
            raise ConfigError(f"{name} is {value!r}; give the keys of {hint.__name__}")
        return hint.from_dict(value)
    if typing.get_origin(hint) is tuple:
        listed = isinstance(value, list | tuple)
        if not listed or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{name} is {value!r}; give a list of strings")
        return tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{name} is {value!r}; give a value of type {hint.__name__}")
    return value


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
