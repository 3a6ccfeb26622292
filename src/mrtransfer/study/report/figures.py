"""The report's drawings: label-budget curves, training curves, ROC, reliability."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from mrtransfer.study.report.canvas import (
    INK,
    MUTED,
    RULE,
    SOFT,
    colour,
    line,
    marker,
    new_figure,
    styled,
    to_svg,
)
from mrtransfer.study.statistics.measures import Measures

Panel = tuple[str, Markup]
_THIN_LINES = 20  # more runs would be a blur


def label_curves(
    arms: Sequence[dict[str, Any]],
    order: Sequence[str],
    metric: str,
    saving: dict[str, Any] | None,
    unit: str,
    measures: Measures,
) -> Markup:
    """The metric against the number of labels, one line per arm with its 95 % intervals and faint points per seed.

    Arms that see no label are lines across, with their interval as a band.
    """
    scale = measures.scale(metric)
    with styled():
        figure, (axes,) = new_figure(4.7, 3.0)
        ticks: dict[float, str] = {}
        for index, arm in enumerate(order):
            entries = [entry for entry in arms if entry["arm"] == arm and entry["metrics"][metric]["mean"] is not None]
            entries.sort(key=lambda entry: entry["labelled"])
            if entries and not entries[-1]["labelled"]:
                _across(axes, entries[-1]["metrics"][metric], scale, index)
                continue
            labels = np.array([entry["labelled"] for entry in entries]) * 1.018 ** (index - (len(order) - 1) / 2)
            stats = [entry["metrics"][metric] for entry in entries]
            mean = scale * np.array([value["mean"] for value in stats])
            low, high = (
                scale * np.array([value["mean"] if value[end] is None else value[end] for value in stats])
                for end in ("low", "high")
            )
            for place, value in zip(labels, stats, strict=True):
                seeds = [scale * one for one in value["per_seed"] if one is not None]
                axes.plot([place] * len(seeds), seeds, "o", ms=2, mew=0, color=colour(index), alpha=0.28)
            axes.fill_between(labels, low, high, color=colour(index), alpha=0.1, lw=0)
            axes.vlines(labels, low, high, color=colour(index), lw=1)
            axes.plot(labels, mean, ls=line(index), marker=marker(index), color=colour(index))
            ticks |= {entry["labelled"]: f"{entry['labelled']:,}" for entry in entries}
        if saving and saving["reached"] and saving["a_labels"] < saving["b_labels"]:
            goal = scale * saving["b_score"]
            axes.plot([saving["b_labels"], saving["a_labels"]], [goal, goal], ls=(0, (1, 2)), lw=1, color=INK)
            axes.plot([saving["a_labels"]], [goal], "|", color=INK, ms=9, mew=1)
        axes.set_xscale("log")
        axes.set_xticks(_spread(list(ticks)), [ticks[tick] for tick in _spread(list(ticks))])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"labelled {unit}s (log scale)")
        axes.set_title(f"{measures.words[metric]}{' (%)' if scale == 100 else ''}")
        return to_svg(figure, f"{measures.words[metric]} against the number of labelled {unit}s, by arm")


def _across(axes: Any, found: dict[str, Any], scale: int, index: int) -> None:
    """A score that owes nothing to labels."""
    axes.axhline(scale * found["mean"], ls=line(index), lw=1.2, color=colour(index))
    if found["low"] is not None:
        axes.axhspan(scale * found["low"], scale * found["high"], color=colour(index), alpha=0.07, lw=0)


def _spread(ticks: list[float], apart: float = 1.25) -> list[float]:
    """Ticks that do not run into each other on a logarithmic axis; of two close ones the larger stays."""
    kept: list[float] = []
    for tick in sorted(ticks, reverse=True):
        if not kept or kept[-1] / tick > apart:
            kept.append(tick)
    return kept[::-1]


def training_panels(curves: dict[str, list[list[dict[str, Any]]]], order: Sequence[str]) -> list[Panel]:
    """Per arm: loss and, where known, Dice and accuracy over epochs; thin lines are runs, thick ones their mean."""
    return [(arm, _training(arm, curves[arm], order.index(arm))) for arm in order if any(curves.get(arm, []))]


_SCORES = ("dice", "accuracy")  # what curves may show beside the loss, the telling one first


def _training(arm: str, runs: list[list[dict[str, Any]]], index: int) -> Markup:
    scores = [name for name in _SCORES if any(f"validation_{name}" in epoch for run in runs for epoch in run)]
    heights = {0: 2.15, 1: 2.9, 2: 3.6}[len(scores)]
    with styled():
        figure, axes = new_figure(2.75, heights, (2, *(1.15 for _ in scores)) if scores else (1,))
        _over_epochs(axes[0], runs, "train_loss", MUTED, (0, (3, 1.6)), 1)
        _over_epochs(axes[0], runs, "validation_loss", colour(index), "-", 1)
        for place, (name, drawn) in enumerate((("training", MUTED), ("validation", colour(index)))):
            at = {"xy": (1, 0.995 - 0.1 * place), "xycoords": "axes fraction", "ha": "right", "va": "top"}
            axes[0].annotate(name, **at, color=drawn, fontsize=7.5)
        axes[0].set_ylim(0, 1.2 * axes[0].get_ylim()[1])  # the words in the corner need room
        axes[0].set_title("loss", fontweight="normal", color=MUTED)
        for below, name in zip(axes[1:], scores, strict=True):
            if "dice" in scores:
                _over_epochs(below, runs, f"train_{name}", MUTED, (0, (3, 1.6)), 100)
            _over_epochs(below, runs, f"validation_{name}", colour(index), "-", 100)
            below.set_title(f"{'' if 'dice' in scores else 'validation '}{name.replace('dice', 'Dice')} (%)",
                            fontweight="normal", color=MUTED)  # fmt: skip
        axes[-1].set_xlabel("epoch")
        axes[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return to_svg(figure, f"training and validation loss of {arm} over epochs")


def split_bars(folds: Sequence[dict[str, Any]]) -> Markup:
    """Stacked bars: how many subjects are for training, validation and test in each fold."""
    with styled():
        figure, (axes,) = new_figure(4.7, 0.8 + 0.24 * len(folds))
        names = [f"fold {entry['fold']}" if len(folds) > 1 else "" for entry in folds]
        parts = ("training", "validation", "test")
        left, most = np.zeros(len(folds)), max(sum(entry[part] for part in parts) for entry in folds)
        for place, part in enumerate(parts):
            counts = np.array([entry[part] for entry in folds], dtype=float)
            bars = axes.barh(range(len(folds)), counts, left=left, height=0.7, color=colour(place), alpha=0.75, lw=0,
                             label=part)  # fmt: skip
            fits = counts > 0.025 * most  # the number is as wide as that
            axes.bar_label(bars, [f"{count:.0f}" if fit else "" for count, fit in zip(counts, fits, strict=True)],
                           label_type="center", fontsize=7, color=INK)  # fmt: skip
            left += counts
        axes.grid(visible=False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=7.5, borderpad=0, borderaxespad=0.3,
                    handlelength=0.9, handletextpad=0.5, columnspacing=1.4)  # fmt: skip
        axes.set_yticks(range(len(folds)), names)
        axes.invert_yaxis()
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return to_svg(figure, "subjects for training, validation and test")


def _over_epochs(axes: Any, runs: list[list[dict[str, Any]]], key: str, drawn: str, style: Any, scale: float) -> None:
    lines = [[(e["epoch"], scale * e[key]) for e in run if e.get(key) is not None] for run in runs]
    lines = [points for points in lines if points]
    for points in lines[:_THIN_LINES]:
        axes.plot(*zip(*points, strict=True), color=drawn, lw=0.5, alpha=0.3)
    epochs = sorted({epoch for points in lines for epoch, _ in points})
    mean = [np.mean([value for points in lines for at, value in points if at == epoch]) for epoch in epochs]
    axes.plot(epochs, mean, color=drawn, ls=style, lw=1.6, marker="o" if len(epochs) == 1 else None)


def roc_panels(
    roc: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]], order: Sequence[str], classes: Sequence[str]
) -> list[Panel]:
    """Per class: the ROC curves of all arms."""
    shown = [name for name in classes if any(name in roc.get(arm, {}) for arm in order)]
    return [(name, _roc(name, roc, order)) for name in shown]


def _roc(name: str, roc: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]], order: Sequence[str]) -> Markup:
    with styled():
        figure, (axes,) = new_figure(2.35, 2.35)
        axes.plot([0, 1], [0, 1], color=RULE, lw=0.8)
        for index, arm in enumerate(order):
            if name in roc.get(arm, {}):
                false, true = roc[arm][name]
                axes.plot(np.append(0, false), np.append(0, true), color=colour(index), ls=line(index))
        _unit_square(axes, "false-positive rate", "true-positive rate")
        return to_svg(figure, f"ROC curves for {name}")


def reliability_panels(bins: dict[str, dict[str, np.ndarray]], order: Sequence[str]) -> list[Panel]:
    """Per arm: accuracy against confidence, with the share of predictions in each bin as bars at the bottom."""
    return [(arm, _reliability(arm, bins[arm], order.index(arm))) for arm in order if arm in bins]


def _reliability(arm: str, bins: dict[str, np.ndarray], index: int) -> Markup:
    count = np.asarray(bins["count"], dtype=float)
    filled = count > 0
    edges = np.arange(len(count)) / len(count)
    with styled():
        figure, (axes,) = new_figure(2.35, 2.35)
        axes.bar(edges, 0.25 * count / count.max(), width=1 / len(count), align="edge", color=SOFT, lw=0)
        axes.plot([0, 1], [0, 1], color=RULE, lw=0.8)
        axes.plot(
            bins["confidence"][filled],
            bins["accuracy"][filled],
            color=colour(index),
            marker=marker(index),
            ms=3.2,
            lw=1.2,
        )
        _unit_square(axes, "confidence", "accuracy")
        return to_svg(figure, f"reliability of {arm}: accuracy against confidence")


def _unit_square(axes: Any, across: str, up: str) -> None:
    axes.set_aspect("equal")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.set_xticklabels(("0", "0.5", "1"))
    axes.set_yticklabels(("0", "0.5", "1"))
    axes.set_xlabel(across)
    axes.set_title(up, fontweight="normal", color=MUTED)
