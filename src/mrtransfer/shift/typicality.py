"""How unusual one new scan is against the scans that a model was trained on, with a calibrated p-value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.linalg import eigh

from mrtransfer.common.errors import UserError
from mrtransfer.common.progress import progress

_AXES = 16  # principal axes that are kept one by one; all others have one variance
_FOLDS = 50  # with more subjects, several are left out together
_KEPT = 64  # slices of a subject whose scores are kept
_DIGITS = 7
_LEAST = 1e-12  # of all variance, or of the mean's square: less is rounding


@dataclass(frozen=True, eq=False)
class Typicality:
    """A training domain, as a distance from it and the distances that its own subjects have when left out.

    The distance of a slice is Mahalanobis' with the covariance of Ledoit and Wolf 2004, of which the largest principal
    axes are kept and all other directions have their mean variance, over the square root of the number of features.
    That of a scan is the mean over its slices.
    """

    mean: np.ndarray
    """(d,)."""
    axes: np.ndarray
    """(q, d): principal axes."""
    variances: np.ndarray
    """(q,): shrunk variances along them."""
    rest: float
    """The mean shrunk variance of all other directions."""
    calibration: tuple[np.ndarray, ...]
    """Of every training subject, the distances of its slices from the others, in an order drawn at random."""

    @classmethod
    def fit(cls, table: np.ndarray, units: np.ndarray | Sequence[str], *, seed: int = 0) -> Self:
        """From ``table`` (n, d), one row a slice, of the subjects ``units`` (n,).

        Each subject's distances are from a fit without it (with more than 50 subjects, without a fiftieth of them).
        ``seed``: in which order they are kept, and who is left out together. Raises :class:`UserError` for fewer than
        two subjects, NaN and infinite values, and a table in which nothing varies.
        """
        table = _checked(table)
        units = np.asarray(units)
        if units.shape != (len(table),):
            raise UserError(f"the table has {len(table)} rows and {units.size} subjects: give the subject of every row")
        names, subject = np.unique(units, return_inverse=True)
        if len(names) < 3:
            raise UserError(
                f"how unusual a scan is cannot be calibrated on {len(names)} subjects: at least 3 are needed"
            )
        draw = np.random.default_rng([seed, 0x7C])
        fold = draw.permutation(len(names)) % min(len(names), _FOLDS)
        distances = np.empty(len(table))
        folds = int(fold.max()) + 1
        with progress("calibrating", folds) as advance:
            for number in range(folds):
                out = fold[subject] == number
                distances[out] = _distances(table[out], *_gaussian(table[~out]))
                advance(1)
        calibration = tuple(
            _rounded(draw.permutation(distances[subject == number])[:_KEPT]) for number in range(len(names))
        )
        mean, axes, variances, rest = _gaussian(table)
        return cls(_rounded(mean), _rounded(axes), _rounded(variances), rest, calibration)

    @property
    def subjects(self) -> int:
        """How many training subjects the p-values stand on."""
        return len(self.calibration)

    @property
    def smallest_p(self) -> float:
        """The p-value of a scan that is farther away than any training subject: none can be smaller."""
        return 1 / (self.subjects + 1)

    def score(self, rows: np.ndarray) -> np.ndarray:
        """(m,): the distance of each of ``rows`` (m, d); about 1 for a slice of the training domain."""
        rows = _checked(rows)
        if rows.shape[1] != len(self.mean):
            raise UserError(
                f"the table has {rows.shape[1]} features, and the training domain has {len(self.mean)}: compute the "
                "same feature"
            )
        return _distances(rows, self.mean, self.axes, self.variances, self.rest)

    def p_value(self, rows: np.ndarray) -> float:
        """How often a scan of the training domain is as unusual as the one scan with the slices ``rows`` (k, d).

        (1 + number of training subjects as far away) / (training subjects + 1), uniform for new subjects of the same
        domain (conformal: Vovk et al. 2005). Training subjects are scored with as many slices as the scan has, or all
        of theirs where these are fewer.
        """
        return self._p(self.score(rows))

    def p_values(self, table: np.ndarray, scans: np.ndarray | Sequence[str] | None = None) -> np.ndarray:
        """(m,): the :meth:`p_value` of the scan that each row of ``table`` (m, d) belongs to.

        ``scans`` (m,) names the scan of each row; by default each row is a scan of one slice.
        """
        distances = self.score(table)
        _, scan = np.unique(np.arange(len(distances)) if scans is None else np.asarray(scans), return_inverse=True)
        if len(scan) != len(distances):
            raise UserError(f"the table has {len(distances)} rows and {len(scan)} scans: give the scan of every row")
        return np.array([self._p(distances[scan == number]) for number in range(int(scan.max()) + 1)])[scan]

    def _p(self, distances: np.ndarray) -> float:
        usual = np.array([own[: len(distances)].mean() for own in self.calibration])
        return float((1 + (usual >= distances.mean()).sum()) / (len(usual) + 1))

    def to_json(self) -> dict[str, Any]:
        """All that is needed to score new scans, as JSON can write it: some 16 · d numbers."""
        return {
            "mean": self.mean.tolist(),
            "axes": self.axes.tolist(),
            "variances": self.variances.tolist(),
            "rest": self.rest,
            "calibration": [own.tolist() for own in self.calibration],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The typicality that :meth:`to_json` wrote."""
        mean = np.array(data["mean"], np.float64)
        axes = np.array(data["axes"], np.float64).reshape(-1, len(mean))
        calibration = tuple(np.array(own, np.float64) for own in data["calibration"])
        return cls(mean, axes, np.array(data["variances"], np.float64), float(data["rest"]), calibration)


def _gaussian(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean (d,), principal axes (q, d), their shrunk variances (q,), and the mean shrunk variance of all other axes."""
    count, width = table.shape
    mean = table.mean(axis=0)
    centred = table - mean
    total = float((centred**2).sum()) / count
    if total <= _LEAST * float((mean**2).sum()):
        raise UserError("every feature is constant in the training domain, so nothing could be unusual")
    kept = min(_AXES, count - 1, width - 1)
    wide = width > count  # both products have the same eigenvalues; the smaller one is taken
    product = (centred @ centred.T if wide else centred.T @ centred) / count
    axes, variances = _principal(centred, product, kept)
    shrinkage = _shrinkage(centred, product)
    target = shrinkage * total / width
    rest = (1 - shrinkage) * max(0.0, total - float(variances.sum())) / (width - kept) + target
    least = _LEAST * total
    return mean, axes, np.maximum((1 - shrinkage) * variances + target, least), max(rest, least)


def _principal(centred: np.ndarray, product: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``kept`` largest principal axes (q, d) and variances (q,) of ``centred`` (n, d)."""
    size, width = len(product), centred.shape[1]
    if kept == 0:
        return np.empty((0, width)), np.empty(0)
    values, vectors = eigh(product, subset_by_index=[size - kept, size - 1])
    axes = vectors.T if size == width else (centred.T @ vectors).T
    lengths = np.linalg.norm(axes, axis=1, keepdims=True)
    return axes / np.where(lengths > 0, lengths, 1), np.maximum(values, 0)


def _shrinkage(centred: np.ndarray, product: np.ndarray) -> float:
    """How much of the covariance is replaced by a multiple of the identity: Ledoit and Wolf 2004, from ``product``.

    The Frobenius norm and the trace of the covariance (d, d) are those of the inner products (n, n) as well.
    """
    count, width = centred.shape
    square = float((product**2).sum())
    apart = square - float(np.trace(product)) ** 2 / width
    error = (float(((centred**2).sum(axis=1) ** 2).mean()) - square) / count
    return min(max(error, 0.0), apart) / apart if apart > 0 else 0.0


def _distances(rows: np.ndarray, mean: np.ndarray, axes: np.ndarray, variances: np.ndarray, rest: float) -> np.ndarray:
    centred = rows - mean
    along = centred @ axes.T
    aside = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0)
    return np.sqrt(((along**2 / variances).sum(axis=1) + aside / rest) / len(mean))


def _checked(table: np.ndarray) -> np.ndarray:
    """``table`` as float64 (n, d); raises :class:`UserError` where it is no table of finite numbers."""
    table = np.asarray(table)
    if table.ndim != 2 or table.shape[1] == 0 or not len(table) or table.dtype.kind not in "fiub":
        raise UserError(f"typicality needs a table of numbers (slices, features), and this has the shape {table.shape}")
    table = table.astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(wrong):
        raise UserError(f"the table holds NaN or infinite values in row {wrong[0]}: leave it out or mend the scan")
    return table


def _rounded(values: np.ndarray) -> np.ndarray:
    """To 7 digits, which is what features have, so that the JSON stays small."""
    return np.array([float(f"{value:.{_DIGITS}g}") for value in values.ravel()]).reshape(values.shape)
