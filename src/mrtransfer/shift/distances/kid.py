"""Kernel inception distance: the discrepancy of networks' features with a cubic kernel (Bińkowski et al. 2018)."""

from typing import ClassVar, Literal

import numpy as np

from mrtransfer.shift.distance import Distance
from mrtransfer.shift.distances import DISTANCES
from mrtransfer.shift.distances.mmd import maximum_mean_discrepancy
from mrtransfer.shift.kernel_sums import KernelDiscrepancy
from mrtransfer.shift.kernels import choose_kernel
from mrtransfer.shift.parts import Parts


def kernel_inception_distance(X: np.ndarray, Y: np.ndarray, batch_size: int = 4096) -> float:  # noqa: N803
    """Unbiased squared discrepancy with k = (⟨x, y⟩ / d + 1)³ between features ``X`` (n, d) and ``Y`` (m, d).

    Over all samples at once, which is the mean that the usual average over random subsets of 1,000 estimates, without
    its noise. Unlike the Fréchet distance its estimate is unbiased for few samples. Raises as
    :func:`maximum_mean_discrepancy` does.
    """
    return maximum_mean_discrepancy(X, Y, "polynomial", batch_size=batch_size)


@DISTANCES.register("kid")
class KID(Distance):
    """Kernel inception distance: discrepancy with a cubic kernel, unbiased also for few samples."""

    name: ClassVar[str] = "kid"
    words: ClassVar[str] = "kernel inception distance"
    unbiased: ClassVar[bool] = True

    pairs: Literal["subjects", "rows"] = "subjects"
    """Rows of different subjects are compared, or also rows of one subject; see ``mmd``."""

    def prepare(self, x: np.ndarray, y: np.ndarray, parts: Parts, seed: int) -> KernelDiscrepancy:
        """As for ``mmd``; nothing is random."""
        return KernelDiscrepancy(choose_kernel("polynomial", None, x, y), x, y, parts, within=self.pairs == "rows")
