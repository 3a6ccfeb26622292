"""Proxy A-distance: how well a classifier tells the domains of subjects apart that it has not seen."""

from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from mrtransfer.common.errors import UserError
from mrtransfer.shift.distance import Distance, Prepared, check_tables
from mrtransfer.shift.distances import DISTANCES
from mrtransfer.shift.parts import Parts
from mrtransfer.shift.weighed import pooled_rows

_NUMBERS_AT_ONCE = 1 << 21  # rows × labellings met together: 16 MiB an array
_TIE = 1e-10  # scores this close to the threshold are on it: half a mistake


def proxy_a_distance(
    x: np.ndarray, y: np.ndarray, units_x: np.ndarray, units_y: np.ndarray, *, shrinkage: float | None = None
) -> float:
    """2 (1 − 2ε), at least 0, where ε is a domain classifier's balanced error on subjects left out of its training.

    Ben-David et al. 2007, "Analysis of representations for domain adaptation". ``x`` (n, d) and ``y`` (m, d) are rows
    of the subjects ``units_x`` (n,) and ``units_y`` (m,); a subject found in both is left out with its rows of both.
    0: cannot be told apart; 2: always. The classifier and ``shrinkage`` are described at :class:`ProxyA`. Raises
    :class:`UserError` as :func:`check_tables` does, and where a domain has fewer than two subjects.
    """
    x, y = check_tables(x, y, units_x, units_y)
    return PreparedProxyA(x, y, Parts.of(units_x, units_y), shrinkage).value


@DISTANCES.register("proxy_a")
class ProxyA(Distance):
    """Proxy A-distance: 2 (1 − 2ε) of a domain classifier tested on subjects it has not seen.

    The classifier is a regularised linear discriminant on standardised features: the direction is
    (S + λI)⁻¹(μ_x − μ_y) with the covariance S of all its training rows, the threshold is halfway between the
    training rows' mean scores in X and in Y, so that unequal domains make no difference.
    """

    name: ClassVar[str] = "proxy_a"
    words: ClassVar[str] = "proxy A-distance"

    shrinkage: float | None = Field(None, gt=0, lt=1)
    """Share ρ of the identity in the covariance, λ = ρ / (1 − ρ) · mean variance; null: as Ledoit and Wolf (2004)
    estimate it from all rows, without labels."""

    def prepare(self, x: np.ndarray, y: np.ndarray, parts: Parts, seed: int) -> "PreparedProxyA":
        """Get ready for tables ``x`` (n, d) and ``y`` (m, d) whose rows belong to ``parts``; nothing is random."""
        return PreparedProxyA(x, y, parts, self.shrinkage)


class PreparedProxyA(Prepared):
    """Every labelling's classifiers, one for each subject left out, from one decomposition of the rows.

    That direction is the one of ridge regression on ±1 with an intercept, whose fitted values Hy are linear in the
    labels y. Left out, subject k has the values y_k − (I − H_kk)⁻¹(y − Hy)_k, and the fit of all other rows is that of
    labels in which y_k is replaced by these values (Cook 1977; for groups, Hawkins 1980). H = UUᵀ with U (N, r + 1).
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, parts: Parts, shrinkage: float | None) -> None:
        rows, part = pooled_rows(x, y, parts)
        by_subject = np.lexsort((part, parts.subject[part]))
        self._part = part[by_subject]
        self._in_x = parts.in_x
        self._counts = np.bincount(part).astype(np.float64)
        self._shrinkage = shrinkage
        self._features = rows.shape[1]
        self._factor, self._used = _hat_factor(_standardised(rows[by_subject]), shrinkage)
        changes = np.flatnonzero(np.diff(parts.subject[self._part], prepend=-1, append=-1))
        self._subjects = [slice(start, stop) for start, stop in pairwise(changes)]
        self._leave_out = [_LeftOut(self._factor[own]) for own in self._subjects]
        self._wrong = self._mistakes(self._in_x[None])[0]
        self.value = float(self._distance(self._in_x[None], ~self._in_x[None], self._wrong[None])[0])

    def relabelled(self, first: np.ndarray) -> np.ndarray:
        """The distance (B,) where the parts marked in ``first`` (B, K) are X; all classifiers are trained anew."""
        found = np.empty(len(first))
        step = max(1, _NUMBERS_AT_ONCE // len(self._part))
        for start in range(0, len(first), step):
            block = first[start : start + step]
            found[start : start + step] = self._distance(block, ~block, self._mistakes(block))
        return found

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """The distance (B,) where the mistakes on each part count as often as ``weights`` (B, K) says.

        The classifiers stay as they are: trained on copies of subjects they would be worse than on so many subjects.
        """
        return self._distance(np.where(self._in_x, weights, 0), np.where(self._in_x, 0, weights), self._wrong[None])

    def _distance(self, to_x: np.ndarray, to_y: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        error_x = (to_x * wrong).sum(1) / (to_x @ self._counts)
        error_y = (to_y * wrong).sum(1) / (to_y @ self._counts)
        return np.maximum(2 * (1 - error_x - error_y), 0.0)

    def _mistakes(self, first: np.ndarray) -> np.ndarray:
        """How many rows of each part (B, K) are on the wrong side, for classifiers that have not seen their subject."""
        in_x = first.T[self._part].astype(np.float64)  # (N, B)
        labels = 2 * in_x - 1
        fit = self._factor @ (self._factor.T @ labels)
        score, threshold = np.empty_like(fit), np.empty_like(fit)
        sum_x, sum_all, count_x = (in_x * fit).sum(0), fit.sum(0), in_x.sum(0)
        for own, left_out in zip(self._subjects, self._leave_out, strict=True):
            change = -left_out(labels[own] - fit[own])
            score[own] = labels[own] + change
            own_x = in_x[own]
            others_x = sum_x + ((1 + fit[own]) / 2 * change).sum(0) - (own_x * score[own]).sum(0)
            others_all = sum_all + change.sum(0) - score[own].sum(0)
            rest_x = count_x - own_x.sum(0)
            rest_y = len(fit) - len(own_x) - rest_x
            threshold[own] = (others_x / rest_x + (others_all - others_x) / rest_y) / 2
        margin = (score - threshold) * labels
        wrong = np.where(np.abs(margin) < _TIE, 0.5, margin < 0)
        starts = np.flatnonzero(np.diff(self._part, prepend=-1))
        found = np.empty((len(first), len(self._counts)))
        found[:, self._part[starts]] = np.add.reduceat(wrong, starts).T
        return found

    @property
    def details(self) -> dict[str, Any]:
        """The classifier's regularisation and its balanced error, not clipped at one half."""
        error = [(side * self._wrong).sum() / (side @ self._counts) for side in (self._in_x, ~self._in_x)]
        return {
            "balanced_error": float(np.mean(error)),
            "shrinkage": self._used,
            "features": self._features,
            "left_out": "one subject at a time",
        }


class _LeftOut:
    """r ↦ (I − UUᵀ)⁻¹ r for one subject's rows of U (n, r), by whichever of n and r is smaller."""

    def __init__(self, factor: np.ndarray) -> None:
        count, rank = factor.shape
        self._inner = None if count <= rank else np.linalg.inv(np.eye(rank) - factor.T @ factor)
        self._inverse = np.linalg.inv(np.eye(count) - factor @ factor.T) if self._inner is None else None
        self._factor = factor

    def __call__(self, residual: np.ndarray) -> np.ndarray:
        if self._inverse is not None:
            return self._inverse @ residual
        return residual + self._factor @ (self._inner @ (self._factor.T @ residual))


def _standardised(rows: np.ndarray) -> np.ndarray:
    """Centred ``rows`` with standard deviation 1; constant features, which tell nothing apart, stay 0."""
    spread = rows.std(0)
    return rows / np.where(spread > 0, spread, 1)


def _hat_factor(rows: np.ndarray, shrinkage: float | None) -> tuple[np.ndarray, float]:
    """U (N, r + 1) with H = UUᵀ the hat matrix of ridge regression with an intercept, and the shrinkage used."""
    count, width = rows.shape
    wide = width > count
    values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    values = np.maximum(values, 0)
    used = ledoit_wolf(rows, values) if shrinkage is None else shrinkage
    penalty = values.sum() / width * used / (1 - used)
    if not penalty > 0:
        raise UserError("proxy_a: every feature is constant, so there is nothing that a domain classifier could use")
    roots = np.sqrt(values + penalty)
    fitted = vectors * (np.sqrt(values) / roots) if wide else rows @ (vectors / roots)
    return np.concatenate([np.full((count, 1), 1 / np.sqrt(count)), fitted], axis=1), used


def ledoit_wolf(rows: np.ndarray, values: np.ndarray) -> float:
    """The share of the identity that Ledoit and Wolf (2004) give for centred ``rows`` (N, d), within (0, 1).

    From ``values``, the eigenvalues of the rows' scatter matrix, so that a matrix (d, d) is not needed.
    """
    count, width = rows.shape
    squares = (values**2).sum() / count**2  # ‖S‖²_F
    mean = values.sum() / count / width
    away = squares - width * mean**2
    noise = (((rows**2).sum(1) ** 2).mean() - squares) / count
    return float(np.clip(noise / away if away > 0 else 1.0, 1e-6, 1 - 1e-6))
