"""Random Fourier features: cosines and sines whose products are an RBF kernel on average (Rahimi and Recht 2007)."""

from typing import NamedTuple

import numpy as np
import torch

from mrtransfer.common.errors import UserError
from mrtransfer.shift.kernels import Kernel
from mrtransfer.shift.tables import Rows, chunks

BLOCK = 4096  # rows that are turned into features together


class Estimate(NamedTuple):
    """A discrepancy, and the standard error that the draw of the features gives it."""

    value: float
    standard_error: float


class Frequencies:
    """Random frequencies, and the cosines and sines that they make of rows."""

    def __init__(self, kernel: Kernel, like: Rows, features: int, seed: int) -> None:
        if features < 4 or features % 2:
            raise UserError(f"features: must be an even number of at least 4, a cosine and a sine each, not {features}")
        self.kernel, self.count = kernel, features // 2
        normal = np.random.default_rng([seed, 3]).standard_normal((like.shape[1], self.count))
        # the bandwidths of a sum share their frequencies, scaled, so that the estimates are as many as frequencies
        waves = np.concatenate([normal * np.sqrt(2 * gamma) for gamma in kernel.gammas], axis=1)
        self._origin = np.asarray(like[0:BLOCK]).mean(
            0, dtype=np.float64
        )  # moving all rows changes nothing but rounding
        self._waves = torch.from_numpy(waves.astype(np.float32))

    @property
    def width(self) -> int:
        """How many numbers a row becomes."""
        return 2 * self._waves.shape[1]

    def of(self, rows: np.ndarray) -> np.ndarray:
        """(n, width) float32: cosines, then sines, of ``rows`` (n, d)."""
        phases = torch.from_numpy((rows - self._origin).astype(np.float32)) @ self._waves
        found = torch.empty(len(rows), self.width)
        torch.cos(phases, out=found[:, : self.width // 2])
        torch.sin(phases, out=found[:, self.width // 2 :])
        return found.numpy()

    def total(self, table: Rows) -> tuple[np.ndarray, int]:
        """(width,) sum over all rows of ``table``, and the sum of their squared norms at each frequency."""
        total = np.zeros(self.width)
        for _, rows in chunks(table, BLOCK):
            total += self.of(rows).sum(0, dtype=np.float64)
        return total, table.shape[0] * len(self.kernel.gammas)

    def per_frequency(self, products: np.ndarray) -> np.ndarray:
        """(…, count) the sum over cosine, sine and bandwidths of ``products`` (…, width)."""
        return products.reshape(*products.shape[:-1], products.shape[-1] // self.count, self.count).sum(-2)

    def estimate(self, each: np.ndarray) -> Estimate:
        """From the estimates of ``each`` (count,) frequency."""
        return Estimate(float(each.mean()), float(each.std(ddof=1) / np.sqrt(self.count)))
