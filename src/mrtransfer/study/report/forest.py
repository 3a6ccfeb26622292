"""A forest plot whose rows are table rows: one strip of SVG per comparison, all on one scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT, PAD = 280, 26, 10


@dataclass(frozen=True)
class Scale:
    """Pixels for values between ``low`` and ``high``, with ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, entries: Sequence[dict[str, Any]], margin: float) -> "Scale":
        """A scale that holds zero, the margin and every interval."""
        values = [entry[key] for entry in entries for key in ("low", "high", "difference") if entry[key] is not None]
        reach = max(margin * 1.5, 1e-6)
        ticks = MaxNLocator(5).tick_values(min([*values, -reach]), max([*values, reach]))
        return cls(float(ticks[0]), float(ticks[-1]), tuple(float(tick) for tick in ticks))

    def at(self, value: float) -> float:
        """Horizontal place of ``value`` in pixels."""
        return PAD + (WIDTH - 2 * PAD) * float(np.clip((value - self.low) / (self.high - self.low), 0, 1))


def ground(scale: Scale, margin: float) -> str:
    """CSS variables that place the margin's band and the line of no difference behind all rows."""
    left, right = scale.at(-margin), scale.at(margin)
    return f"--zero: {scale.at(0) - 0.5:.1f}px; --band: {left:.1f}px; --wide: {max(right - left, 0):.1f}px"


def strip(entry: dict[str, Any], scale: Scale, kind: str) -> Markup:
    """The estimate of one comparison and its interval, as far as they are known."""
    if entry["difference"] is None:
        return Markup()
    middle, value = HEIGHT / 2, scale.at(entry["difference"])
    tone = f"var(--{kind})" if kind in ("good", "bad") else "var(--ink)"
    filled = tone if kind in ("good", "bad") else "var(--paper)"
    bars = []
    if entry["low"] is not None:
        low, high = scale.at(entry["low"]), scale.at(entry["high"])
        bars = [(low, high, middle, middle), (low, low, middle - 3, middle + 3), (high, high, middle - 3, middle + 3)]
    shapes = [
        f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1}" y2="{y2}" stroke="{tone}" stroke-width="1.6"/>'
        for x1, x2, y1, y2 in bars
    ]
    shapes.append(f'<circle cx="{value:.1f}" cy="{middle}" r="4" fill="{filled}" stroke="{tone}" stroke-width="1.6"/>')
    return _svg(shapes, HEIGHT)


def axis(scale: Scale, factor: float, left: str, right: str) -> Markup:
    """The scale's ticks in units of ``factor``, and on which side which arm is better."""
    shapes = []
    for tick in scale.ticks:
        place = scale.at(tick)
        text = f"{factor * tick:g}".replace("-", "−")
        shapes.append(f'<line x1="{place:.1f}" x2="{place:.1f}" y1="0" y2="4" stroke="var(--muted)"/>')
        shapes.append(f'<text x="{place:.1f}" y="15" text-anchor="middle">{text}</text>')
    shapes.append(f'<text x="{PAD}" y="29" text-anchor="start">← {left}</text>')
    shapes.append(f'<text x="{WIDTH - PAD}" y="29" text-anchor="end">{right} →</text>')
    return _svg(shapes, 33)


def _svg(shapes: list[str], height: int) -> Markup:
    head = f'<svg class="strip" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" aria-hidden="true">'
    return Markup(head + "".join(shapes) + "</svg>")
