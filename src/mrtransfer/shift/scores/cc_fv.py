"""CC-FV, for segmentation: does a class look the same in every case, while the features stay varied?"""

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.shift.score import CaseVoxels, Evidence, Score, check_table
from mrtransfer.shift.scores import SCORES

_SOFTENING = 1e-3  # added to squared distances: voxels of equal features would have infinite energy
_FEWEST = 2  # voxels by which a class of a case has a covariance


def class_consistency(cases: Sequence[CaseVoxels]) -> float:
    """Mean 2-Wasserstein distance between a class's features in two cases of different subjects; lower is better.

    The mean over the pairs of cases that have the class, then over classes. Features of a class in a case are taken as
    a Gaussian, as the authors do: W₂² = ‖Δμ‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½). A class in fewer than two voxels of a case is
    left out there. Raises :class:`UserError` where no class is in two cases.
    """
    means = []
    for number in sorted({number for case in cases for number in case.classes}):
        having = [case for case in cases if len(case.classes.get(number, ())) >= _FEWEST]
        distances = [
            _wasserstein(a.classes[number], b.classes[number])
            for a, b in combinations(having, 2)
            if a.subject != b.subject
        ]
        if distances:
            means.append(float(np.mean(distances)))
    if not means:
        raise UserError("cases: no class occurs in cases of two subjects, so there is nothing to be consistent")
    return float(np.mean(means))


def _wasserstein(x: np.ndarray, y: np.ndarray) -> float:
    """Between Gaussians with the moments of (n, D) and (m, D)."""
    a, b = ((rows - rows.mean(0)) / np.sqrt(len(rows) - 1) for rows in (x, y))
    # With Σ₁ = AᵀA and Σ₂ = BᵀB, tr (Σ₁Σ₂)^½ is the sum of the singular values of ABᵀ: no root of a D × D matrix.
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    squared = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * cross
    return float(np.sqrt(max(squared, 0.0)))


def feature_variety(cases: Sequence[CaseVoxels]) -> float:
    """Mean over cases of 1 / E; higher is better.

    E, the hyperspherical energy (s = 1), is the mean of 1 / ‖vᵢ − vⱼ‖ over pairs of a case's voxels, whose features
    are scaled to length 1: it is high where they crowd together. A voxel of no feature at all stays at the origin.
    """
    return float(np.mean([1 / _energy(case.whole) for case in cases]))


def _energy(rows: np.ndarray) -> float:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    first, second = np.triu_indices(len(unit), 1)
    apart = (unit**2).sum(1)
    squared = apart[first] + apart[second] - 2 * (unit @ unit.T)[first, second]
    return float((1 / np.sqrt(np.maximum(squared, 0) + _SOFTENING)).mean())


def cc_fv(cases: Sequence[CaseVoxels]) -> float:
    """ln(feature variety / class consistency) on one layer's voxel features (Yang et al., MICCAI 2023).

    The paper averages this over the layers of a decoder that was trained whole; here one layer is looked at, the last
    that has transferred weights. Where the authors' published code and their paper differ, this is the paper: variety
    is the inverse energy of voxels on the unit sphere. Raises :class:`UserError` for fewer than two subjects, features
    that are not finite or constant, and cases of different widths.
    """
    if len({case.subject for case in cases}) < 2:
        raise UserError("cases: of fewer than two subjects; consistency is that of a class between subjects")
    widths = {rows.shape[1] for case in cases for rows in (case.whole, *case.classes.values())}
    if len(widths) > 1:
        raise UserError(f"cases: have features of different widths {sorted(widths)}; right is one network for all")
    check_table(np.concatenate([rows for case in cases for rows in (case.whole, *case.classes.values())]))
    known = [
        CaseVoxels(
            case.subject,
            _enough(case.whole.astype(np.float64)),
            {number: rows.astype(np.float64) for number, rows in case.classes.items()},
        )
        for case in cases
    ]
    apart = class_consistency(known)
    if apart == 0:
        raise UserError("cases: every class has the same features in all of them; are they copies of one case?")
    return float(np.log(feature_variety(known) / apart))


def _enough(rows: np.ndarray) -> np.ndarray:
    if len(rows) < _FEWEST:
        raise UserError(f"cases: one has {len(rows)} voxels; variety needs two or more")
    return rows


@SCORES.register("cc_fv")
class CcFv(Score):
    """Class consistency between subjects and feature variety, of voxels."""

    name: ClassVar[str] = "cc_fv"
    words: ClassVar[str] = "CC-FV"
    needs: ClassVar[tuple[str, ...]] = ("cases",)

    def value(self, evidence: Evidence) -> float:
        """See :func:`cc_fv`."""
        assert evidence.cases is not None
        return cc_fv(evidence.cases)
