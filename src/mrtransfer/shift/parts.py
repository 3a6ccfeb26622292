"""Who may be exchanged: the rows of one subject stay together when labels are permuted or subjects are drawn again.

Slices of one subject resemble each other. A test that permutes slices takes that resemblance for a difference between
domains, and its p-values are far too small; so labels move by subject here, and never by slice.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from math import comb

import numpy as np

from mrtransfer.common.errors import UserError


@dataclass(frozen=True, eq=False)
class Relabellings:
    """Other ways of calling the same subjects X and Y that are as likely if both domains are one."""

    first: np.ndarray  # (B, K) bool: the part goes to X
    exact: bool  # all there are, the observed one among them; else drawn at random
    possible: int  # how many distinct ones there are


@dataclass(frozen=True, eq=False)
class Parts:
    """The rows of two tables by subject; a part is the rows of one subject in one domain.

    Parts of X come first, each domain's in the order of its subjects' names. A name found in both tables is one
    subject seen in both domains.
    """

    of_x: np.ndarray  # (n,) int: the part of every row of X, 0 … K−1
    of_y: np.ndarray  # (m,) int
    in_x: np.ndarray  # (K,) bool: the observed labelling
    pairs: np.ndarray  # (P, 2) int: the parts in X and in Y of subjects that are in both domains

    @classmethod
    def of(cls, units_x: np.ndarray, units_y: np.ndarray) -> "Parts":
        """Parts of rows whose subjects are ``units_x`` (n,) and ``units_y`` (m,).

        Raises :class:`UserError` where a domain has fewer than two subjects.
        """
        names_x, of_x = np.unique(np.asarray(units_x).astype(str), return_inverse=True)
        names_y, of_y = np.unique(np.asarray(units_y).astype(str), return_inverse=True)
        for table, names in (("X", names_x), ("Y", names_y)):
            if len(names) < 2:
                raise UserError(
                    f"{table} has {len(names)} subject{'s' * (len(names) != 1)}: what a distance is worth is judged by "
                    "how much subjects differ, so each domain needs at least two"
                )
        _, pair_x, pair_y = np.intersect1d(names_x, names_y, assume_unique=True, return_indices=True)
        return cls(
            of_x=of_x.reshape(-1),
            of_y=of_y.reshape(-1) + len(names_x),
            in_x=np.arange(len(names_x) + len(names_y)) < len(names_x),
            pairs=np.stack([pair_x, pair_y + len(names_x)], axis=1).astype(int),
        )

    @property
    def count(self) -> int:
        """K, how many parts there are."""
        return len(self.in_x)

    @property
    def paired(self) -> bool:
        """Whether any subject is in both domains."""
        return len(self.pairs) > 0

    @property
    def subjects(self) -> int:
        """How many distinct subjects there are."""
        return self.count - len(self.pairs)

    @cached_property
    def subject(self) -> np.ndarray:
        """(K,) int: the subject of every part; the two parts of one subject have the same number."""
        found = np.arange(self.count)
        found[self.pairs[:, 1]] = self.pairs[:, 0]
        return found

    @cached_property
    def _single(self) -> np.ndarray:
        """Parts of subjects that are in one domain only."""
        return np.setdiff1d(np.arange(self.count), self.pairs.ravel())

    @property
    def possible(self) -> int:
        """How many distinct relabellings there are, the observed one included."""
        return comb(len(self._single), int(self.in_x[self._single].sum())) * 2 ** len(self.pairs)

    @property
    def smallest_p(self) -> float:
        """The smallest p-value that this design can give a distance for which d(X, Y) = d(Y, X).

        Where swapping everything is itself one of the relabellings, it gives the observed value once more.
        """
        in_x = self.in_x[self._single]
        swaps = int(in_x.sum()) * 2 == len(in_x)
        return (2 if swaps else 1) / self.possible

    def relabellings(self, number: int, seed: int) -> Relabellings:
        """``number`` random relabellings, or all of them where there are no more than that.

        A subject of both domains swaps as a whole; subjects of one domain exchange labels among themselves, so that
        each domain keeps its number of subjects.
        """
        if self.possible <= number:
            return Relabellings(self._all(), exact=True, possible=self.possible)
        generator = np.random.default_rng([seed, 1])
        first = np.empty((number, self.count), bool)
        single = np.broadcast_to(self.in_x[self._single], (number, len(self._single)))
        first[:, self._single] = generator.permuted(single, axis=1)
        stays = generator.random((number, len(self.pairs))) < 0.5
        first[:, self.pairs[:, 0]] = stays
        first[:, self.pairs[:, 1]] = ~stays
        return Relabellings(first, exact=False, possible=self.possible)

    def _all(self) -> np.ndarray:
        """Every relabelling, the observed one last."""
        chosen = combinations(self._single.tolist(), int(self.in_x[self._single].sum()))
        first = np.zeros((self.possible, self.count), bool)
        for row, (to_x, sides) in enumerate(product(chosen, product((0, 1), repeat=len(self.pairs)))):
            first[row, list(to_x)] = True
            first[row, self.pairs[np.arange(len(self.pairs)), list(sides)]] = True
        return np.roll(first, -1, axis=0)

    def resamples(self, number: int, seed: int) -> np.ndarray:
        """How often each part is drawn, (``number``, K) int32: subjects with replacement.

        They are drawn separately among those of X only, of Y only, and of both domains. Draws that leave a domain with
        fewer than two different subjects are drawn again, as nothing could be compared within it.
        """
        generator = np.random.default_rng([seed, 2])
        counts = np.zeros((number, self.count), np.int32)
        missing = np.arange(number)
        while len(missing):
            for row in missing:
                counts[row] = self._one_resample(generator)
            drawn = counts[missing] > 0
            poor = np.minimum(drawn[:, self.in_x].sum(1), drawn[:, ~self.in_x].sum(1)) < 2
            missing = missing[poor]
        return counts

    def _one_resample(self, generator: np.random.Generator) -> np.ndarray:
        counts = np.zeros(self.count, np.int32)
        in_x = self.in_x[self._single]
        for parts in (self._single[in_x], self._single[~in_x]):
            if len(parts):
                counts[parts] = np.bincount(generator.integers(len(parts), size=len(parts)), minlength=len(parts))
        if self.paired:
            size = len(self.pairs)
            counts[self.pairs] = np.bincount(generator.integers(size, size=size), minlength=size)[:, None]
        return counts
