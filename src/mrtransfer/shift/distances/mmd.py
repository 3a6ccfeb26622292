"""Maximum mean discrepancy: how far apart the mean embeddings of two domains are (Gretton et al. 2012)."""

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import field_validator

from mrtransfer.shift.distance import Distance
from mrtransfer.shift.distances import DISTANCES
from mrtransfer.shift.kernel_sums import KernelDiscrepancy, full_discrepancy
from mrtransfer.shift.kernels import Gamma, KernelName, choose_kernel
from mrtransfer.shift.parts import Parts
from mrtransfer.shift.tables import check_tables


def maximum_mean_discrepancy(
    X: np.ndarray,  # noqa: N803
    Y: np.ndarray,  # noqa: N803
    kernel: KernelName = "rbf",
    gamma: Gamma = None,
    batch_size: int = 4096,
) -> float:
    """Unbiased squared maximum mean discrepancy between ``X`` (n, d) and ``Y`` (m, d); it can be negative.

    Σ_{i≠j} k(xᵢ, xⱼ) / n(n − 1) + Σ_{i≠j} k(yᵢ, yⱼ) / m(m − 1) − 2 Σ k(xᵢ, yⱼ) / nm, over all samples (Gretton et al.
    2012, lemma 6), in float64 and block by block: ``batch_size`` says how many rows meet at a time and so how much
    memory is used, and never changes the value. (The sum of discrepancies of mini-batches is another number: it grows
    with the data and is above zero for one and the same domain.)

    ``kernel``: ``rbf`` Σ exp(−γ |x − y|²), ``linear`` ⟨x, y⟩, ``polynomial`` (γ ⟨x, y⟩ + 1)³. ``gamma``: a number; for
    ``rbf`` also a list, whose kernels are added up, or ``sum``: ¼, ½, 1, 2 and 4 times the one of the median heuristic.
    None: the median heuristic, γ = 1 / median |a − b|² over pairs of rows of both domains (of 2,000 rows drawn with a
    fixed seed, where there are more); for ``polynomial`` 1 / d.

    Raises :class:`UserError` for bad tables (:func:`check_tables`) and settings.
    """
    x, y = check_tables(X, Y)
    return full_discrepancy(choose_kernel(kernel, gamma, x, y), x, y, batch_size)


@DISTANCES.register("mmd")
class MMD(Distance):
    """Maximum mean discrepancy, squared and unbiased; RBF, linear or polynomial kernel."""

    name: ClassVar[str] = "mmd"
    words: ClassVar[str] = "maximum mean discrepancy"
    unbiased: ClassVar[bool] = True

    kernel: KernelName = "rbf"
    gamma: float | Literal["sum"] | tuple[float, ...] | None = None
    """As in :func:`maximum_mean_discrepancy`."""
    pairs: Literal["subjects", "rows"] = "subjects"
    """Which pairs are compared: rows of different subjects, or also rows of one subject, which are alike and make the
    distance larger than zero where both domains are one. The same where each subject has one row in one domain."""

    @field_validator("gamma")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        if not isinstance(value, str | None) and not np.all(np.greater(value, 0)):
            raise ValueError("must be positive")
        return value

    def prepare(self, x: np.ndarray, y: np.ndarray, parts: Parts, seed: int) -> KernelDiscrepancy:
        """One pass over the kernel, or one with every call where there are more than 4,096 parts; nothing is random."""
        kernel = choose_kernel(self.kernel, self.gamma, x, y)
        return KernelDiscrepancy(kernel, x, y, parts, within=self.pairs == "rows")
