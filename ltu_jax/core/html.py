"""HTML pages from templates of a package; all that is inserted is escaped, whatever wrote it."""

import base64
import functools
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

# Control characters, lone surrogates, non-characters, and what turns the direction of writing.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def render(package: str, template: str, **values: Any) -> str:
    """Return a page made of a template in the folder `templates` of a package.

    Text may be anything that a model wrote: no markup of it survives, and characters that no HTML
    may hold or that would reorder their surroundings become U+FFFD. The filter `cut(n)` shortens a
    text to n characters.
    """
    return _environment(package).get_template(template).render(**values)


def png_source(path: Path) -> str:
    """Return a PNG as the `src` of an image inside the page; "" where there is no such file."""
    if not path.is_file():
        return ""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cut"] = _cut
    return environment


def _printable(value: Any) -> Any:
    return value if isinstance(value, Markup) else _FORBIDDEN.sub("\ufffd", str(value))


def _cut(value: Any, longest: int, end: str = " […]") -> str:
    text = str(value)
    return text if len(text) <= longest else text[:longest] + end
