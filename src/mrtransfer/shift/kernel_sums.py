"""A kernel's discrepancy for any labelling: the kernel is computed once, block by block, and meets all of them there.

With few parts the kernel is added up to a table of parts against parts, from which labellings cost next to nothing.
With many (each row a subject of its own) every block is multiplied with the labels of all relabellings while it is in
memory. Kernels and what decides the value are float64; that product alone is float32, of a kernel whose middle was
taken off: the discrepancy does not change by that, and rounding is a millionth of the kernel's spread.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrtransfer.shift.distance import Prepared
from mrtransfer.shift.kernels import Block, Kernel, KernelBlocks
from mrtransfer.shift.parts import Parts
from mrtransfer.shift.subject_pairs import SubjectPairs

_FEW_PARTS = 4096  # a table of so many against so many takes 128 MiB
_BATCH = 2048


def full_discrepancy(kernel: Kernel, x: np.ndarray, y: np.ndarray, batch: int) -> float:
    """Unbiased MMD² (Gretton et al. 2012, lemma 6) over all rows of ``x`` (n, d) and ``y`` (m, d).

    Σ_{i≠j} k(xᵢ, xⱼ) / n(n − 1) + Σ_{i≠j} k(yᵢ, yⱼ) / m(m − 1) − 2 Σ k(xᵢ, yⱼ) / nm, added up in float64.
    """
    blocks = KernelBlocks(kernel, x, y, batch)
    sums = {(True, True): 0.0, (True, False): 0.0, (False, False): 0.0}
    for rows, columns, values in blocks:
        if rows == columns:
            values.fill_diagonal_(0)
        sums[rows.start < len(x), columns.start < len(x)] += float(values.sum()) * (1 if rows == columns else 2)
    n, m = len(x), len(y)
    within = sums[True, True] / (n * (n - 1)) + sums[False, False] / (m * (m - 1))
    return within - sums[True, False] / (n * m)


class KernelDiscrepancy(Prepared):
    """MMD² with ``kernel`` between ``x`` (n, d) and ``y`` (m, d), for any labelling of their parts.

    ``within``: whether pairs of rows of one subject count, see :class:`SubjectPairs`.
    """

    def __init__(self, kernel: Kernel, x: np.ndarray, y: np.ndarray, parts: Parts, *, within: bool) -> None:
        orders = [np.argsort(of, kind="stable") for of in (parts.of_x, parts.of_y)]  # rows of one part side by side
        x, y = (t if _rising(of) else t[o] for t, of, o in zip((x, y), (parts.of_x, parts.of_y), orders, strict=True))
        self.kernel, self.parts = kernel, parts
        self.part = np.concatenate([np.sort(parts.of_x), np.sort(parts.of_y)])
        self.subject = parts.subject[self.part]
        self.blocks = KernelBlocks(kernel, x, y, _BATCH)
        self.typical = self.blocks.typical()
        self._few = parts.count <= _FEW_PARTS
        self._between: np.ndarray | None = None  # (K, K) sums over pairs of rows of different subjects, if few parts
        self._observed: list[np.ndarray] | None = None  # sums within X, between X and Y, within Y
        self.pairs = SubjectPairs(parts, np.zeros(parts.count), np.zeros(len(parts.pairs)), within)
        if self._few:
            self._add_up()

    @property
    def value(self) -> float:  # type: ignore[override]
        """The observed discrepancy; where there are many parts it needs a pass over the kernel, unless one was made."""
        if self._observed is None:
            none = np.empty((0, self.parts.count))
            self.meet(none.astype(bool), none)
        assert self._observed is not None
        return float(self.pairs.estimate(self.parts.in_x[None], None, *self._observed)[0])

    @property
    def details(self) -> dict[str, Any]:
        """The kernel, and which pairs were compared."""
        return {**self.kernel.details, "pairs": self.pairs.words}

    def relabelled(self, first: np.ndarray) -> np.ndarray:
        return self.meet(first, np.empty((0, self.parts.count)))[0]

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        return self.meet(np.empty((0, self.parts.count), bool), weights)[1]

    def meet(self, first: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both for (B, K) relabellings and (B', K) resamples, in one pass."""
        in_x = self.parts.in_x[None]
        labels, drawn = self._from_table(first, weights) if self._few else self._from_blocks(first, weights)
        return self.pairs.estimate(first, None, *labels), self.pairs.estimate(in_x, weights, *drawn)

    def _add_up(self) -> None:
        """Reduce the kernel to a table of parts against parts."""
        between = np.zeros((self.parts.count, self.parts.count))
        for block in self._different_subjects():
            rows, columns = self.part[block.rows], self.part[block.columns]
            found = np.add.reduceat(block.values.numpy(), _starts(columns), axis=1)
            found = np.add.reduceat(found, _starts(rows), axis=0)
            between[np.ix_(np.unique(rows), np.unique(columns))] += found
            if block.rows != block.columns:
                between[np.ix_(np.unique(columns), np.unique(rows))] += found.T
        self._between, x, y = between, self.parts.in_x, ~self.parts.in_x
        self._observed = [np.array([between[np.ix_(a, b)].sum()]) for a, b in ((x, x), (x, y), (y, y))]

    def _from_table(self, first: np.ndarray, weights: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Sums within X, between X and Y, within Y: (B,) each for relabellings, (B',) each for resamples."""
        assert self._between is not None
        table, in_x = self._between, self.parts.in_x
        u = first.astype(float)
        labels = _of_labels((u @ table * u).sum(1), u @ table.sum(1), table.sum())
        a, b = weights[:, in_x].astype(float), weights[:, ~in_x].astype(float)
        across = a @ table[in_x]
        drawn = [
            (across[:, in_x] * a).sum(1),
            (across[:, ~in_x] * b).sum(1),
            (b @ table[np.ix_(~in_x, ~in_x)] * b).sum(1),
        ]
        return labels, drawn

    def _from_blocks(self, first: np.ndarray, weights: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The same in one pass over the kernel; what was observed is kept."""
        split, number = self.blocks.split, len(first)
        sums = np.zeros((3, number + len(weights)))  # of pairs within X, between X and Y, within Y
        observed, rows_sum = np.zeros(3), np.zeros(len(self.part))
        left, last = torch.empty(0), None
        for rows, columns, values in self._different_subjects():
            kind = (rows.start >= split) + (columns.start >= split)
            twice = 1 if rows == columns else 2
            if rows != last:
                left, last = self._columns(rows, first, weights), rows
            right = left if rows == columns else self._columns(columns, first, weights)
            met = (right @ values.float().T).mul_(left).sum(1, dtype=torch.float64)
            sums[kind] += met.numpy() * twice
            across = values.sum(1).numpy()
            rows_sum[rows] += across
            if rows != columns:
                rows_sum[columns] += values.sum(0).numpy()
            observed[kind] += across.sum() * twice
            del values  # before memory for the next block is taken
        sums[1, number:] /= 2  # a pair between domains counts once
        self._observed = [observed[:1], observed[1:2] / 2, observed[2:]]
        of_parts = np.bincount(self.part, rows_sum, minlength=self.parts.count)
        with_all = np.array([of_parts[row].sum() for row in first])  # one by one: together they would be made float64
        labels = _of_labels(sums[:, :number].sum(0), with_all, rows_sum.sum())
        return labels, list(sums[:, number:])

    def _columns(self, rows: slice, first: np.ndarray, weights: np.ndarray) -> Tensor:
        """(B + B', rows) float32: the labels and weights of the rows' parts."""
        part = self.part[rows]
        one_each = len(self.part) == self.parts.count
        wanted = slice(part[0], part[-1] + 1) if one_each else part  # without a copy
        return torch.from_numpy(np.concatenate([first[:, wanted], weights[:, wanted]], dtype=np.float32))

    def _different_subjects(self) -> Iterator[Block]:
        """The blocks, less their middle and with zeros for pairs of one subject, which are added up on the side."""
        self.pairs.own[:], self.pairs.crossed[:] = 0, 0
        alone = len(np.unique(self.subject)) == len(self.subject)
        for block in self.blocks:
            values = block.values.sub_(self.typical)
            if block.rows == block.columns:
                values.fill_diagonal_(0)
            if not alone:
                same = self.subject[block.rows, None] == self.subject[block.columns]
                if same.any():
                    self._keep_own(block, torch.from_numpy(same))
            yield block
            del values, block

    def _keep_own(self, block: Block, same: Tensor) -> None:
        """Take the pairs of one subject, ``same`` (rows, columns), out of the block."""
        sums = (block.values * same).sum(1).numpy()
        block.values.masked_fill_(same, 0)
        of_parts = np.bincount(self.part[block.rows], sums, minlength=self.parts.count)
        if (block.rows.start < self.blocks.split) != (block.columns.start < self.blocks.split):
            self.pairs.crossed[:] += of_parts[self.parts.pairs[:, 0]]
        else:
            self.pairs.own[:] += of_parts * (1 if block.rows == block.columns else 2)


def _of_labels(q: np.ndarray, r: np.ndarray, t: float) -> list[np.ndarray]:
    """Sums within X, between X and Y, within Y from those within X, of X with all, and of all with all."""
    return [q, r - q, t - 2 * r + q]


def _rising(numbers: np.ndarray) -> bool:
    return bool((np.diff(numbers) >= 0).all())


def _starts(parts: np.ndarray) -> np.ndarray:
    """Where each run of equal numbers begins."""
    return np.flatnonzero(np.diff(parts, prepend=-1))
