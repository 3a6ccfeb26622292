"""FROC in the report: a drawing per region, a table of the points and scores, and the rows of the CSV."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import NullLocator

from mrtransfer.study.report.canvas import MUTED, colour, line, marker, new_figure, styled, to_svg
from mrtransfer.tasks.segmentation.froc import FROC_RATES

RATES = tuple(np.union1d(np.geomspace(FROC_RATES[0], FROC_RATES[-1], 97), FROC_RATES).tolist())
"""False positives per subject between which the curves are drawn."""
_POINTS = [RATES.index(rate) for rate in FROC_RATES]


def froc_view(
    found: Mapping[str, Any] | None, curves: Mapping[str, Mapping[str, np.ndarray]], order: Sequence[str]
) -> dict[str, Any] | None:
    """The results' ``froc`` ready to print; ``curves`` (region to arm to sensitivities at :data:`RATES`) are drawn."""
    if not found:
        return None
    groups = []
    for region in dict.fromkeys(entry["region"] for entry in found["arms"]):
        entries = [entry for entry in found["arms"] if entry["region"] == region]
        best = max(entry["score"] for entry in entries)
        rows = [
            {
                "arm": entry["arm"],
                "index": order.index(entry["arm"]),
                "cells": [_percent(value) for value in entry["sensitivity"]],
                "score": _percent(entry["score"]),
                "seeds": _between(entry["per_seed"]),
                "best": len(entries) > 1 and entry["score"] == best,
            }
            for entry in entries
        ]
        lesions = entries[0]["lesions"]
        groups.append({"region": region, "lesions": f"{lesions:,} lesion{'' if lesions == 1 else 's'}", "rows": rows})
    return {
        "rule": found["rule"],
        "rates": [_rate(rate) for rate in found["rates"]],
        "groups": groups,
        "panels": [(region, _drawn(region, curves[region], order)) for region in curves],
        "notes": found["notes"],
    }


def froc_rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The results' ``froc`` as rows of the tidy table: points, scores, and scores seed by seed."""
    several = len({entry["region"] for entry in found["arms"]}) > 1
    for entry in found["arms"]:
        prefix = f"{entry['region']}/" if several else ""
        common = {key: entry[key] for key in ("arm", "budget", "labelled")} | {"metric": f"{prefix}froc"}
        yield common | {"record": "arm", "value": entry["score"]}
        for seed, score in zip(entry["seeds"], entry["per_seed"], strict=True):
            yield common | {"record": "seed", "seed": seed, "value": score}
        for rate, value in zip(found["rates"], entry["sensitivity"], strict=True):
            yield common | {"record": "arm", "metric": f"{prefix}froc_at_{rate:g}", "value": value}


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _between(scores: Sequence[float]) -> str:
    """``61.2–70.3``, the lowest and the highest seed; nothing of a single one."""
    return f"{_percent(min(scores))}–{_percent(max(scores))}" if len(scores) > 1 else ""


def _rate(rate: float) -> str:
    """``1/8``, ``2``."""
    return f"{rate:g}" if rate >= 1 else f"1/{1 / rate:g}"


def _drawn(region: str, curves: Mapping[str, np.ndarray], order: Sequence[str]) -> Markup:
    with styled():
        figure, (axes,) = new_figure(2.6, 2.35)
        for index, arm in enumerate(order):
            if arm in curves:
                axes.plot(RATES, curves[arm], color=colour(index), ls=line(index), marker=marker(index),
                          markevery=_POINTS, ms=3.2)  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(FROC_RATES, [_rate(rate) for rate in FROC_RATES])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(ylim=(-0.01, 1.01), yticks=(0, 0.5, 1))
        axes.set_yticklabels(("0", "0.5", "1"))
        axes.set_xlabel("false positives per subject")
        axes.set_title("sensitivity", fontweight="normal", color=MUTED)
        return to_svg(figure, f"FROC of {region}: share of lesions found against false positives per subject, by arm")
