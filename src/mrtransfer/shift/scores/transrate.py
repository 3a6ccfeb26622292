"""TransRate: mutual information of features and labels, by the length of their code."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from mrtransfer.shift.score import Evidence, Score, check_samples
from mrtransfer.shift.scores import SCORES


def trans_rate(features: np.ndarray, labels: np.ndarray, epsilon: float = 1e-4) -> float:
    """R(Z) − Σ_c (n_c/N) R(Z_c) with R(Z) = ½ ln det(I + ZᵀZ/(nε)) (Huang et al., ICML 2022), in nats.

    ``features`` (N, D), ``labels`` (N,); Z are the features minus their mean, Z_c those of one class (not centred
    again), ``epsilon`` the distortion that the code may have. Classes weigh as many samples as they have.
    """
    table, classes = check_samples(features, labels)
    table = table - table.mean(0)
    shares = np.bincount(classes) / len(table)
    within = sum(share * _rate(table[classes == number], epsilon) for number, share in enumerate(shares))
    return float(_rate(table, epsilon) - within)


def _rate(rows: np.ndarray, epsilon: float) -> float:
    """R(Z) of (n, D); the smaller of the two Gram matrices has the same determinant."""
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    return 0.5 * float(np.linalg.slogdet(np.eye(len(gram)) + gram / (len(rows) * epsilon))[1])


@SCORES.register("transrate")
class TransRate(Score):
    """Coding rate of all samples beyond that of the classes."""

    name: ClassVar[str] = "transrate"
    words: ClassVar[str] = "TransRate"

    epsilon: float = Field(1e-4, gt=0)

    def value(self, evidence: Evidence) -> float:
        """See :func:`trans_rate`."""
        return trans_rate(*evidence.samples, self.epsilon)
