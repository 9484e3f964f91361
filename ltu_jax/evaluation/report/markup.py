"""Pieces of HTML: escaped text, tables, figures with their intervals, pictures inside the page."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ltu_jax.evaluation.report import formatting

NONE = "<td>-</td>"
# Control characters, lone surrogates, non-characters, and what turns the direction of writing.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def text(value: Any, *, longest: int | None = None) -> str:
    """Text as HTML. It may be anything that a model wrote: no markup of it survives.

    Characters that no HTML may hold or that would reorder their surroundings become U+FFFD; after
    `longest` characters it is cut.
    """
    plain = str(value)
    if longest is not None and len(plain) > longest:
        plain = plain[:longest] + " […]"
    return escape(_FORBIDDEN.sub("\ufffd", plain))


def words(*values: Any, longest: int | None = None) -> str:
    """Cells of text, flush left."""
    return "".join(f'<td class="text">{text(value, longest=longest)}</td>' for value in values)


def numbers(*values: Any) -> str:
    """Cells of numbers or other short text, flush right."""
    return "".join(f"<td>{text(value)}</td>" for value in values)


def head(left: Sequence[str], right: Sequence[str] = ()) -> str:
    """A line of column titles: `left` over text, `right` over numbers."""
    cells = [f'<th class="text">{text(title)}</th>' for title in left]
    return f"<tr>{''.join(cells)}{''.join(f'<th>{text(title)}</th>' for title in right)}</tr>"


def two_line_head(left: Sequence[str], pairs: Iterable[str]) -> str:
    """Column titles with a paper and a strict column under each of `pairs`, which are HTML."""
    pairs = list(pairs)
    over = "".join(f'<th class="text" rowspan="2">{text(title)}</th>' for title in left)
    over += "".join(f'<th colspan="2">{pair}</th>' for pair in pairs)
    return f"<tr>{over}</tr><tr>{'<th>paper</th><th>strict</th>' * len(pairs)}</tr>"


def grid(titles: str, lines: Iterable[str]) -> str:
    """A table that scrolls by itself where the window is narrow, its titles on every page."""
    return (
        f'<div class="scroll"><table><thead>{titles}</thead>\n'
        "<tbody>" + "\n".join(lines) + "</tbody></table></div>"
    )


def figure(one: Mapping[str, Any] | None, *notes: str) -> str:
    """A cell with a figure, the spread of its draws and, beneath it, its interval and `notes`."""
    if one is None or one["value"] is None:
        return NONE
    small = "".join(
        f"<small>{text(part)}</small>" for part in (formatting.interval(one), *notes) if part
    )
    value = formatting.number(one["value"], one["metric"]) + formatting.spread(one)
    return f"<td>{text(value)}{small}</td>"


def pair(row: Mapping[str, Any] | None, *, metric: str, mode: str) -> str:
    """The paper and the strict cell of the model's figure in a row, with their n.

    Answers that are not those of the rule (greedy ones under paper) are named.
    """
    cells = []
    for rule in formatting.RULES:
        one = (
            None
            if row is None
            else formatting.find_figure(row, metric=metric, rule=rule, mode=mode)
        )
        notes = [] if one is None else [f"n={one['n']}", formatting.foreign_decoding(one)]
        cells.append(figure(one, *notes))
    return "".join(cells)


def picture(path: Path, *, alt: str) -> str:
    """A PNG inside the page; nothing where there is no such file."""
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{text(alt)}">'
