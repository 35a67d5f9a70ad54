"""Curves as SVG, without a library: some panels side by side, each with axes from 0 and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 300, 220  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 30, 40  # of its margins
COLOURS = ("#1f77b4", "#d62728", "#2ca02c")
STEPS = (1, 2, 2.5, 5, 10)


class Curve(NamedTuple):
    """What was measured, as (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


class Panel(NamedTuple):
    """Curves that share their axes."""

    title: str
    curves: Sequence[Curve]


def drawing(x_axis: str, panels: Sequence[Panel]) -> str:
    """The panels as one SVG document; `x_axis` says what is counted to the right."""
    size = f'width="{WIDTH * len(panels)}" height="{HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="10">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate({number * WIDTH},0)">', *_panel(x_axis, panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def ticks(most: float) -> list[float]:
    """Round numbers from 0 up to `most` or just above it, at most six of them."""
    if most <= 0.0:
        return [0.0, 1.0]
    power = 10.0 ** len(str(int(most)))
    while power * STEPS[0] > most / 5:
        power /= 10
    step = next(power * factor for factor in STEPS if power * factor >= most / 5)
    count = int(most / step - 1e-9) + 1
    return [step * number for number in range(count + 1)]


def _panel(x_axis: str, panel: Panel) -> list[str]:
    points = [point for curve in panel.curves for point in curve.points]
    xs, ys = ticks(max(x for x, _ in points)), ticks(max(y for _, y in points))
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + across * x / xs[-1], HEIGHT - BOTTOM - up * y / ys[-1]

    parts = [_text(LEFT, 14, panel.title, "start", 'font-weight="bold"')]
    parts.append(_text(LEFT + across / 2, HEIGHT - 8, x_axis))
    for y in ys:  # lines across
        left, height = place(0, y)
        parts.append(_line((left, height), (WIDTH - RIGHT, height), "#dddddd"))
        parts.append(_text(left - 4, height + 3, f"{y:g}", "end"))
    parts += [_text(place(x, 0)[0], HEIGHT - BOTTOM + 14, f"{x:g}") for x in xs]
    for number, curve in enumerate(panel.curves):
        colour = COLOURS[number % len(COLOURS)]
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in curve.points))
        parts.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(_text(LEFT + 8, TOP + 10 + 12 * number, curve.name, "start", f'fill="{colour}"'))
    return parts


def _line(begin: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    (x1, y1), (x2, y2) = begin, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>'
