"""LogME: how probable the labels are under the best Bayesian linear regression on the features."""

from typing import ClassVar

import numpy as np
from scipy.optimize import minimize_scalar

from mrtransfer.shift.score import Evidence, Score, check_samples
from mrtransfer.shift.scores import SCORES

_REACH = np.log(1e12)  # how far prior and noise may be apart, on either side of the largest eigenvalue
_GRID = 193


def log_me(features: np.ndarray, labels: np.ndarray) -> float:
    """Maximum log evidence per sample, mean over the classes' one-hot targets (You et al., ICML 2021, algorithm 1).

    ``features`` F (N, D), ``labels`` (N,). With w ~ N(0, I/α) and y ~ N(Fw, I/β), the log evidence is
    D/2 ln α + N/2 ln β − ½ Σ ln(α + βσ) − β/2 ‖y − Fm‖² − α/2 ‖m‖² − N/2 ln 2π, with σ the eigenvalues of FᵀF.

    You et al. go to its maximum by a fixed point in (α, β). Here β is eliminated: for a given λ = α/β the best one is
    β = N / (‖y − Fm‖² + λ‖m‖²), and what is left is a function of one number, of which the highest maximum is found on
    a grid and refined. It is the same maximum, reached to full precision. λ stays within 10^±12 of the largest
    eigenvalue, as labels that are exactly linear in the features would have an infinite evidence.
    """
    table, classes = check_samples(features, labels)
    left, singular, _ = np.linalg.svd(table, full_matrices=False)
    kept = singular > singular[0] * max(table.shape) * np.finfo(float).eps
    left, eigenvalues = left[:, kept], singular[kept] ** 2
    targets = (classes[:, None] == np.arange(classes.max() + 1)).astype(float)
    inside = left.T @ targets
    outside = ((targets - left @ inside) ** 2).sum(0)
    found = [_evidence(eigenvalues, z**2, rest, len(table)) for z, rest in zip(inside.T, outside, strict=True)]
    return float(np.mean(found)) / len(table)


def _evidence(eigenvalues: np.ndarray, squares: np.ndarray, outside: float, count: int) -> float:
    """The maximum over λ; ``squares`` (K,) of the target's coordinates in the features' span, ``outside`` the rest."""

    def at(log_ratio: np.ndarray | float) -> np.ndarray:
        shrunk = 1 / (1 + eigenvalues * np.exp(-np.asarray(log_ratio))[..., None])  # λ / (λ + σ)
        misfit = outside + shrunk @ squares  # ‖y − Fm‖² + λ‖m‖²
        return 0.5 * (np.log(shrunk).sum(-1) + count * (np.log(count / (2 * np.pi * misfit)) - 1))

    centre = np.log(eigenvalues[0])
    grid = np.linspace(centre - _REACH, centre + _REACH, _GRID)
    best = int(np.argmax(values := at(grid)))
    around = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    refined = minimize_scalar(lambda log_ratio: -float(at(log_ratio)), bounds=around, options={"xatol": 1e-9})
    return max(float(values[best]), -float(refined.fun))


@SCORES.register("logme")
class LogMe(Score):
    """Log evidence of the labels under Bayesian linear regression."""

    name: ClassVar[str] = "logme"
    words: ClassVar[str] = "LogME"

    def value(self, evidence: Evidence) -> float:
        """See :func:`log_me`."""
        return log_me(*evidence.samples)
