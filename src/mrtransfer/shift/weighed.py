"""Distances that depend only on how often each part is in X and in Y: permutations and resamples are then one thing."""

from abc import abstractmethod

import numpy as np

from mrtransfer.shift.distance import Prepared
from mrtransfer.shift.parts import Parts

_NUMBERS_AT_ONCE = 1 << 20  # of one intermediate array: 8 MiB, about what a cache holds


class Weighed(Prepared):
    """A :class:`Prepared` distance given by :meth:`_values`; a part of weight 2 is as good as its rows twice."""

    def __init__(self, parts: Parts, numbers: int) -> None:
        """``numbers``: how many are held for one labelling, which decides how many labellings are met together."""
        self._in_x = parts.in_x
        self._together = max(1, _NUMBERS_AT_ONCE // max(numbers, 1))
        self.value = 0.0

    @abstractmethod
    def _values(self, to_x: np.ndarray, to_y: np.ndarray) -> np.ndarray:
        """The distance (B,) where part k is ``to_x`` (B, K) times in X and ``to_y`` (B, K) times in Y."""

    def observe(self) -> None:
        """Set :attr:`value`, in the arithmetic that the relabellings have."""
        self.value = float(self.relabelled(self._in_x[None])[0])

    def relabelled(self, first: np.ndarray) -> np.ndarray:
        """The distance (B,) where the parts marked in ``first`` (B, K) are X and all others are Y."""
        return self._in_blocks(first.astype(np.float64), (~first).astype(np.float64))

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """The distance (B,) where each part is there as often as ``weights`` (B, K) says."""
        return self._in_blocks(
            np.where(self._in_x, weights, 0).astype(np.float64), np.where(self._in_x, 0, weights).astype(np.float64)
        )

    def _in_blocks(self, to_x: np.ndarray, to_y: np.ndarray) -> np.ndarray:
        found = np.empty(len(to_x))
        for start in range(0, len(to_x), self._together):
            block = slice(start, start + self._together)
            found[block] = self._values(to_x[block], to_y[block])
        return found


def pooled_rows(x: np.ndarray, y: np.ndarray, parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """All rows (N, d) in float64, centred on their mean, and the part of each (N,); the rows of a part are adjacent."""
    rows = np.concatenate([np.asarray(x, np.float64), np.asarray(y, np.float64)])
    part = np.concatenate([parts.of_x, parts.of_y])
    order = np.argsort(part, kind="stable")
    return rows[order] - rows.mean(0), part[order]


def part_starts(part: np.ndarray) -> np.ndarray:
    """Where each part's rows start, (K,), for ``np.add.reduceat``; ``part`` (N,) is sorted and has every number."""
    return np.flatnonzero(np.diff(part, prepend=-1))
