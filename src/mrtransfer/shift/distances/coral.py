"""How far the covariances are apart: the CORAL distance (Sun and Saenko 2016, "Deep CORAL", equation 1)."""

from typing import Any, ClassVar

import numpy as np

from mrtransfer.shift.distance import Distance, check_tables
from mrtransfer.shift.distances import DISTANCES
from mrtransfer.shift.parts import Parts
from mrtransfer.shift.weighed import Weighed, part_starts, pooled_rows

_NUMBERS_AT_ONCE = 1 << 24  # of the moments of all parts, or of one block of inner products of rows: 128 MiB


def coral_distance(x: np.ndarray, y: np.ndarray) -> float:
    """‖C_x − C_y‖²_F / (4 d²) of the covariances (n − 1) of ``x`` (n, d) and ``y`` (m, d).

    Blind to a shift of the mean. Grows with the fourth power of the features' scale, so features of unlike units
    should be standardised first. Raises :class:`UserError` as :func:`check_tables` does.
    """
    x, y = check_tables(x, y)
    difference = np.cov(x, rowvar=False, dtype=np.float64) - np.cov(y, rowvar=False, dtype=np.float64)
    return float((difference**2).sum() / (4 * x.shape[1] ** 2))


@DISTANCES.register("coral")
class Coral(Distance):
    """CORAL: squared difference of the two covariance matrices.

    The value is blind to means. Its p, like every distance's, is of the hypothesis that the domains are one: relabelled
    domains of unlike means have larger covariances than the observed ones, so that p errs towards 1 there.
    """

    name: ClassVar[str] = "coral"
    words: ClassVar[str] = "covariance shift (CORAL)"

    def prepare(self, x: np.ndarray, y: np.ndarray, parts: Parts, seed: int) -> "PreparedCoral":
        """Get ready for tables ``x`` (n, d) and ``y`` (m, d) whose rows belong to ``parts``; nothing is random."""
        return PreparedCoral(x, y, parts)


class PreparedCoral(Weighed):
    """No covariance is ever formed for a labelling: what its norm needs is linear in the parts.

    With uncentred moments M_k = Z_kᵀZ_k of the parts, M = Σ w_k M_k and the mean μ, (n − 1) C = M − n μμᵀ, and
    ⟨C, C'⟩ needs only ⟨M_k, M_l⟩, a (K, K) matrix that is computed once, and μᵀM_kμ = Σ (zᵀμ)² over the rows of k.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, parts: Parts) -> None:
        self._rows, part = pooled_rows(x, y, parts)
        super().__init__(parts, len(self._rows))
        self._starts = part_starts(part)
        self._counts = np.bincount(part).astype(np.float64)
        self._sums = np.add.reduceat(self._rows, self._starts)
        self._inner = _inner_products(self._rows, part, self._starts)
        self.observe()

    def _values(self, to_x: np.ndarray, to_y: np.ndarray) -> np.ndarray:
        n, m = to_x @ self._counts, to_y @ self._counts
        mean_x, mean_y = (to_x @ self._sums) / n[:, None], (to_y @ self._sums) / m[:, None]
        along_x, along_y = self._along(mean_x), self._along(mean_y)
        cross = self._products(to_x, to_y) - m * _dots(to_x, along_y) - n * _dots(to_y, along_x)
        cross += n * m * _dots(mean_x, mean_y) ** 2
        of_x = self._products(to_x, to_x) - 2 * n * _dots(to_x, along_x) + (n * _dots(mean_x, mean_x)) ** 2
        of_y = self._products(to_y, to_y) - 2 * m * _dots(to_y, along_y) + (m * _dots(mean_y, mean_y)) ** 2
        n, m = np.maximum(n - 1, 1), np.maximum(m - 1, 1)
        squared = of_x / n**2 + of_y / m**2 - 2 * cross / (n * m)
        return np.maximum(squared, 0) / (4 * self._rows.shape[1] ** 2)

    def _products(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """⟨Σ left_k M_k, Σ right_k M_k⟩ (B,)."""
        return _dots(left @ self._inner, right)

    def _along(self, means: np.ndarray) -> np.ndarray:
        """μᵀM_kμ (B, K) for ``means`` (B, d)."""
        return np.add.reduceat((self._rows @ means.T) ** 2, self._starts).T

    @property
    def details(self) -> dict[str, Any]:
        """The number of features."""
        return {"features": self._rows.shape[1]}


def _dots(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("bi,bi->b", left, right)


def _inner_products(rows: np.ndarray, part: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """⟨M_k, M_l⟩ (K, K) of the parts' moments, from the moments or, where those are too large, from pairs of rows."""
    width, number = rows.shape[1], len(starts)
    if number * width**2 <= _NUMBERS_AT_ONCE:
        moments = np.stack([(own.T @ own).ravel() for own in np.split(rows, starts[1:])])
        return moments @ moments.T
    inner = np.zeros((number, number))
    step = max(1, _NUMBERS_AT_ONCE // len(rows))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        squares = (rows[block] @ rows.T) ** 2
        np.add.at(inner, part[block], np.add.reduceat(squares, starts, axis=1))
    return inner
