"""What a distance between two domains is, and how sure it is: permutations and bootstrap, both over subjects."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from mrtransfer.common.named import Named, parse_named
from mrtransfer.shift.distances import DISTANCES
from mrtransfer.shift.parts import Parts
from mrtransfer.shift.tables import check_tables

__all__ = ["DISTANCES", "Distance", "Found", "Prepared", "check_tables", "measure", "parse_distance"]

_ROUNDING = 1e-9  # relative: values that differ by less are one value, computed in another order


class Prepared(ABC):
    """One distance between two given tables, ready to meet other labellings of the same parts."""

    value: float
    """The observed distance."""

    @abstractmethod
    def relabelled(self, first: np.ndarray) -> np.ndarray:
        """The distance (B,) float64 where the parts marked in ``first`` (B, K) bool are X and all others are Y."""

    @abstractmethod
    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """The distance (B,) float64 where each part is there as often as ``weights`` (B, K) int says.

        Where the estimator leaves out pairs i = j, copies of one subject are not compared with each other either.
        """

    @property
    def details(self) -> dict[str, Any]:
        """What else is worth knowing (gamma, number of features …), as JSON can write it."""
        return {}

    def meet(self, first: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`relabelled` and :meth:`resampled`; for those that can do both in one pass over the data."""
        return self.relabelled(first), self.resampled(weights)


class Distance(Named):
    """How far apart two domains are. A subclass in ``shift/distances/`` adds the settings as fields."""

    words: ClassVar[str] = ""  # "maximum mean discrepancy (RBF)"
    unbiased: ClassVar[bool] = False  # True: zero on average where both domains are one

    @abstractmethod
    def prepare(self, x: np.ndarray, y: np.ndarray, parts: Parts, seed: int) -> Prepared:
        """Get ready for tables ``x`` (n, d) and ``y`` (m, d) whose rows belong to ``parts``."""


@dataclass(frozen=True)
class Found:
    """A distance, and how sure it is."""

    distance: dict[str, Any]  # name and settings
    words: str
    value: float
    low: float  # 95 % interval over subjects
    high: float
    p: float  # of the hypothesis that subjects of both domains come from one
    smallest_p: float  # what could be shown at best, with these subjects and so many relabellings
    exact: bool  # p is over all relabellings there are
    relabellings: int  # how many p is over
    null_mean: float  # of the distance over relabellings
    null_sd: float
    normalised: float  # (value − null_mean) / null_sd: comparable between pairs of domains
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON can write them, to 9 significant digits: a distance may be far below 1e-6."""
        return _written(asdict(self))


def measure(
    distance: Distance,
    x: np.ndarray,
    y: np.ndarray,
    units_x: np.ndarray,
    units_y: np.ndarray,
    *,
    permutations: int = 1000,
    resamples: int = 1000,
    seed: int = 0,
) -> Found:
    """``distance`` between ``x`` (n, d) and ``y`` (m, d), rows of the subjects ``units_x`` (n,) and ``units_y`` (m,).

    p: the share of relabellings of whole subjects that reach the observed value: all of them where there are no more
    than ``permutations``, the observed one among them; otherwise (1 + number that reach it) / (``permutations`` + 1)
    (Phipson and Smyth 2010).

    Interval: 2.5 % and 97.5 % of the values over ``resamples`` bootstrap samples of subjects. A biased distance is
    larger in every such sample than it should be, as a sample has fewer different subjects; its values are first moved
    so that their mean is the observed value. They then say how sure this value is for so many subjects, and not what
    it would be for infinitely many. No bootstrap is trusted where both domains are one; that is what p is for.

    With no permutations or no resamples p or the interval are NaN. Raises :class:`UserError` as
    :func:`check_tables` does.
    """
    x, y = check_tables(x, y, units_x, units_y)
    parts = Parts.of(units_x, units_y)
    prepared = distance.prepare(x, y, parts, seed)
    relabellings = parts.relabellings(permutations, seed)
    null, again = prepared.meet(relabellings.first, parts.resamples(resamples, seed))
    value = float(prepared.value)
    null_mean, null_sd = (float(null.mean()), float(null.std())) if len(null) else (np.nan, np.nan)
    low, high = _interval(value, again, distance.unbiased)
    exact = relabellings.exact
    return Found(
        distance=distance.model_dump(),
        words=distance.words,
        value=value,
        low=low,
        high=high,
        p=_p_value(value, null, exact),
        smallest_p=parts.smallest_p if exact else max(parts.smallest_p, 1 / (len(null) + 1)),
        exact=exact,
        relabellings=len(null),
        null_mean=null_mean,
        null_sd=null_sd,
        normalised=(value - null_mean) / null_sd if null_sd > 0 else np.nan,
        details=prepared.details,
    )


def _written(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_written(item) for item in value]
    if isinstance(value, np.generic):
        return _written(value.item())
    if isinstance(value, float):
        return float(f"{value:.9g}") if np.isfinite(value) else None
    return value


def _p_value(value: float, null: np.ndarray, exact: bool) -> float:
    if not len(null):
        return np.nan
    scale = max(abs(value), float(np.abs(null).max()))
    reach = int((null >= value - _ROUNDING * scale).sum())
    return reach / len(null) if exact else (1 + reach) / (1 + len(null))


def _interval(value: float, again: np.ndarray, unbiased: bool) -> tuple[float, float]:
    if not len(again):
        return np.nan, np.nan
    moved = again if unbiased else again - again.mean() + value
    low, high = np.quantile(moved, [0.025, 0.975])
    return float(low), float(high)


def parse_distance(value: Any, where: str = "distances") -> Distance:
    """A distance from a recipe or the command line: see :func:`~mrtransfer.common.named.parse_named`."""
    found: Distance = parse_named(value, DISTANCES, where, alias="distance")
    return found
