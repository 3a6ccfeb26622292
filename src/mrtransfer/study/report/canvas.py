"""Matplotlib figures as inline SVG that takes its colours and its type from the page, in light and in dark."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from cycler import cycler
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from mrtransfer.common.files import digest

SERIES = 8
# Stand-ins that no figure uses by chance; in the page each becomes a CSS variable, so one drawing serves both schemes.
INK, MUTED, RULE, PAPER, SOFT = "#010201", "#010202", "#010203", "#010204", "#010205"
_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper", SOFT: "soft"}
_COLOURS = {f"#01030{index}": f"s{index}" for index in range(1, SERIES + 1)}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_LINES = ("-", (0, (5, 1.6)), (0, (1.4, 1.2)), (0, (5, 1.4, 1.2, 1.4)))

_STYLE: Any = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "mrtransfer",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=list(_COLOURS)),
}


def colour(index: int) -> str:
    """The stand-in colour of series ``index``; from the ninth on they repeat, with other lines and markers."""
    return f"#01030{index % SERIES + 1}"


def marker(index: int) -> str:
    """Matplotlib's marker of series ``index``."""
    return _MARKERS[index % SERIES]


def line(index: int) -> Any:
    """Matplotlib's line style of series ``index``."""
    return _LINES[index // SERIES % len(_LINES)]


@contextmanager
def styled() -> Iterator[None]:
    """The report's style, for the drawing of one figure."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float, ratios: tuple[float, ...] = (1,)) -> tuple[Figure, list[Any]]:
    """A figure of ``width`` × ``height`` inches with axes of these heights stacked; for use in :func:`styled`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(len(ratios), sharex=True, height_ratios=ratios, squeeze=False)
    return figure, list(axes[:, 0])


def to_svg(figure: Figure, label: str) -> Markup:
    """The figure as one ``<svg>`` element; ``label`` says in words what it shows, for those who cannot see it."""
    stream = io.StringIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for stand_in, name in {**_VARIABLES, **_COLOURS}.items():
        text = text.replace(stand_in, f"var(--{name})")
    # Matplotlib writes 'font: 8px family' or, from 3.11 on, 'font-size: 8px; font-family: family'
    text = re.sub(r"font: ([^;\"]*?px) [^;\"]+", r"font: \1 var(--sans)", text)
    text = re.sub(r"font-family: [^;\"]+", "font-family: var(--sans)", text)
    prefix = f"f{digest(text.encode(), 8)}-"  # ids must not repeat in a page with several drawings
    text = re.sub(r'(\sid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}", text)
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', text)[1])  # type: ignore[index]
    head = f'<svg role="img" aria-label="{escape(label)}" style="max-width: {width * 1.42:.0f}px" '
    text = re.sub(r'<svg ((?:(?!>).)*?)width="[^"]*"', lambda found: head + found[1], text, count=1, flags=re.DOTALL)
    text = re.sub(r'height="[\d.]+pt"\s?', "", text, count=1)
    return Markup(text)
