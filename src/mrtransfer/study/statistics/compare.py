"""Paired differences between two arms, corrected for their number, and what each of them says."""

from typing import Any, Literal

import numpy as np
from scipy import stats

from mrtransfer.common.multiplicity import holm
from mrtransfer.study.statistics.bootstrap import Bootstrap, Estimate
from mrtransfer.study.statistics.pool import Cell
from mrtransfer.study.statistics.words import count_of

Verdict = Literal["helps", "hurts", "no meaningful difference", "too little data to say"]
ALPHA = 0.05
POWER = 0.8
FEWEST_UNITS = 6  # with fewer, not even units that all agree reach p < 0.05 in a sign-flip test (2 / 2^U)
FEWEST_SEEDS = 2  # with one, nothing is known of the chance in training


def compare_arms(
    bootstrap: Bootstrap, pairs: list[tuple[str, str]], metrics: list[str], main: str, margin: float
) -> list[dict[str, Any]]:
    """One entry per pair, metric and budget: a − b, interval, p, Holm's p, verdict, and what was detectable.

    Holm's family is all pairs and budgets of one metric. The margin, and so the verdict, belongs to the main metric;
    the other metrics are there to be read (their ``verdict`` is None).
    """
    entries: list[dict[str, Any]] = []
    for metric in [main, *(name for name in metrics if name != main)]:
        family = [
            compared(bootstrap, (a, budget), (b, budget), metric)
            for a, b in pairs
            for budget in bootstrap.pool.compared(a, b)
        ]
        for entry, corrected in zip(family, holm([entry["p"] for entry in family]), strict=True):
            entry |= {"p_holm": corrected, "primary": metric == main, "verdict": None, "reason": None}
            if metric == main:
                entry["verdict"], entry["reason"] = judge(
                    entry, margin, bootstrap.pool.unit_count, bootstrap.measures.sign(metric)
                )
        entries += family
    return entries


def compared(bootstrap: Bootstrap, a: Cell, b: Cell, metric: str) -> dict[str, Any]:
    """The paired difference a − b over the seeds that both have; ``budget`` and ``labelled`` are those of the larger.

    Nothing is judged yet, and no p is corrected.
    """
    pool, cells = bootstrap.pool, (a, b)
    seeds = pool.seeds(*cells)
    spent = {pool.labelled[cell]: cell[1] for cell in cells if pool.spends(cell[0])}
    entry: dict[str, Any] = {
        "a": a[0],
        "b": b[0],
        "budget": spent[max(spent)] if spent else a[1],
        "labelled": max(spent, default=0),
        "metric": metric,
        "seeds": len(seeds),
    }
    if not seeds:
        empty = dict.fromkeys(("difference", "low", "high", "p", "detectable"), float("nan"))
        return entry | empty | {"per_seed": []}
    found: Estimate = bootstrap.estimate(
        bootstrap.values(cells[0], metric, seeds) - bootstrap.values(cells[1], metric, seeds), metric, difference=True
    )
    testable = len(seeds) >= FEWEST_SEEDS and pool.unit_count >= FEWEST_UNITS
    return entry | {
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "p": bootstrap.p_value(found) if testable else float("nan"),
        "detectable": _detectable(found) if testable and found.error > 0 else float("nan"),
        "per_seed": found.per_seed.tolist(),
    }


def _detectable(found: Estimate) -> float:
    """The smallest true difference that a two-sided 5 % test shows with 80 % power: some 2.8 standard errors.

    The quantiles are Student's with the estimate's degrees of freedom (1.96 + 0.84 where these are many), so that this
    number and the interval speak of the same design.
    """
    return float(stats.t.ppf(1 - ALPHA / 2, found.degrees) + stats.t.ppf(POWER, found.degrees)) * found.error


def judge(entry: dict[str, Any], margin: float, units: int, sign: int) -> tuple[Verdict, str]:
    """The verdict on one comparison in the main metric (``sign`` +1: more is better), and the reason in a few words.

    * ``helps`` / ``hurts``: Holm's p below 0.05, the interval excludes zero, and the difference is at least the margin;
    * ``no meaningful difference``: the whole interval lies inside the margin, significant or not;
    * ``too little data to say``: everything else, and every design with fewer than two shared seeds or six units.
    """
    if units < FEWEST_UNITS:
        test_units = count_of(units, "independent test unit")
        return "too little data to say", f"only {test_units}; at least {FEWEST_UNITS} are needed"
    if entry["seeds"] < FEWEST_SEEDS:
        return "too little data to say", "fewer than two seeds, so nothing is known of the chance in training"
    low, high = entry["low"], entry["high"]
    if not (np.isfinite(low) and np.isfinite(high)):
        return "too little data to say", "the metric is undefined on these test samples"
    clear = low > 0 or high < 0
    if clear and entry["p_holm"] < ALPHA and abs(entry["difference"]) >= margin:
        good = entry["difference"] * sign > 0
        return ("helps" if good else "hurts"), "beyond the margin, and beyond chance"
    if _inside(low, high, margin):
        return "no meaningful difference", "the whole interval lies inside the margin"
    if not clear:
        return "too little data to say", "the interval spans zero and reaches beyond the margin"
    if entry["p_holm"] >= ALPHA:
        return "too little data to say", "not beyond chance once corrected for the number of comparisons"
    return "too little data to say", "beyond chance, but perhaps smaller than the margin"


def _inside(low: float, high: float, margin: float) -> bool:
    return -margin < low and high < margin
