"""k-nearest-neighbour accuracy: the simplest score, and in large comparisons the hardest to beat."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from mrtransfer.common.errors import UserError
from mrtransfer.shift.score import Evidence, Score, check_samples
from mrtransfer.shift.scores import SCORES

_AT_ONCE = 1 << 22  # distances in memory: 32 MiB


def knn_accuracy(features: np.ndarray, labels: np.ndarray, subjects: np.ndarray, neighbours: int = 5) -> float:
    """Share of samples whose class is that of most of their nearest neighbours among **other subjects**.

    ``features`` (N, D), ``labels`` (N,), ``subjects`` (N,). Slices of one subject look alike and would vote for each
    other, so those of the same subject have no vote. Distances are Euclidean; of equally many votes, the class with the
    smaller index wins, as in scikit-learn. Raises :class:`UserError` for fewer than two subjects, and where a subject's
    samples leave fewer than ``neighbours`` others. (Sorkhei et al. 2025, arXiv 2503.18528, find no score that does
    better.)
    """
    table, classes = check_samples(features, labels)
    names, who = np.unique(np.asarray(subjects), return_inverse=True)
    if len(who) != len(table):
        raise UserError(f"subjects: {len(who)} for {len(table)} samples; right is one name per sample")
    if len(names) < 2:
        raise UserError("subjects: fewer than two; neighbours must be samples of other subjects")
    fewest = len(table) - int(np.bincount(who).max())
    if fewest < neighbours:
        raise UserError(
            f"neighbours: {neighbours} are asked for, but without one of the subjects only {fewest} samples are left"
        )
    table = table - table.mean(0)  # smaller numbers, so less rounding in the squares
    squares = np.einsum("ij,ij->i", table, table)
    right, step = 0, max(1, _AT_ONCE // len(table))
    for start in range(0, len(table), step):
        rows = slice(start, start + step)
        distances = squares[rows, None] + squares - 2 * table[rows] @ table.T
        distances[who[rows, None] == who] = np.inf
        nearest = np.argpartition(distances, neighbours - 1, axis=1)[:, :neighbours]
        votes = (classes[nearest][:, :, None] == np.arange(classes.max() + 1)).sum(axis=1)
        right += int((votes.argmax(axis=1) == classes[rows]).sum())
    return right / len(table)


@SCORES.register("knn")
class NearestNeighbours(Score):
    """Accuracy of the nearest neighbours among other subjects."""

    name: ClassVar[str] = "knn"
    words: ClassVar[str] = "k-NN accuracy"
    needs: ClassVar[tuple[str, ...]] = ("features", "labels", "subjects")

    neighbours: int = Field(5, ge=1)

    def value(self, evidence: Evidence) -> float:
        """See :func:`knn_accuracy`."""
        assert evidence.subjects is not None
        return knn_accuracy(*evidence.samples, evidence.subjects, self.neighbours)
