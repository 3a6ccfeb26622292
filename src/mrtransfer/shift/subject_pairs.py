"""The maximum mean discrepancy of subjects that are relabelled or drawn again, from sums over pairs of rows."""

from dataclasses import dataclass

import numpy as np

from mrtransfer.shift.parts import Parts

_CELLS = 2**20  # of a table (B, K) that are turned into floats together


@dataclass(frozen=True, eq=False)
class SubjectPairs:
    """How sums of a kernel over pairs of rows become an unbiased estimate.

    Pairs of rows of *different* subjects always count. Pairs of one subject are correlated: they make the distance too
    large within a domain and too small between domains, and so count only where ``within`` says so (never i = j).
    A subject that is drawn several times is several subjects: its copies are never compared with each other.
    """

    parts: Parts
    own: np.ndarray  # (K,) sum over pairs i ≠ j of rows of the part
    crossed: np.ndarray  # (P,) sum over pairs of a row in X and one in Y of the same subject
    within: bool
    squares: np.ndarray | None = None
    """(K,) sum over all pairs of rows of the part, i = j included, where sums over parts hold pairs of one subject
    (wₐ² times the square and wₐ w_b times what crosses), which are then taken out of them."""

    @property
    def words(self) -> str:
        """Which pairs are compared."""
        return "rows, also of one subject" if self.within else "rows of different subjects"

    @property
    def rows(self) -> np.ndarray:
        """(K,) how many rows each part has."""
        return np.bincount(np.concatenate([self.parts.of_x, self.parts.of_y]), minlength=self.parts.count).astype(float)

    def estimate(
        self, first: np.ndarray, weights: np.ndarray | None, xx: np.ndarray, xy: np.ndarray, yy: np.ndarray
    ) -> np.ndarray:
        """The discrepancy (B,) where the parts ``first`` (B, K) or (1, K) are X, each taken ``weights`` (B, K) times.

        ``xx``, ``xy``, ``yy`` (B,): Σ wₐ w_b Σ k over parts a, b of different subjects, both in X, one in each, both
        in Y; each unordered pair within a domain is there twice.
        """
        found = np.empty(len(xx))
        step = max(1, _CELLS // self.parts.count)
        for start in range(0, len(xx), step):
            part = slice(start, start + step)
            labels = np.broadcast_to(first, (len(xx), self.parts.count))[part]
            taken = labels.astype(float) if weights is None else weights[part] * labels
            left = ~labels if weights is None else weights[part] * ~labels
            found[part] = self._estimate(taken, left.astype(float), xx[part], xy[part], yy[part])
        return found

    def _estimate(self, u: np.ndarray, v: np.ndarray, xx: np.ndarray, xy: np.ndarray, yy: np.ndarray) -> np.ndarray:
        n, (a, b) = self.rows, self.parts.pairs.T
        pairs_x = (u @ n) ** 2 - u**2 @ n**2
        pairs_y = (v @ n) ** 2 - v**2 @ n**2
        crossing = u[:, a] * v[:, b] + v[:, a] * u[:, b]
        pairs_xy = (u @ n) * (v @ n) - crossing @ (n[a] * n[b])
        if self.squares is not None:
            xx, xy, yy = xx - u**2 @ self.squares, xy - crossing @ self.crossed, yy - v**2 @ self.squares
        if self.within:
            xx, pairs_x = xx + u @ self.own, pairs_x + u @ (n * (n - 1))
            yy, pairs_y = yy + v @ self.own, pairs_y + v @ (n * (n - 1))
            both = (u + v)[:, a]
            xy, pairs_xy = xy + both @ self.crossed, pairs_xy + both @ (n[a] * n[b])
        return xx / pairs_x + yy / pairs_y - 2 * xy / pairs_xy
