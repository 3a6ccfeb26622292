"""How many labels one arm saves against another, read off the two label-budget curves."""

from typing import Any

import numpy as np

from mrtransfer.study.statistics.bootstrap import LEVEL, Bootstrap


def label_saving(bootstrap: Bootstrap, a: str, b: str, metric: str) -> dict[str, Any] | None:
    """The number of labelled units with which ``a`` reaches what ``b`` reaches with its most.

    Between budgets the curve is taken as straight in the logarithm of the number of labels. The interval is a
    percentile interval over the same resamples of units and seeds; ``open`` (and ``high`` infinite) says that ``a`` may
    not get there at all, and ``at_most`` that ``a`` is there at its smallest budget already, so may need still fewer
    (of one there are none fewer). None where the arms share no seed, ``a`` has a single budget or never sees a label,
    or ``b`` spends no labels that could be saved.
    """
    pool = bootstrap.pool
    budgets, last = pool.budgets(a), pool.budgets(b)[-1]
    cells = [(a, budget) for budget in budgets]
    seeds = pool.seeds(*cells, (b, last))
    labels = np.array([pool.labelled[cell] for cell in cells], dtype=float)
    if len(budgets) < 2 or not seeds or not labels.all() or not pool.spends(b):
        return None
    sign = bootstrap.measures.sign(metric)
    curve = np.stack([sign * bootstrap.mean(bootstrap.values(cell, metric, seeds)) for cell in cells], axis=1)
    goal = sign * bootstrap.mean(bootstrap.values((b, last), metric, seeds))
    needed = first_crossing(labels, curve, goal)
    usable = needed[1:][~np.isnan(needed[1:])]
    if np.isnan(needed[0]) or not len(usable):
        return None
    # an interval between two resamples would mix a number with infinity, so a resample itself is taken
    low, high = np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    spent, fewest = pool.labelled[b, last], labels.min()
    return {
        "a": a,
        "b": b,
        "metric": metric,
        "b_labels": spent,
        "b_score": float(sign * goal[0]),
        "a_labels": float(needed[0]),
        "low": float(low),
        "high": float(high),
        "reached": bool(np.isfinite(needed[0])),
        "at_most": bool(1 < needed[0] <= fewest),
        "low_at_most": bool(1 < low <= fewest),
        "open": bool(np.isinf(high)),
        "share_reached": float(np.isfinite(usable).mean()),
        "factor": spent / float(needed[0]),
        "largest": int(labels.max()),
        "seeds": len(seeds),
    }


def first_crossing(labels: np.ndarray, curves: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Where each curve first reaches its goal, log-linear between its points.

    Args:
        labels: numbers of labels (K,), rising, above zero.
        curves: scores (R, K), higher is better.
        goals: scores to reach (R,).

    Returns:
        (R,): at least ``labels[0]``; infinity where the goal is not reached, NaN where a score is undefined.
    """
    reached = curves >= goals[:, None]
    step = reached.argmax(1)
    before = np.maximum(step - 1, 0)
    every = np.arange(len(curves))
    rise = curves[every, step] - curves[every, before]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(step > 0, (goals - curves[every, before]) / rise, 0.0)
        found = np.exp(np.log(labels[before]) + part * (np.log(labels[step]) - np.log(labels[before])))
    found[~reached.any(1)] = np.inf
    found[np.isnan(curves).any(1) | np.isnan(goals)] = np.nan
    return found
