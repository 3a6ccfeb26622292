"""The plain sentence on whether scores foretold gains: mostly, that so few arms cannot tell."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrtransfer.shift.rank_correlation import FEWEST, smallest_p
from mrtransfer.study.statistics.compare import ALPHA
from mrtransfer.study.statistics.words import count_of


def sentence_of(
    arms: Sequence[dict[str, Any]], correlations: Sequence[dict[str, Any]], scores: Sequence[dict[str, Any]]
) -> str:
    """What can be said of scores at the largest budget, in one sentence; the arguments are those of the results."""
    told = [arm for arm in arms if arm["gains"]]
    last = [entry for entry in correlations if entry["budget"] == correlations[-1]["budget"]] if correlations else []
    units = max((entry["units"] for entry in last), default=0)
    starts = len({arm["start"] for arm in told})
    listed = f"{count_of(len(told), 'arm')} with transferred weights"
    if 1 < starts < len(told):
        listed += f", which start from {starts} different networks"
    if told and not scores:
        return f"Of {listed}, no score could be computed."
    if units < FEWEST:
        return _too_few(listed, units, starts, len(told))
    kinds = {score["name"]: score for score in scores}
    known = [entry for entry in last if np.isfinite(entry["kendall"]) and kinds[entry["score"]]["kind"] != "baseline"]
    if not known:
        return f"Of {listed}, no score or distance tells one from another."
    best = max(known, key=lambda entry: (entry["p_holm"] < ALPHA, abs(entry["kendall"])))
    words = f"{kinds[best['score']]['words']} (Kendall's τ {_tau(best)})"
    if best["p_holm"] < ALPHA:
        reverse = ", but in reverse" if best["kendall"] < 0 and kinds[best["score"]]["kind"] == "score" else ""
        return f"Over {listed}, {words} told the order of the gains beyond chance{reverse}{_beside(last, kinds, best)}."
    tried = sum(bool(np.isfinite(entry["p"])) for entry in correlations)
    return (
        f"Over {listed}, no score's order can be told from chance; the nearest was {words}, and the smallest p with "
        f"{units} {'arms' if starts == len(told) else 'networks'} is 2/{units}! = {smallest_p(units):.2g}, before "
        f"correction for {tried} correlations."
    )


def _too_few(listed: str, units: int, starts: int, arms: int) -> str:
    if starts == 1 < arms:
        return f"Only {listed}, all from the same network: a score is the same for them, so there is no order to tell."
    if units < 2:
        alike = ", and no two of the same method" if starts > 1 else ""
        return f"Only {listed}{alike}: no rank correlation can be told, as there is no order of one."
    what = "arms" if starts == arms else "networks"
    if units < starts:
        listed += f", of which {units} can be compared, being tuned by the same method"
    return (
        f"Only {listed}: no rank correlation can be told from chance; "
        f"the smallest p with {units} {what} is 2/{units}! = {smallest_p(units):.2g}."
    )


def _beside(last: Sequence[dict[str, Any]], kinds: dict[str, dict[str, Any]], best: dict[str, Any]) -> str:
    """How the best baseline did."""
    base = [entry for entry in last if kinds[entry["score"]]["kind"] == "baseline" and np.isfinite(entry["kendall"])]
    if not base:
        return ""
    first = max(base, key=lambda entry: abs(entry["kendall"]))
    surely = abs(best["kendall"]) > abs(first["kendall"])
    return (
        f"; {kinds[first['score']]['words']}, which looks at no sample, has τ {_tau(first)}"
        f"{'' if surely else ', so it was not needed'}"
    )


def _tau(entry: dict[str, Any]) -> str:
    numbers = [f"{entry[key]:.2f}".replace("-", "−") for key in ("kendall", "kendall_low", "kendall_high")]
    return f"{numbers[0]}, 95 % interval {numbers[1]} to {numbers[2]}"
