"""The list of config keys that `train --help` prints: values, and the comments of `common.base`.

The comments are read from its source, so there is one place that says what a key means.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import common

_SETS = re.compile(r"    config\.([\w.]+) = ([^#]*?)(?:  # (.*))?")
_WIDTH, _INDENT = 100, 6


def comments() -> dict[str, str]:
    """Read the comments of `common.base` on each key and section, above and beside it."""
    by_key: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(common.base).splitlines():
        match = _SETS.fullmatch(line)
        if line.startswith("    # "):
            above.append(line.strip().removeprefix("# "))
            continue
        if match:
            key, _, beside = match.groups()
            by_key[key] = " ".join([*above, *([beside] if beside else [])])
        above = []
    return by_key


def listing(config: ConfigDict) -> str:
    """All keys of a config that can be set on the command line, with their values and comments.

    They come in the order of `common.base`, whose comments speak of keys above and below.
    """
    texts, lines = comments(), []
    seen: set[str] = set()
    order = {name: place for place, name in enumerate(texts)}

    def place(leaf: tuple[str, Any]) -> tuple[str, int]:
        parts = leaf[0].split(".")
        names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        known = next((text for name in names if (text := _known(name, texts))), "")
        stage = "" if _known(parts[0], texts) else parts[0]  # of a curriculum
        return stage, order.get(known, -1)

    for key, value in sorted(_leaves(config), key=place):
        for section in _sections(key, texts):
            if section not in seen:
                seen.add(section)
                known = _known(section, texts)
                lines += ["", f"--config.{section}.*", *_wrapped(texts[known])]
        lines.append(f"--config.{key}={value!r}")
        if (known := _known(key, texts)) and texts[known]:
            lines += _wrapped(texts[known])
    return "\n".join(lines).strip()


def _wrapped(text: str) -> list[str]:
    indent = " " * _INDENT
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in config:
        value = config[name]
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _known(key: str, texts: dict[str, str]) -> str | None:
    """The name under which `base` has a key.

    Those of a curriculum's stage begin with the stage, and what its stages share has no section.
    """
    if key in texts:
        return key
    first, _, rest = key.partition(".")
    shared = (name for name in texts if name.endswith(f".{first}"))
    return (rest if rest in texts else None) if rest else next(shared, None)


def _sections(key: str, texts: dict[str, str]) -> list[str]:
    parts = key.split(".")
    names = [".".join(parts[:count]) for count in range(1, len(parts))]
    return [name for name in names if (known := _known(name, texts)) and texts[known]]
