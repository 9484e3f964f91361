"""Bars drawn as SVG for the doctor's page; every text is escaped."""

import re
from collections.abc import Sequence
from html import escape

# Control characters, halves of characters, and what turns the direction of writing.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_WIDTH, _HEIGHT, _LEFT, _BELOW, _ABOVE = 620, 190, 8, 34, 16
_ROW, _NAMES = 20, 230


def text(value: object, *, longest: int = 300) -> str:
    """Text as HTML, whatever it was: markup is shown, not followed; long text is cut."""
    plain = str(value)
    if len(plain) > longest:
        plain = plain[:longest] + " [...]"
    return escape(_FORBIDDEN.sub("\ufffd", plain))


def histogram(
    edges: Sequence[float], counts: Sequence[int], *, unit: str, line: float | None, label: str
) -> str:
    """Bars of equal width over unequal bins, each named by where it begins.

    Args:
        edges: one more than `counts`.
        unit: of the edges.
        line: value to mark, such as a cut-off; None for none.
        label: of the line.
    """
    shown = _used(counts)
    edges, counts = edges[shown.start : shown.stop + 1], counts[shown]
    step = (_WIDTH - 2 * _LEFT) / max(1, len(counts))
    tall = (_HEIGHT - _BELOW - _ABOVE) / max([1, *counts])
    floor = _HEIGHT - _BELOW
    parts = []
    for place, count in enumerate(counts):
        left, height = _LEFT + place * step, count * tall
        title = f"{edges[place]:g} to {edges[place + 1]:g} {unit}: {count}"
        parts.append(
            f'<rect class="bar" x="{left + 1:.1f}" y="{floor - height:.1f}" '
            f'width="{max(1, step - 2):.1f}" height="{height:.1f}"><title>{text(title)}</title>'
            "</rect>"
        )
        if len(counts) <= 12 or place % 2 == 0:
            parts.append(f'<text x="{left:.1f}" y="{floor + 14}">{edges[place]:g}</text>')
        if count:
            parts.append(
                f'<text class="count" x="{left + step / 2:.1f}" y="{floor - height - 3:.1f}">'
                f"{count}</text>"
            )
    if line is not None and edges[0] <= line <= edges[-1]:
        place = max(n for n, edge in enumerate(edges) if edge <= line)
        inside = (line - edges[place]) / (edges[place + 1] - edges[place]) if counts[place:] else 0
        x = _LEFT + (place + inside) * step
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{floor}"/>')
        parts.append(f'<text class="mark" x="{x + 4:.1f}" y="10">{text(label)}</text>')
    parts.append(f'<text class="unit" x="{_WIDTH - _LEFT}" y="{_HEIGHT - 4}">{text(unit)}</text>')
    return _svg(_HEIGHT, parts, name=f"histogram in {unit}")


def bars(values: Sequence[tuple[str, float]], *, unit: str, digits: int = 0) -> str:
    """One horizontal bar a name, longest value full width."""
    room = _WIDTH - _NAMES - 90
    most = max([value for _, value in values], default=0) or 1
    parts = []
    for place, (name, value) in enumerate(values):
        y = place * _ROW
        width = max(1, room * value / most)
        parts.append(
            f'<text class="name" x="{_NAMES - 8}" y="{y + 14}">{text(name, longest=34)}</text>'
            f'<rect class="bar" x="{_NAMES}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}">'
            f"<title>{text(name)}: {value:,.{digits}f} {text(unit)}</title></rect>"
            f'<text x="{_NAMES + width + 6:.1f}" y="{y + 14}">{value:,.{digits}f}</text>'
        )
    return _svg(max(_ROW, _ROW * len(values)), parts, name=f"bars, {unit}")


def _used(counts: Sequence[int]) -> slice:
    """The bins from the first to the last that hold anything; all where none does."""
    used = [place for place, count in enumerate(counts) if count]
    return slice(used[0], used[-1] + 1) if used else slice(0, len(counts))


def _svg(height: float, parts: Sequence[str], *, name: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{text(name)}">'
        + "".join(parts)
        + "</svg>"
    )
