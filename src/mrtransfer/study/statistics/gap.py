"""Which share of the gap between source-only and an oracle an arm closes that never saw a label of the target.

    share = (adapted − source-only) / (oracle − source-only)

0: no better than the source model as it is; 1: as good as with the target's labels; negative: worse than doing nothing.

A ratio of two means that both have errors, and errors in common (the same test units, the same source-only scores),
has no symmetric interval, and a resampled ratio explodes wherever its denominator comes near to zero. The interval
here is Fieller's (Journal of the Royal Statistical Society B 1954, 16:175): all shares ρ for which
(adapted − source-only) − ρ · (oracle − source-only) cannot be told from zero, by the bootstrap over units and seeds
that makes all other intervals of the study. It is bounded just where the oracle's advantage is clearly not zero;
elsewhere there is no gap whose share could be told, and none is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from mrtransfer.common.multiplicity import holm
from mrtransfer.common.plain import plain
from mrtransfer.study.statistics.bootstrap import Bootstrap, Estimate
from mrtransfer.study.statistics.compare import compared, judge
from mrtransfer.study.statistics.measures import Measures
from mrtransfer.study.statistics.pool import Budget, Cell, Outcome, pool
from mrtransfer.study.statistics.words import Words, named, sentence

RULE = (
    "Share of the gap closed: (adapted − source-only) / (oracle − source-only), with Fieller's 95 % interval (1954) "
    "from the bootstrap over test units and seeds. Where the oracle's own advantage is not clearly above zero, there "
    "is no gap of which a share could be told. Whether an arm helps is judged as any other comparison, corrected "
    "(Holm) for the number of arms that adapt."
)
_FARTHEST = 2.0**20
"""Shares beyond this are as good as unbounded."""


@dataclass(frozen=True)
class Gap:
    """Arms by name: the source model as it is, one that learned from the target's labels, and those in between."""

    source_only: str
    oracle: str
    adapted: tuple[str, ...]


def gaps_closed(
    gaps: Sequence[Gap],
    outcomes: Sequence[Outcome],
    labels: np.ndarray,
    units: np.ndarray,
    *,
    measures: Measures,
    main: str,
    margin: float,
    resamples: int = 2000,
    seed: int = 0,
    unit: str = "subject",
) -> dict[str, Any]:
    """What every adapted arm of ``gaps`` closes at its largest budget, ready for JSON.

    ``outcomes``, ``labels``, ``units``, ``measures``, ``main``, ``margin``, ``resamples`` and ``unit``: as of
    :func:`~mrtransfer.study.statistics.analysis.analyse`, and with the same ``seed`` the same resamples.

    Returns:
        ``rule``, ``metric``, ``margin``, ``unit`` and ``gaps``: of each ``source_only``, ``oracle``, ``budget`` and
        ``labelled`` of the oracle, its ``advantage`` with ``low`` and ``high``, whether that is ``clear``, a
        ``sentence``, and ``arms``: the comparison with source-only as in a study's ``comparisons``, ``share`` with
        ``share_low`` and ``share_high`` (None where the gap is not clear), and a ``sentence``.
    """
    wanted = {name for gap in gaps for name in (gap.source_only, gap.oracle, *gap.adapted)}
    pooled = pool([one for one in outcomes if one.arm in wanted], labels, units)
    family = sum(len(gap.adapted) for gap in gaps)
    bootstrap = Bootstrap(pooled, measures, [main], max(resamples, 80 * family), seed)
    words = Words(measures, main, margin, unit, "Adaptation")
    found = [_gap(bootstrap, gap, main) for gap in gaps]
    entries = [entry for gap in found for entry in gap["arms"]]
    for entry, corrected in zip(entries, holm([entry["p"] for entry in entries]), strict=True):
        entry["p_holm"] = corrected
        entry["verdict"], entry["reason"] = judge(entry, margin, pooled.unit_count, measures.sign(main))
    for gap in found:
        gap["sentence"] = sentence(_gap_in_words(gap, words))
        for entry in gap["arms"]:
            entry["sentence"] = sentence(_arm_in_words(entry, gap, words))
    return plain({"rule": RULE, "metric": main, "margin": margin, "unit": unit, "gaps": found})


def _gap(bootstrap: Bootstrap, gap: Gap, metric: str) -> dict[str, Any]:
    """The oracle's advantage, and the shares of it."""
    base, oracle = _last(bootstrap, gap.source_only), _last(bootstrap, gap.oracle)
    advantage = _difference(bootstrap, oracle, base, metric)
    sign = bootstrap.measures.sign(metric)
    clear = min(sign * advantage.low, sign * advantage.high) > 0
    arms = []
    for name in gap.adapted:
        entry = compared(bootstrap, _last(bootstrap, name), base, metric)
        entry |= dict.fromkeys(("share", "share_low", "share_high"), np.nan)
        if clear:
            share = share_closed(bootstrap, _last(bootstrap, name), base, oracle, metric)
            entry |= dict(zip(("share", "share_low", "share_high"), share, strict=True))
        arms.append(entry)
    return {
        "source_only": gap.source_only,
        "oracle": gap.oracle,
        "budget": oracle[1],
        "labelled": bootstrap.pool.labelled[oracle],
        "advantage": advantage.value,
        "low": advantage.low,
        "high": advantage.high,
        "clear": bool(clear),
        "arms": arms,
    }


def _last(bootstrap: Bootstrap, arm: str) -> Cell:
    """The arm with the most labels that it has, which is all the same for those that see none."""
    budget: Budget = bootstrap.pool.budgets(arm)[-1]
    return arm, budget


def _difference(bootstrap: Bootstrap, a: Cell, b: Cell, metric: str) -> Estimate:
    seeds = bootstrap.pool.seeds(a, b)
    return bootstrap.estimate(
        bootstrap.values(a, metric, seeds) - bootstrap.values(b, metric, seeds), metric, difference=True
    )


def share_closed(
    bootstrap: Bootstrap, adapted: Cell, source_only: Cell, oracle: Cell, metric: str
) -> tuple[float, float, float]:
    """The share of the gap that ``adapted`` closes, and the ends of its 95 % interval (infinite where unbounded)."""
    seeds = bootstrap.pool.seeds(adapted, source_only, oracle)
    values = [bootstrap.values(cell, metric, seeds) for cell in (adapted, source_only, oracle)]
    return fieller(bootstrap, values[0] - values[1], values[2] - values[1], metric)


def fieller(
    bootstrap: Bootstrap, numerator: np.ndarray, denominator: np.ndarray, metric: str
) -> tuple[float, float, float]:
    """The ratio of two means over seeds of (S, 1 + B), and the ends of its 95 % interval.

    The interval holds all ratios ρ for which the interval of numerator − ρ · denominator holds zero.
    """
    ratio = float(numerator[:, 0].mean() / denominator[:, 0].mean())

    def outside(share: float) -> float:
        """Below 0 where ``share`` is in the interval; continuous, with its sign where the interval ends."""
        found = bootstrap.estimate(numerator - share * denominator, metric, difference=True)
        return max(found.low, -found.high)

    if not np.isfinite(outside(ratio)):
        return ratio, float("nan"), float("nan")
    return ratio, _end(outside, ratio, -1), _end(outside, ratio, 1)


def _end(outside: Any, ratio: float, side: int) -> float:
    """Where the interval ends below (``side`` −1) or above (+1) the ratio, which is in it."""
    inside, step = ratio, 2.0**-6
    if outside(ratio) >= 0:  # no chance in it: the interval is a point
        return ratio
    while outside(ratio + side * step) < 0:
        inside, step = ratio + side * step, 2 * step
        if step > _FARTHEST:
            return side * float("inf")
    return float(brentq(outside, inside, ratio + side * step, xtol=1e-6))


def _gap_in_words(gap: dict[str, Any], words: Words) -> str:
    """How large the gap is, or that there is none."""
    oracle, base = named(gap["oracle"]), named(gap["source_only"])
    labelled = words.budget(gap["budget"], gap["labelled"])
    if not np.isfinite(gap["low"]):
        return f"no gap can be told between {base} and {oracle}: too few independent test {words.unit}s"
    interval = words.interval(gap["low"], gap["high"])
    amount = words.amount(gap["advantage"])
    if not gap["clear"]:
        return f"no gap to close: {oracle}, with {labelled}, is not clearly better than {base} ({amount}, {interval})"
    return f"the gap is {words.amount(abs(gap['advantage']))} ({interval}): {oracle}, with {labelled}, against {base}"


def _arm_in_words(entry: dict[str, Any], gap: dict[str, Any], words: Words) -> str:
    """What the arm closes; where it does not help, that."""
    arm, base = named(entry["a"]), named(entry["b"])
    kind, measured = entry["verdict"], words.amount(entry["difference"])
    known = np.isfinite(entry["low"])
    measured += f", {words.interval(entry['low'], entry['high'])}" if known else ""
    open_ = f"whether {arm} helps is open ({entry['reason']}"
    if gap["clear"] and known:
        closed = f"{_percent(entry['share'])} ({_interval(entry)}) of the gap"
        return {
            "helps": f"{arm} closes {closed} between {base} and {named(gap['oracle'])}",
            "hurts": f"{arm} hurts: it is worse than {base} ({measured}) and closes {closed}",
            "no meaningful difference": f"{arm} does not help: it differs from {base} by less than "
            f"{words.amount(words.margin)} ({measured}) and closes {closed}",
            "too little data to say": f"{open_}): it closes {closed}",
        }[kind]
    return {
        "helps": f"{arm} is better than {base} ({measured})",
        "hurts": f"{arm} hurts: it is worse than {base} ({measured})",
        "no meaningful difference": f"{arm} does not help: it differs from {base} by less than "
        f"{words.amount(words.margin)} ({measured})",
        "too little data to say": f"{open_}; difference from {base}: {measured})",
    }[kind]


def _interval(entry: dict[str, Any]) -> str:
    low, high = entry["share_low"], entry["share_high"]
    if not (np.isfinite(low) and np.isfinite(high)):
        return "95 % interval without bounds"
    return f"95 % interval {_percent(low)} to {_percent(high)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %".replace("-0 %", "0 %").replace("-", "−")
