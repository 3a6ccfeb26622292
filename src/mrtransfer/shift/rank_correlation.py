"""Do scores rank arms as their gains do? Rank correlations with intervals, and a p value that few arms deserve."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations as every_order
from math import factorial
from typing import Any

import numpy as np
from scipy import stats

from mrtransfer.common.errors import UserError

FEWEST = 5
"""Units below which no order can be told from chance: even five reach no less than p = 2/5! = 0.017."""
_Z = float(stats.norm.ppf(0.975))
_SAME = 1e-12


@dataclass(frozen=True)
class RankCorrelation:
    """Kendall's τ-b and Spearman's ρ with 95 % intervals; NaN where undefined or too few to say."""

    values: int
    """Pairs of numbers that could be compared with another."""
    units: int
    """How many different ones: what the test exchanges."""
    kendall: float
    kendall_low: float
    kendall_high: float
    spearman: float
    spearman_low: float
    spearman_high: float
    p: float
    """Two-sided, of Kendall's τ."""
    smallest_p: float
    """What this design could at best have shown."""
    exact: bool
    """Whether every order of the units was tried."""

    def to_json(self) -> dict[str, Any]:
        """All of it, by name."""
        return dict(vars(self))


def smallest_p(units: int) -> float:
    """The smallest two-sided p of a rank correlation: the right order and its reverse, among ``units``! of them."""
    return min(1.0, 2 / factorial(units))


def rank_correlation(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    *,
    units: Sequence[Any] | np.ndarray | None = None,
    strata: Sequence[Any] | np.ndarray | None = None,
    permutations: int = 9999,
    seed: int = 0,
) -> RankCorrelation:
    """How far the order of ``x`` (n,) agrees with that of ``y`` (n,).

    Args:
        x: a score; the same for all values of a unit.
        y: what it should foretell.
        units: who carries the score (n,), where several values come from one: these are not compared with each other,
            and scores change hands unit by unit. By default each value is its own.
        strata: values are compared within one only (n,); by default all are in the same.
        permutations: where there are more orders than that, so many random ones are drawn from ``seed``.

    τ-b (Kendall 1945) is the sum over comparable pairs of sign(Δx) sign(Δy), over the root of the numbers of pairs that
    differ in x and in y. ρ is the correlation of ranks within strata. p is the share of the orders of the units' scores
    whose |τ| is as large: exact, or (1 + #)/(B + 1). The intervals are Fisher's with the variances 0.437/(k − 4) for τ
    (Fieller, Hartley & Pearson, Biometrika 1957) and (1 + ρ²/2)/(k − 3) for ρ (Bonett & Wright, Psychometrika 2000), k
    being the number of units, from :data:`FEWEST` on; a perfect order is taken as half a pair short of it, for which
    the transformation is finite. They are about other units like these, and take ``y`` as measured.

    Raises :class:`UserError` for different lengths, values that are not finite, and units with more than one score.
    """
    found = _checked(x, y, units, strata)
    if found is None:
        nan = float("nan")
        return RankCorrelation(0, 0, nan, nan, nan, nan, nan, nan, nan, 1.0, True)
    score, values, unit, stratum = found
    first, second = np.triu_indices(len(values), 1)
    comparable = (unit[first] != unit[second]) & (stratum[first] == stratum[second])
    first, second = first[comparable], second[comparable]
    signs = np.sign(values[first] - values[second])
    count = len(score)

    def tau(scores: np.ndarray) -> np.ndarray:
        """(B,) of scores (B, k)."""
        steps = np.sign(scores[:, unit[first]] - scores[:, unit[second]])
        untied = (steps**2).sum(1) * (signs**2).sum()
        return np.divide(steps @ signs, np.sqrt(untied), out=np.full(len(steps), np.nan), where=untied > 0)

    kendall = float(tau(score[None])[0])
    spearman = _spearman(score[unit], values, stratum)
    p, least, exact = _permuted(tau, score, kendall, permutations, seed)
    return RankCorrelation(
        len(values),
        count,
        kendall,
        *_interval(kendall, 0.437 / (count - 4) if count >= FEWEST else np.nan, 1 / len(first)),
        spearman,
        *_interval(
            spearman, (1 + spearman**2 / 2) / (count - 3) if count >= FEWEST else np.nan, 6 / (count**3 - count)
        ),
        p,
        least,
        exact,
    )


def _checked(x: Any, y: Any, units: Any, strata: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Scores (k,) of units; values, units and strata (n,) of what can be compared; None where nothing can be."""
    scores, values = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if scores.ndim != 1 or scores.shape != values.shape:
        raise UserError(f"rank correlation: {scores.size} scores and {values.size} values; right is one of each")
    if not (np.isfinite(scores).all() and np.isfinite(values).all()):
        raise UserError("rank correlation: some numbers are NaN or infinite; leave these pairs out")
    own = np.arange(len(values))
    unit = own if units is None else np.unique(np.asarray(units), return_inverse=True)[1]
    stratum = 0 * own if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    if not len(unit) == len(stratum) == len(values):
        raise UserError(f"rank correlation: {len(unit)} units, {len(stratum)} strata, {len(values)} values")
    kept = np.array([len(set(unit[stratum == one])) > 1 for one in stratum], dtype=bool)
    if not kept.any():
        return None
    _, first, unit = np.unique(unit[kept], return_index=True, return_inverse=True)
    scores = scores[kept]
    if not np.array_equal(scores, scores[first][unit]):
        raise UserError("rank correlation: a unit has more than one score; it must be the same for all its values")
    return scores[first], values[kept], unit, stratum[kept]


def _spearman(scores: np.ndarray, values: np.ndarray, strata: np.ndarray) -> float:
    centred = np.zeros((2, len(values)))
    for stratum in np.unique(strata):
        own = strata == stratum
        for row, numbers in zip(centred, (scores, values), strict=True):
            ranks = stats.rankdata(numbers[own])
            row[own] = ranks - ranks.mean()
    spread = np.sqrt((centred**2).sum(1).prod())
    return float(centred[0] @ centred[1] / spread) if spread > 0 else float("nan")


def _permuted(
    tau: Callable[[np.ndarray], np.ndarray], score: np.ndarray, observed: float, number: int, seed: int
) -> tuple[float, float, bool]:
    """p, the smallest p, and whether it is exact."""
    if not np.isfinite(observed):
        return float("nan"), 1.0, True
    exact = factorial(len(score)) <= number
    if exact:
        orders = np.array(list(every_order(range(len(score)))))
    else:
        orders = np.random.default_rng(seed).permuted(np.tile(np.arange(len(score)), (number, 1)), axis=1)
    drawn = np.abs(np.nan_to_num(tau(score[orders])))  # an order that ties all that is compared shows nothing
    larger = int(np.count_nonzero(drawn >= abs(observed) - _SAME))
    if exact:
        return larger / len(drawn), float(np.mean(drawn >= drawn.max() - _SAME)), True
    return (1 + larger) / (number + 1), 1 / (number + 1), False


def _interval(value: float, variance: float, step: float) -> tuple[float, float]:
    """Fisher's; ``step``: by how much a perfect value is taken to fall short."""
    if not (np.isfinite(value) and np.isfinite(variance)):
        return float("nan"), float("nan")
    inside = float(np.clip(value, step - 1, 1 - step))
    low, high = np.tanh(np.arctanh(inside) + _Z * np.sqrt(variance) * np.array([-1, 1]))
    return (-1.0 if value <= _SAME - 1 else float(low)), (1.0 if value >= 1 - _SAME else float(high))
