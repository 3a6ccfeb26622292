"""Kernels between the rows of two tables, block by block: no more than one block of the kernel is ever in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.shift.tables import Rows, chunks

KernelName = Literal["rbf", "linear", "polynomial"]
Gamma = float | Literal["sum"] | Sequence[float] | None

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of ``sum``, times the one of the median heuristic
DEGREE = 3  # of the polynomial kernel
_HEURISTIC_ROWS = 2000


@dataclass(frozen=True)
class Kernel:
    """k(x, y): Σ exp(−γ |x − y|²) over ``gammas``, ⟨x, y⟩, or (γ ⟨x, y⟩ + 1)³."""

    name: KernelName
    gammas: tuple[float, ...] = ()
    origin: str = ""  # of the gammas, in words

    def left(self, rows: Tensor) -> Tensor:
        """What of ``rows`` (n, d) a product with :meth:`right` needs, so that :meth:`finish` makes it the kernel."""
        if self.name == "linear":
            return rows
        if self.name == "polynomial":
            return torch.nn.functional.pad(rows * self.gammas[0] ** 0.5, (0, 1), value=1.0)
        scaled = rows * self._scale**0.5
        norms = scaled.square().sum(1, keepdim=True)
        return torch.cat([2 * scaled, -norms, torch.ones_like(norms)], 1)

    def right(self, rows: Tensor) -> Tensor:
        """The other side of the product."""
        if self.name != "rbf":
            return self.left(rows)
        scaled = rows * self._scale**0.5
        norms = scaled.square().sum(1, keepdim=True)
        return torch.cat([scaled, torch.ones_like(norms), -norms], 1)

    def finish(self, block: Tensor) -> Tensor:
        """The kernel from the product; ``block`` is overwritten."""
        if self.name == "linear":
            return block
        if self.name == "polynomial":
            return block.pow_(DEGREE)
        first, *others = (gamma / self._scale for gamma in self.gammas)
        if not others:
            return block.exp_()
        total = torch.exp(block * first)
        for gamma in others:
            total += torch.exp(block * gamma)
        return total

    @property
    def _scale(self) -> float:
        return self.gammas[0] if len(self.gammas) == 1 else 1.0

    @property
    def details(self) -> dict[str, object]:
        """Its settings, as JSON can write them."""
        return {"kernel": self.name, "gamma": list(self.gammas), "gamma_from": self.origin}


def choose_kernel(name: str, gamma: Gamma, x: Rows, y: Rows) -> Kernel:
    """The kernel ``name`` with ``gamma`` as given, or as the tables suggest where it is None or ``sum``.

    RBF: :func:`median_gamma`, and for ``sum`` ¼, ½, 1, 2 and 4 times that. Polynomial: 1 / number of features.
    """
    if name not in get_args(KernelName):
        raise unknown_name("kernel", name, get_args(KernelName))
    if name == "linear":
        if gamma is not None:
            raise UserError("gamma: the linear kernel has none; leave gamma out or take kernel 'rbf' or 'polynomial'")
        return Kernel("linear")
    if name == "polynomial":
        if gamma is None:
            return Kernel("polynomial", (1 / x.shape[1],), "1 / number of features")
        if isinstance(gamma, str | Sequence):
            raise UserError("gamma: the polynomial kernel takes one number; sums of bandwidths are for kernel 'rbf'")
        return Kernel("polynomial", _checked([gamma]), "given")
    if gamma is None or isinstance(gamma, str):
        if gamma not in (None, "sum"):
            raise UserError(f"gamma: give a number, a list of numbers, 'sum' or None, not {gamma!r}")
        heuristic, rows = median_gamma(x, y)
        origin = f"1 / median of the squared distances between {rows} rows of both domains"
        return Kernel("rbf", tuple(heuristic * factor for factor in (BANDWIDTHS if gamma else (1.0,))), origin)
    return Kernel("rbf", _checked([gamma] if isinstance(gamma, int | float) else list(gamma)), "given")


def _checked(gammas: Sequence[float]) -> tuple[float, ...]:
    if not gammas or not all(np.isfinite(gamma) and gamma > 0 for gamma in gammas):
        raise UserError(f"gamma: must be positive, not {', '.join(map(str, gammas)) or 'an empty list'}")
    return tuple(float(gamma) for gamma in gammas)


def median_gamma(x: Rows, y: Rows) -> tuple[float, int]:
    """γ = 1 / median of |a − b|² over pairs of different rows of X and Y together, and how many rows it is from.

    With k = exp(−|a − b|² / 2σ²) this is σ² = median / 2, as in the code of Gretton et al. (2012). Where more than
    half of the pairs are equal, the median is over the others. From more than 2,000 rows it is that of 2,000 of them,
    drawn with a fixed seed.
    """
    split, total = x.shape[0], x.shape[0] + y.shape[0]
    rows = np.arange(total)
    if total > _HEURISTIC_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(total, _HEURISTIC_ROWS, replace=False))
    taken = np.concatenate([_taken(x, rows[rows < split]), _taken(y, rows[rows >= split] - split)])
    squared = torch.pdist(torch.from_numpy(taken)).square_().numpy()  # of equal rows exactly zero
    median = np.median(squared)
    if median == 0:
        positive = squared[squared > 0]
        if not len(positive):
            raise UserError("gamma: all rows looked at are equal, so distances suggest none; give gamma as a number")
        median = np.median(positive)
    return float(1 / median), len(taken)


def _taken(table: Rows, rows: np.ndarray) -> np.ndarray:
    """The given ``rows`` (rising) of a table that is read slice by slice."""
    if isinstance(table, np.ndarray):
        return table[rows].astype(np.float64)
    found = [part[rows[(rows >= start) & (rows < start + len(part))] - start] for start, part in chunks(table)]
    return np.concatenate(found).astype(np.float64)


class Block(NamedTuple):
    """The kernel between some rows and some others, numbered through X and then Y."""

    rows: slice
    columns: slice
    values: Tensor  # (rows, columns) float64


class KernelBlocks:
    """The kernel between all rows of X and Y, as blocks on and above the diagonal, none of which straddles X and Y."""

    def __init__(self, kernel: Kernel, x: np.ndarray, y: np.ndarray, batch: int) -> None:
        if batch < 1:
            raise UserError(f"batch_size: must be at least 1, not {batch}")
        self.kernel, self.x, self.y, self.batch = kernel, x, y, batch
        self.split, self.total = len(x), len(x) + len(y)
        shift = (x.sum(0, dtype=np.float64) + y.sum(0, dtype=np.float64)) / self.total
        # neither an RBF kernel nor a linear discrepancy changes when both tables are moved, and rounding is less so
        self._shift = torch.from_numpy(shift) if kernel.name != "polynomial" else torch.zeros(x.shape[1])

    def __iter__(self) -> Iterator[Block]:
        ranges = [
            slice(start, min(start + self.batch, stop))
            for begin, stop in ((0, self.split), (self.split, self.total))
            for start in range(begin, stop, self.batch)
        ]
        left, last = torch.empty(0), None
        for rows, columns in combinations_with_replacement(ranges, 2):
            if rows != last:
                left, last = self.kernel.left(self._rows(rows)), rows
            yield Block(rows, columns, self.kernel.finish(left @ self.kernel.right(self._rows(columns)).T))

    def _rows(self, rows: slice) -> Tensor:
        table = self.x[rows] if rows.stop <= self.split else self.y[rows.start - self.split : rows.stop - self.split]
        return torch.from_numpy(table.astype(np.float64)) - self._shift

    def typical(self) -> float:
        """A value in the middle of the kernel, from 256 rows of each domain."""
        some = [table[:: -(-len(table) // 256)].astype(np.float64) for table in (self.x, self.y)]
        rows = torch.from_numpy(np.concatenate(some)) - self._shift
        return float(self.kernel.finish(self.kernel.left(rows) @ self.kernel.right(rows).T).mean())
