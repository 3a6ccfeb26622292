"""The Fréchet distance between two Gaussians fitted to the features (FID where they come from a network)."""

from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from scipy import linalg

from mrtransfer.shift.distance import Distance, check_tables
from mrtransfer.shift.distances import DISTANCES
from mrtransfer.shift.parts import Parts
from mrtransfer.shift.weighed import Weighed, part_starts, pooled_rows

_MOMENTS = 1 << 25  # numbers in the second moments of all parts: 256 MiB at most, else they are summed each time


def frechet_distance(x: np.ndarray, y: np.ndarray, *, components: int | None = None) -> float:
    """‖μ_x − μ_y‖² + tr(C_x + C_y − 2 (C_x C_y)^½) of ``x`` (n, d) and ``y`` (m, d): the squared distance, as FID is.

    Dowson and Landau 1982; Heusel et al. 2017, equation 6. Covariances are divided by n − 1. It is biased upwards, much
    so unless n and m are far above d; ``components`` first projects both tables on so many principal components of
    the two together. Raises :class:`UserError` as :func:`check_tables` does.
    """
    x, y = check_tables(x, y)
    x, y = x.astype(np.float64), y.astype(np.float64)
    if components is not None:
        pooled = np.concatenate([x, y])
        projected, _ = principal_components(pooled - pooled.mean(0), components)
        x, y = projected[: len(x)], projected[len(x) :]
    half_x, half_y = _half(x), _half(y)
    both = linalg.svdvals(half_x @ half_y.T).sum()
    squared = ((x.mean(0) - y.mean(0)) ** 2).sum() + (half_x**2).sum() + (half_y**2).sum() - 2 * both
    return max(float(squared), 0.0)


def _half(table: np.ndarray) -> np.ndarray:
    """A of d columns and at most d rows with AᵀA = C. tr (C_x C_y)^½ is the sum of the singular values of A_x A_yᵀ."""
    half = (table - table.mean(0)) / np.sqrt(len(table) - 1)
    return half if len(half) <= half.shape[1] else linalg.qr(half, mode="r", check_finite=False)[0][: half.shape[1]]


def principal_components(rows: np.ndarray, number: int | None) -> tuple[np.ndarray, float]:
    """Centred ``rows`` (N, d) on their first ``number`` principal axes, and the share of variance that these hold.

    Without a number only what is constant is left out: nothing where N > d, else N − 1 axes hold everything.
    """
    count, width = rows.shape
    number = min(number or width, width, count - 1)
    if number == width:
        return rows, 1.0
    wide = width > count
    values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1][:, :number]
    projected = vectors * np.sqrt(values[:number]) if wide else rows @ vectors
    return projected, float(values[:number].sum() / values.sum())


@DISTANCES.register("frechet")
class Frechet(Distance):
    """Fréchet distance of two Gaussians (FID), on the main components of both domains together."""

    name: ClassVar[str] = "frechet"
    words: ClassVar[str] = "Fréchet distance"

    components: int | None = Field(64, ge=1)
    """Principal components of both domains together that are compared; null: all, which needs far more rows, and at
    2,048 features about an hour for 1,000 relabellings and as many resamples."""

    def prepare(self, x: np.ndarray, y: np.ndarray, parts: Parts, seed: int) -> "PreparedFrechet":
        """Get ready for tables ``x`` (n, d) and ``y`` (m, d) whose rows belong to ``parts``; nothing is random."""
        return PreparedFrechet(x, y, parts, self.components)


class PreparedFrechet(Weighed):
    """Means and covariances of any labelling are sums over the parts' moments, computed once."""

    def __init__(self, x: np.ndarray, y: np.ndarray, parts: Parts, components: int | None) -> None:
        rows, part = pooled_rows(x, y, parts)
        self._rows, self._kept = principal_components(rows, components)
        self._part, width = part, self._rows.shape[1]
        super().__init__(parts, width**2)
        starts = part_starts(part)
        self._counts = np.bincount(part).astype(np.float64)
        self._sums = np.add.reduceat(self._rows, starts)
        self._moments: np.ndarray | None = None
        if parts.count * width**2 <= _MOMENTS:
            self._moments = np.stack([(own.T @ own).ravel() for own in np.split(self._rows, starts[1:])])
        self._fewest = min(len(x), len(y))
        self.observe()

    def _values(self, to_x: np.ndarray, to_y: np.ndarray) -> np.ndarray:
        mean_x, cov_x = self._gaussian(to_x)
        mean_y, cov_y = self._gaussian(to_y)
        traces = np.trace(cov_x, axis1=1, axis2=2) + np.trace(cov_y, axis1=1, axis2=2)
        squared = ((mean_x - mean_y) ** 2).sum(1) + traces - 2 * _trace_of_root(cov_x, cov_y)
        return np.maximum(squared, 0)

    def _gaussian(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means (B, d) and covariances (B, d, d) of parts taken ``weights`` (B, K) times."""
        count = (weights @ self._counts)[:, None, None]
        mean = (weights @ self._sums) / count[:, 0]
        if self._moments is not None:
            moments = weights @ self._moments
        else:
            moments = np.stack([(self._rows * one[self._part, None]).T @ self._rows for one in weights])
        centred = moments.reshape(len(mean), mean.shape[1], -1) - count * mean[:, :, None] * mean[:, None, :]
        return mean, centred / np.maximum(count - 1, 1)

    @property
    def details(self) -> dict[str, Any]:
        """Components and the variance they hold; a note where the rows are too few for them."""
        width = self._rows.shape[1]
        found: dict[str, Any] = {"components": width, "variance_kept": self._kept}
        if self._fewest <= width:
            found["note"] = (
                f"{self._fewest} rows are too few for a covariance of {width} components: the value is far too large, "
                "and is only good for comparison with its null; take fewer components, or the distance kid"
            )
        return found


def _trace_of_root(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """tr (C C')^½ (B,) of covariances (B, d, d): roots of the eigenvalues of Fᵀ C' F, where F Fᵀ = C.

    F is the Cholesky factor, or, where a covariance is singular (few rows), comes from its eigenvalues. Eigenvalues
    below rounding count as 0: their roots would not be small.
    """
    tiny = left.shape[1] * np.finfo(float).eps
    try:
        factor = np.linalg.cholesky(left)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(left)
        factor = vectors * np.sqrt(np.where(values > tiny * values[:, -1:], values, 0))[:, None, :]
    values = np.linalg.eigvalsh(np.swapaxes(factor, 1, 2) @ right @ factor)
    return np.sqrt(np.where(values > tiny * values[:, -1:], values, 0)).sum(1)
