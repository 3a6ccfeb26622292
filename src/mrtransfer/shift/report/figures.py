"""Figures for papers, as PNG and PDF: how far apart by every distance, and the maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from mrtransfer.common.files import atomic_path
from mrtransfer.data.stored import file_name
from mrtransfer.shift.report.points import colourings, columns_of, groups_of, read_points
from mrtransfer.shift.verdict import ALPHA

COLOURS = ("#1668a0", "#c8551b", "#2a8a5f", "#8155a8", "#a07800", "#3b95b8", "#bb5287", "#6b7075")
"""The reports' own, as far as eyes can tell them apart."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_UNKNOWN = "#d5d2ca"
_DPI = 300
_VECTORS = 500  # more dots are drawn as pixels, or the file is slow to show
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e0ddd5",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "pdf.fonttype": 42,  # letters stay letters, as journals ask
}


def save_figures(folder: str | Path, results: Mapping[str, Any]) -> list[Path]:
    """Write ``figures/distances`` and ``figures/map-<feature>`` below ``folder``, each as .png (300 dpi) and .pdf."""
    folder = Path(folder)
    with matplotlib.rc_context(_STYLE):
        saved = _save(_distances(results["distances"]), folder / "figures" / "distances")
        drawn = results["maps"]["drawn"]
        if drawn:
            table = read_points(folder)
            for feature in dict.fromkeys(one["feature"] for one in drawn):
                own = [one for one in drawn if one["feature"] == feature]
                saved += _save(_maps(table, feature, own), folder / "figures" / f"map-{file_name(feature)}")
    return saved


def _save(figure: Figure, path: Path) -> list[Path]:
    """Both files; without dates, so that the same figure has the same bytes."""
    png, pdf = path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.pdf")
    with atomic_path(png) as temporary:
        FigureCanvasAgg(figure).print_png(temporary, metadata={"Software": None})
    with atomic_path(pdf) as temporary:
        FigureCanvasPdf(figure).print_pdf(temporary, metadata={"CreationDate": None, "Creator": None})
    return [png, pdf]


def _distances(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """One line per feature, one mark per distance: standard deviations above chance, hollow where not significant."""
    features = list(dict.fromkeys(row["feature"] for row in rows))
    words = list(dict.fromkeys(row["words"] for row in rows))
    figure = Figure(figsize=(5.2, 0.9 + 0.42 * len(features)), layout="constrained", dpi=_DPI)
    axes = figure.subplots()
    for place, name in enumerate(words):
        own = [row for row in rows if row["words"] == name and row["normalised"] is not None]
        offset = (place - (len(words) - 1) / 2) * 0.13
        colour, mark = COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)]
        for row in own:
            inside = colour if row["p_holm"] is not None and row["p_holm"] < ALPHA else "white"
            axes.plot(row["normalised"], features.index(row["feature"]) + offset, mark, color=colour,
                      markerfacecolor=inside, markersize=4.5, markeredgewidth=1)  # fmt: skip
        axes.plot([], [], mark, color=colour, markersize=4.5, label=name)
    axes.axvline(0, color="#54606b", linewidth=0.8)
    axes.set_yticks(range(len(features)), features)
    axes.set_ylim(len(features) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel(f"standard deviations above chance (filled: Holm-corrected p < {ALPHA})")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.03), handletextpad=0.3)
    return figure


def _maps(table: pd.DataFrame, feature: str, drawn: Sequence[Mapping[str, Any]]) -> Figure:
    """A column per map, a row per colouring."""
    shown = colourings(table)
    figure = Figure(figsize=(2.1 * len(drawn) + 1.3, 2.15 * len(shown) + 0.1), layout="constrained", dpi=_DPI)
    grid = figure.subplots(len(shown), len(drawn), squeeze=False)
    for axes, one in zip(grid[0], drawn, strict=True):
        axes.set_title(one["words"])
    for across, (name, values) in zip(grid, shown.items(), strict=True):
        groups = [rows for rows in enumerate(groups_of(table, name, values)) if len(rows[1])]
        for axes, one in zip(across, drawn, strict=True):
            at = table[columns_of(feature, one["method"])].to_numpy(dtype=float)
            for place, rows in reversed(groups):  # those not known lie below
                known = place < len(values)
                axes.scatter(*at[rows].T, s=5, linewidths=0, alpha=0.75, rasterized=len(at) > _VECTORS,
                             color=COLOURS[place % len(COLOURS)] if known else _UNKNOWN,
                             label=values[place] if known else "unknown")  # fmt: skip
            axes.set(xticks=[], yticks=[])
            axes.set_aspect("equal", adjustable="datalim")
            axes.spines[:].set_visible(True)
            axes.spines[:].set_color("#c9c5bb")
        handles, labels = (several[::-1] for several in across[-1].get_legend_handles_labels())
        across[-1].legend(handles, labels, title=name, loc="upper left", bbox_to_anchor=(1.01, 1.02), markerscale=2,
                          handletextpad=0.1, alignment="left")  # fmt: skip
    return figure
