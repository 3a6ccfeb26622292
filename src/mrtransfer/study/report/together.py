"""Training curves of all arms in one plot, one for each of what the epochs tell."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from mrtransfer.study.report.canvas import MUTED, colour, line, new_figure, styled, to_svg
from mrtransfer.study.report.figures import Panel

Curves = dict[str, list[list[dict[str, Any]]]]
"""Arm to the epochs of each of its runs."""

_TOLD = {
    "train_loss": "training loss",
    "validation_loss": "validation loss",
    "validation_ssim": "validation SSIM",
    "validation_psnr": "validation PSNR (dB)",
}
_THIN_LINES = 6  # of each arm: more would hide the others


def together_panels(curves: Mapping[str, list[list[dict[str, Any]]]], order: Sequence[str]) -> list[Panel]:
    """Loss, SSIM and PSNR over epochs, every arm in its colour; thin lines are runs, thick ones their mean."""
    arms = [arm for arm in order if any(curves.get(arm, []))]
    known = [key for key in _TOLD if any(_points(curves[arm], key) for arm in arms)]
    return [(_TOLD[key], _panel(key, {arm: _points(curves[arm], key) for arm in arms}, order)) for key in known]


def _points(runs: Sequence[Sequence[Mapping[str, Any]]], key: str) -> list[list[tuple[int, float]]]:
    """For each run that has any, the epochs at which ``key`` is known, and its values."""
    found = [[(epoch["epoch"], epoch[key]) for epoch in run if epoch.get(key) is not None] for run in runs]
    return [points for points in found if points]


def _panel(key: str, runs: Mapping[str, list[list[tuple[int, float]]]], order: Sequence[str]) -> Markup:
    with styled():
        figure, (axes,) = new_figure(3.3, 2.5)
        for arm, lines in runs.items():
            index = order.index(arm)
            for points in lines[:_THIN_LINES] if len(lines) > 1 else []:
                axes.plot(*zip(*points, strict=True), color=colour(index), lw=0.5, alpha=0.3)
            epochs = sorted({epoch for points in lines for epoch, _ in points})
            mean = [np.mean([value for points in lines for at, value in points if at == epoch]) for epoch in epochs]
            marker = "o" if len(epochs) == 1 else None
            axes.plot(epochs, mean, color=colour(index), ls=line(index), lw=1.5, marker=marker)
        axes.set_xlabel("epoch", color=MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return to_svg(figure, f"{_TOLD[key]} of all arms over epochs")
