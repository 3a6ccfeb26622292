"""NLEEP: LEEP where the source has no classes, with the components of a Gaussian mixture in their place."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from sklearn.mixture import GaussianMixture

from mrtransfer.common.errors import UserError
from mrtransfer.shift.score import Evidence, Score, check_samples
from mrtransfer.shift.scores import SCORES
from mrtransfer.shift.scores.leep import leep

Covariance = Literal["diag", "full"]


def n_leep(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    energy: float = 0.8,
    per_class: int = 5,
    covariance: Covariance = "diag",
    seed: int = 0,
) -> float:
    """LEEP of the posterior of a Gaussian mixture on principal components (Li et al., CVPR 2021).

    ``features`` (N, D), ``labels`` (N,). So many principal components are kept as hold ``energy`` of the variance; the
    mixture has ``per_class`` components for each class, but at most one for every two samples. ``covariance``:
    ``diag`` by default, as full matrices cannot be estimated from the few samples that a component has here. ``seed``
    is that of the mixture's start.
    """
    table, classes = check_samples(features, labels)
    projected = principal(table, energy)
    count = min(per_class * (int(classes.max()) + 1), len(table) // 2)
    if count < 2:
        raise UserError(f"features: {len(table)} samples are too few for a mixture of two Gaussians; four are needed")
    projected = projected / projected.std()  # the mixture's floor of variance is absolute
    mixture = GaussianMixture(count, covariance_type=covariance, random_state=seed, max_iter=200)
    return leep(mixture.fit(projected).predict_proba(projected), classes)


def principal(table: np.ndarray, energy: float = 1.0, most: int | None = None) -> np.ndarray:
    """(N, K) scores on the fewest principal components that hold ``energy`` of the variance, at most ``most``."""
    left, singular, _ = np.linalg.svd(table - table.mean(0), full_matrices=False)
    held = np.cumsum(singular**2) / (singular**2).sum()
    count = min(int(np.searchsorted(held, energy * (1 - 1e-12))) + 1, len(singular))
    return (left * singular)[:, : min(count, most or count)]


@SCORES.register("nleep")
class NLeep(Score):
    """LEEP of a Gaussian mixture's components instead of source classes."""

    name: ClassVar[str] = "nleep"
    words: ClassVar[str] = "NLEEP"

    energy: float = Field(0.8, gt=0, le=1)
    per_class: int = Field(5, ge=1)
    covariance: Covariance = "diag"
    seed: int = Field(0, ge=0)

    def value(self, evidence: Evidence) -> float:
        """See :func:`n_leep`."""
        settings = {name: getattr(self, name) for name in type(self).model_fields}
        return n_leep(*evidence.samples, **settings)
