"""Maximum mean discrepancy in linear time, by random Fourier features (Rahimi and Recht 2007; Zhao and Meng 2015)."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from mrtransfer.shift.distance import Distance, Prepared
from mrtransfer.shift.distances import DISTANCES
from mrtransfer.shift.frequencies import BLOCK, Estimate, Frequencies
from mrtransfer.shift.kernels import Gamma, choose_kernel
from mrtransfer.shift.parts import Parts
from mrtransfer.shift.subject_pairs import SubjectPairs
from mrtransfer.shift.tables import Rows, check_rows, check_tables

_KEPT_BYTES = 2**27  # of the parts' sums; more are computed again for every question


def random_feature_mmd(
    X: Rows,  # noqa: N803
    Y: Rows,  # noqa: N803
    gamma: Gamma = None,
    features: int = 2048,
    seed: int = 0,
) -> Estimate:
    """:func:`maximum_mean_discrepancy` with an RBF kernel for very many rows: time grows with n + m, memory does not.

    exp(−γ |x − y|²) is the mean of cos ω(x − y) over ω ~ N(0, 2γ I), so each of ``features`` / 2 random frequencies,
    with its cosine and its sine, gives an estimate of its own of the unbiased MMD² over all rows. Their mean is the
    value; it differs from the exact one by their standard deviation / √(``features`` / 2), the standard error.

    ``X`` (n, d), ``Y`` (m, d): arrays, memory maps, or anything with a shape whose slices are arrays; 4,096 rows are in
    memory at a time. ``gamma`` as in :func:`maximum_mean_discrepancy`. Raises :class:`UserError` as that does.
    """
    if isinstance(X, np.ndarray) and isinstance(Y, np.ndarray):
        X, Y = check_tables(X, Y)  # noqa: N806
    else:
        check_rows(X, Y)
    bank = Frequencies(choose_kernel("rbf", gamma, X, Y), X, features, seed)
    (sums_x, norms_x), (sums_y, norms_y) = (bank.total(table) for table in (X, Y))
    n, m = X.shape[0], Y.shape[0]
    each = (bank.per_frequency(sums_x * sums_x) - norms_x) / (n * (n - 1))
    each += (bank.per_frequency(sums_y * sums_y) - norms_y) / (m * (m - 1))
    each -= 2 * bank.per_frequency(sums_x * sums_y) / (n * m)
    return bank.estimate(each)


class FeatureDiscrepancy(Prepared):
    """MMD² by random features, for any labelling of the parts: from the sum of each part's features.

    ``within``: whether pairs of rows of one subject count, see :class:`SubjectPairs`.
    """

    def __init__(self, bank: Frequencies, x: np.ndarray, y: np.ndarray, parts: Parts, *, within: bool) -> None:
        self.bank, self.parts, self.tables, self.within = bank, parts, (x, y), within
        self._of = np.concatenate([parts.of_x, parts.of_y])
        self._order = np.lexsort([self._of, parts.subject[self._of]])  # rows of one subject, of one part, side by side
        self._kept: list[tuple[np.ndarray, np.ndarray]] | None = None
        if parts.count * bank.width * 8 <= _KEPT_BYTES:
            self._kept = list(self._computed())
        self._sides = np.zeros((2, bank.width))  # sums over X and over Y
        self._squares, own = np.zeros((2, parts.count))
        self.pairs = SubjectPairs(parts, own, np.zeros(len(parts.pairs)), within, self._squares)
        self.value, self.standard_error = self._observe()

    @property
    def details(self) -> dict[str, Any]:
        """The kernel, and the error that random features make."""
        return {
            **self.bank.kernel.details,
            "features": 2 * self.bank.count,
            "standard_error_of_features": self.standard_error,
            "pairs": self.pairs.words,
        }

    def relabelled(self, first: np.ndarray) -> np.ndarray:
        left = np.zeros((len(first), self.bank.width))
        for parts, sums in self._part_sums():
            left += first[:, parts].astype(float) @ sums
        return self._estimated(first, None, left, self._sides.sum(0) - left)

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        left, right = np.zeros((2, len(weights), self.bank.width))
        for parts, sums in self._part_sums():
            in_x = self.parts.in_x[parts]
            left += weights[:, parts[in_x]].astype(float) @ sums[in_x]
            right += weights[:, parts[~in_x]].astype(float) @ sums[~in_x]
        return self._estimated(self.parts.in_x[None], weights, left, right)

    def _estimated(
        self, first: np.ndarray, weights: np.ndarray | None, left: np.ndarray, right: np.ndarray
    ) -> np.ndarray:
        pairs = ((left, left), (left, right), (right, right))
        products = [np.einsum("bw,bw->b", a, b) / self.bank.count for a, b in pairs]
        return self.pairs.estimate(first, weights, *products)

    def _observe(self) -> Estimate:
        """The observed value at each frequency, and what other labellings need besides the parts' sums."""
        count, in_x, pairs = self.bank.count, self.parts.in_x, self.parts.pairs
        own_x, own_y, crossed = np.zeros((3, count))  # of single subjects, at each frequency
        for parts, sums in self._part_sums():
            of_x = in_x[parts]
            squares = self.bank.per_frequency(sums * sums)
            self._sides += sums[of_x].sum(0), sums[~of_x].sum(0)
            own_x += squares[of_x].sum(0)
            own_y += squares[~of_x].sum(0)
            self._squares[parts] = squares.mean(1)
            here = np.flatnonzero(np.isin(pairs[:, 0], parts))  # whose other part is here too
            a, b = (sums[np.searchsorted(parts, pairs[here, side])] for side in (0, 1))
            products = self.bank.per_frequency(a * b)
            crossed += products.sum(0)
            self.pairs.crossed[here] = products.mean(1)
        rows, bands = self.pairs.rows, len(self.bank.kernel.gammas)
        self.pairs.own[:] = self._squares - rows * bands  # cos² + sin² = 1, whatever the row
        (n, m), (a, b) = (rows[in_x].sum(), rows[~in_x].sum()), pairs.T
        x, y = self._sides
        if self.within:
            own_x, crossed, own_y = (np.full(count, n * bands), np.zeros(count), np.full(count, m * bands))
            counts = n * (n - 1), n * m, m * (m - 1)
        else:
            counts = n**2 - (rows[in_x] ** 2).sum(), n * m - rows[a] @ rows[b], m**2 - (rows[~in_x] ** 2).sum()
        each = [
            (self.bank.per_frequency(product) - less) / number
            for product, less, number in zip((x * x, x * y, y * y), (own_x, crossed, own_y), counts, strict=True)
        ]
        return self.bank.estimate(each[0] - 2 * each[1] + each[2])

    def _part_sums(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return iter(self._kept) if self._kept is not None else self._computed()

    def _computed(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Parts (k,), rising, and the sums of their features (k, width); some whole subjects at a time."""
        subjects = self.parts.subject[self._of[self._order]]
        stops = np.append(np.flatnonzero(np.diff(subjects)) + 1, len(subjects))
        begin = 0
        while begin < len(subjects):
            end = int(stops[min(int(np.searchsorted(stops, begin + BLOCK)), len(stops) - 1)])
            parts = np.unique(self._of[self._order[begin:end]])
            sums = np.zeros((len(parts), self.bank.width))
            for start in range(begin, end, BLOCK):
                rows = self._order[start : min(start + BLOCK, end)]
                runs = np.flatnonzero(np.diff(self._of[rows], prepend=-1))
                found = np.add.reduceat(self.bank.of(self._rows(rows)), runs, axis=0, dtype=np.float64)
                sums[np.searchsorted(parts, self._of[rows[runs]])] += found
            yield parts, sums
            begin = end

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        x, y = self.tables
        of_x = rows < len(x)
        found = np.empty((len(rows), x.shape[1]), np.result_type(x, y))
        found[of_x], found[~of_x] = x[rows[of_x]], y[rows[~of_x] - len(x)]
        return found


@DISTANCES.register("mmd_random_features")
class RandomFeatureMMD(Distance):
    """Maximum mean discrepancy by random features: RBF kernel, time grows linearly with the rows."""

    name: ClassVar[str] = "mmd_random_features"
    words: ClassVar[str] = "maximum mean discrepancy (random features)"
    unbiased: ClassVar[bool] = True

    gamma: float | Literal["sum"] | tuple[float, ...] | None = None
    """As in ``mmd``."""
    features: int = Field(2048, ge=4)
    """Random features, two for each frequency: the error falls with their root."""
    pairs: Literal["subjects", "rows"] = "subjects"
    """Rows of different subjects are compared, or also rows of one subject; see ``mmd``."""

    @field_validator("features")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even, a cosine and a sine for each frequency")
        return value

    def prepare(self, x: np.ndarray, y: np.ndarray, parts: Parts, seed: int) -> FeatureDiscrepancy:
        """One pass over the rows, and another one with every call where the parts' sums exceed 128 MiB."""
        bank = Frequencies(choose_kernel("rbf", self.gamma, x, y), x, self.features, seed)
        return FeatureDiscrepancy(bank, x, y, parts, within=self.pairs == "rows")
