"""GBC: how little the classes overlap, each taken as a Gaussian."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from mrtransfer.common.errors import UserError
from mrtransfer.shift.score import Evidence, Score, check_samples
from mrtransfer.shift.scores import SCORES
from mrtransfer.shift.scores.nleep import principal

Gaussian = Literal["diagonal", "spherical"]
_FLOOR = 1e-10  # least variance, as a share of the mean one: a class may be constant along an axis


def gaussian_bhattacharyya(
    features: np.ndarray, labels: np.ndarray, *, components: int = 64, gaussian: Gaussian = "diagonal"
) -> float:
    """−Σ_{i≠j} exp(−D_B(i, j)) over ordered pairs of classes (Pándy et al., CVPR 2022), at most 0.

    ``features`` (N, D), ``labels`` (N,). On ``components`` principal components every class is a Gaussian with a
    ``diagonal`` or ``spherical`` covariance; D_B = ⅛ Δμᵀ Σ⁻¹ Δμ + ½ ln(|Σ| / √(|Σᵢ||Σⱼ|)), Σ = (Σᵢ + Σⱼ)/2, is the
    Bhattacharyya distance. Raises :class:`UserError` where a class has only one sample, and so no variance.
    """
    table, classes = check_samples(features, labels)
    counts = np.bincount(classes)
    if counts.min() < 2:
        raise UserError("labels: a class has only one sample; its variance needs two or more, so merge or drop it")
    projected = principal(table, most=components)
    groups = [projected[classes == number] for number in range(len(counts))]
    means = np.stack([group.mean(0) for group in groups])
    variances = np.stack([group.var(0) for group in groups])
    if gaussian == "spherical":
        variances = np.broadcast_to(variances.mean(1, keepdims=True), variances.shape)
    variances = np.maximum(variances, _FLOOR * projected.var(0).mean())
    first, second = np.triu_indices(len(counts), 1)
    middle = (variances[first] + variances[second]) / 2
    apart = ((means[first] - means[second]) ** 2 / middle).sum(1) / 8
    spread = (np.log(middle) - (np.log(variances[first]) + np.log(variances[second])) / 2).sum(1) / 2
    return float(-2 * np.exp(-apart - spread).sum())


@SCORES.register("gbc")
class Gbc(Score):
    """Negative overlap of the classes as Gaussians (Bhattacharyya)."""

    name: ClassVar[str] = "gbc"
    words: ClassVar[str] = "GBC"

    components: int = Field(64, ge=1)
    gaussian: Gaussian = "diagonal"

    def value(self, evidence: Evidence) -> float:
        """See :func:`gaussian_bhattacharyya`."""
        return gaussian_bhattacharyya(*evidence.samples, components=self.components, gaussian=self.gaussian)
