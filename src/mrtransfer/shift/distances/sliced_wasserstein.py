"""Sliced Wasserstein distance: optimal transport in one dimension, averaged over random directions."""

from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from mrtransfer.shift.distance import Distance, Prepared, check_tables
from mrtransfer.shift.distances import DISTANCES
from mrtransfer.shift.parts import Parts
from mrtransfer.shift.weighed import pooled_rows

Order = Literal[1, 2]
_NUMBERS_AT_ONCE = 1 << 16  # sorted values looked at together: half a MiB, what a cache holds


def sliced_wasserstein(
    x: np.ndarray, y: np.ndarray, *, projections: int = 200, order: Order = 2, seed: int = 0
) -> float:
    """(mean over directions θ of W_p(xθ, yθ)^p)^(1/p) of ``x`` (n, d) and ``y`` (m, d), in the features' unit.

    Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters". p is ``order``: with 2 the root of the mean squared
    W2, with 1 the mean W1. W in one dimension is the integral over the exact quantile functions, whatever n and m.
    Directions are uniform on the sphere, a function of ``seed`` and d. Raises :class:`UserError` as
    :func:`check_tables` does.
    """
    x, y = check_tables(x, y)
    directions = random_directions(x.shape[1], projections, seed)
    along_x, along_y = (np.sort(directions @ table.astype(np.float64).T, axis=1) for table in (x, y))
    return float(_powers(along_x, along_y, order).mean() ** (1 / order))


def random_directions(width: int, number: int, seed: int) -> np.ndarray:
    """``number`` unit vectors (number, width), uniform on the sphere."""
    directions = np.random.default_rng([seed, 3, width]).normal(size=(number, width))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _powers(along_x: np.ndarray, along_y: np.ndarray, order: Order) -> np.ndarray:
    """W_p^p (P,) between sorted values (P, n) and (P, m), row by row: ∫₀¹ |F⁻¹(u) − G⁻¹(u)|^p du."""
    if along_x.shape == along_y.shape:
        gaps = along_x - along_y
        return np.abs(gaps).mean(1) if order == 1 else np.einsum("pn,pn->p", gaps, gaps) / gaps.shape[1]
    of_x, of_y, widths = _steps(along_x.shape[1], along_y.shape[1])
    gaps = along_x[:, of_x] - along_y[:, of_y]
    return np.abs(gaps) @ widths if order == 1 else (gaps * gaps) @ widths


@lru_cache(maxsize=8)
def _steps(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The intervals of (0, 1) on which both quantile functions are constant: which value each has there, and widths.

    In whole numbers (of 1/nm), so that steps which both functions share are one step.
    """
    edges = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    return (edges - 1) // m, (edges - 1) // n, np.diff(edges, prepend=0) / (n * m)


@DISTANCES.register("sliced_wasserstein")
class SlicedWasserstein(Distance):
    """Sliced Wasserstein: how far values must move, averaged over random directions."""

    name: ClassVar[str] = "sliced_wasserstein"
    words: ClassVar[str] = "sliced Wasserstein distance"

    projections: int = Field(200, ge=1)
    """Random directions; the error that comes of their number is in the details."""
    order: Order = 2
    """2: root of the mean squared W2; 1: mean of W1."""

    def prepare(self, x: np.ndarray, y: np.ndarray, parts: Parts, seed: int) -> "PreparedSliced":
        """Get ready for tables ``x`` (n, d) and ``y`` (m, d) whose rows belong to ``parts``; directions by ``seed``."""
        return PreparedSliced(x, y, parts, random_directions(x.shape[1], self.projections, seed), self.order)


class PreparedSliced(Prepared):
    """All rows are sorted once along every direction; a labelling only picks from them, in order."""

    def __init__(self, x: np.ndarray, y: np.ndarray, parts: Parts, directions: np.ndarray, order: Order) -> None:
        rows, part = pooled_rows(x, y, parts)
        in_x = parts.in_x[part]
        self._pooled = _Sorted(rows, part, directions)
        self._x, self._y = _Sorted(rows[in_x], part[in_x], directions), _Sorted(rows[~in_x], part[~in_x], directions)
        self._directions, self._order = len(directions), order
        step = max(1, _NUMBERS_AT_ONCE // len(rows))
        self._blocks = [slice(start, start + step) for start in range(0, len(directions), step)]
        self.value = float(self.relabelled(parts.in_x[None])[0])

    def relabelled(self, first: np.ndarray) -> np.ndarray:
        """The distance (B,) where the parts marked in ``first`` (B, K) are X and all others are Y."""
        ones = np.ones(first.shape, np.intp)
        return self._root(self._pooled, self._pooled, np.where(first, ones, 0), np.where(first, 0, ones))

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """The distance (B,) where each part is there as often as ``weights`` (B, K) says."""
        return self._root(self._x, self._y, weights.astype(np.intp), weights.astype(np.intp))

    def _root(self, from_x: "_Sorted", from_y: "_Sorted", to_x: np.ndarray, to_y: np.ndarray) -> np.ndarray:
        """The distance (B,) of rows picked ``to_x`` and ``to_y`` (B, K) times, a cacheful of directions at a time."""
        total = np.zeros(len(to_x))
        for block in self._blocks:
            for row, (x, y) in enumerate(zip(to_x, to_y, strict=True)):
                total[row] += _powers(from_x.picked(x, block), from_y.picked(y, block), self._order).sum()
        return (total / self._directions) ** (1 / self._order)

    @property
    def details(self) -> dict[str, Any]:
        """Directions, the order, and the standard error of the value that comes of finitely many directions."""
        powers = _powers(self._x.values, self._y.values, self._order)
        error = float(powers.std(ddof=1) / np.sqrt(len(powers))) if len(powers) > 1 else np.nan
        slope = self.value ** (1 - self._order) / self._order if self.value > 0 else np.nan
        return {"projections": self._directions, "order": self._order, "projection_error": error * slope}


class _Sorted:
    """Values (P, n) of rows along every direction, sorted, and the part of each."""

    def __init__(self, rows: np.ndarray, part: np.ndarray, directions: np.ndarray) -> None:
        along = directions @ rows.T
        places = np.argsort(along, axis=1, kind="stable")
        self.values = np.take_along_axis(along, places, axis=1)
        self._part = part.astype(np.intp)[places]

    def picked(self, weights: np.ndarray, block: slice) -> np.ndarray:
        """Values (p, rows) along the directions of ``block``, of parts taken ``weights`` (K,) times, still sorted."""
        values, part = self.values[block], self._part[block]
        if weights.max() > 1:
            return np.repeat(values.ravel(), weights[part].ravel()).reshape(len(values), -1)
        there = (weights > 0)[part].ravel()
        return values.ravel().compress(there).reshape(len(values), -1)  # several times faster than values[there]
