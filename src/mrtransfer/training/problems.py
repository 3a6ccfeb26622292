"""What a head is fitted to: rows of a table, and how much each counts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import digest

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """Rows to learn from, rows to choose by (may be empty), and the seed of whatever is random."""

    train: np.ndarray
    validation: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    seed: int = 0


def derived_seed(*parts: int | str) -> int:
    """A seed (63 bits) that depends on all ``parts``: seed, epoch, step, purpose."""
    return int(digest(list(parts), length=16), 16) >> 1


def row_weights(
    labels: np.ndarray, class_weights: str | None, classes: int, like: np.ndarray | None = None
) -> np.ndarray:
    """How much each of ``labels`` (n,) counts; float64 (n,), sums to 1.

    ``balanced``: every class that occurs in ``like`` (the training labels; by default ``labels``) counts the same.
    """
    if len(labels) == 0:
        return np.zeros(0)
    weights = class_factors(labels if like is None else like, class_weights, classes)[labels]
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(labels), 1 / len(labels))


def class_factors(labels: np.ndarray, class_weights: str | None, classes: int) -> np.ndarray:
    """The factor (classes,) on each class's loss; over ``labels`` its mean is 1. A class that does not occur has 0."""
    if class_weights is None:
        return np.ones(classes)
    counts = np.bincount(labels, minlength=classes)
    return np.divide(len(labels) / (counts > 0).sum(), counts, out=np.zeros(classes), where=counts > 0)


def check_problems(problems: Sequence[Problem], labels: np.ndarray, rows: int) -> None:
    """Raise :class:`UserError` where a problem has no training rows, rows that are not there, or rows without label."""
    for number, problem in enumerate(problems):
        if len(problem.train) == 0:
            raise UserError(f"problem {number} has no training rows; give each at least one per class")
        used = np.concatenate([problem.train, problem.validation])
        if used.min() < 0 or used.max() >= rows:
            raise UserError(f"problem {number} names row {int(used.max())}, but there are features of {rows} rows")
        if labels[used].min() < 0:
            raise UserError(f"problem {number} uses row {int(used[labels[used] < 0][0])}, which has no label")


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """``items`` in pieces of at most ``size`` (at least 1)."""
    for start in range(0, len(items), max(size, 1)):
        yield items[start : start + max(size, 1)]


def grouped(pairs: Iterable[tuple[int, T]]) -> dict[int, list[T]]:
    """Values by key, keys rising."""
    groups: dict[int, list[T]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return dict(sorted(groups.items()))
