"""LEEP: how well the source model's own predictions tell the target's classes apart."""

from typing import ClassVar

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.shift.score import Evidence, Score, check_classes
from mrtransfer.shift.scores import SCORES

_OFF = 1e-3  # by which single-precision probabilities may miss a sum of one


def leep(source_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Log expected empirical prediction (Nguyen et al., ICML 2020): (1/N) Σᵢ ln Σ_z P̂(yᵢ|z) θ(xᵢ)_z, at most 0.

    ``source_probabilities`` θ (N, Z), rows that sum to 1, over the source's classes z; ``labels`` y (N,) of the target.
    P̂(y|z) comes from the mean of θ(x)_z over the samples of y. Raises :class:`UserError` for what are no
    probabilities, and for fewer than two target classes.
    """
    theta = np.asarray(source_probabilities, dtype=np.float64)
    if theta.ndim != 2 or not theta.size:
        raise UserError(f"source predictions: have shape {theta.shape}; right is one row of probabilities per sample")
    if not np.isfinite(theta).all() or theta.min() < 0 or np.abs(theta.sum(1) - 1).max() > _OFF:
        raise UserError("source predictions: are no probabilities; each row must be positive numbers that sum to 1")
    classes = check_classes(labels, len(theta))
    of_class = (classes == np.arange(classes.max() + 1)[:, None]).astype(float)
    joint = of_class @ theta / len(theta)  # (C, Z)
    source = joint.sum(0)
    conditional = np.divide(joint, source, out=np.zeros_like(joint), where=source > 0)
    return float(np.log(np.einsum("iz,iz->i", conditional[classes], theta)).mean())


@SCORES.register("leep")
class Leep(Score):
    """Log likelihood of the target's labels given the source model's predictions."""

    name: ClassVar[str] = "leep"
    words: ClassVar[str] = "LEEP"
    needs: ClassVar[tuple[str, ...]] = ("source_probabilities", "labels")

    def value(self, evidence: Evidence) -> float:
        """See :func:`leep`."""
        theta, labels = evidence.source_probabilities, evidence.labels
        if theta is None or labels is None:
            raise ValueError("predictions or labels are not known")
        return leep(theta, labels)
