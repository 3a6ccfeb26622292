"""H-score with a shrunk covariance: how much of the features' variance lies between the classes."""

from typing import ClassVar

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.covariance import ledoit_wolf

from mrtransfer.shift.score import Evidence, Score, check_samples
from mrtransfer.shift.scores import SCORES


def h_score(features: np.ndarray, labels: np.ndarray) -> float:
    """(1 − α) tr(Σ_α⁻¹ Σ_g) (Ibrahim, Ponomareva & Mazumder, ECML-PKDD 2022; without shrinkage: Bao et al. 2019).

    ``features`` (N, D), ``labels`` (N,). Σ_α = (1 − α) Σ + α tr(Σ)/D · I is the Ledoit–Wolf estimate of the covariance
    and α its shrinkage, Σ_g the covariance of the class means (a sample counts as its class's mean). Without shrinkage
    the inverse explodes as soon as features outnumber samples.
    """
    table, classes = check_samples(features, labels)
    table = table - table.mean(0)
    shrunk, shrinkage = ledoit_wolf(table, assume_centered=True)
    counts = np.bincount(classes)
    sums = np.zeros((len(counts), table.shape[1]))
    np.add.at(sums, classes, table)
    between = sums / np.sqrt(counts * len(table))[:, None]  # its Gram matrix is Σ_g
    return float((1 - shrinkage) * np.einsum("dc,cd->", cho_solve(cho_factor(shrunk), between.T), between))


@SCORES.register("h_score")
class HScore(Score):
    """Variance between classes against all variance, shrunk."""

    name: ClassVar[str] = "h_score"
    words: ClassVar[str] = "H-score (shrunk)"

    def value(self, evidence: Evidence) -> float:
        """See :func:`h_score`."""
        return h_score(*evidence.samples)
