"""How alike two networks see the same samples: linear centred kernel alignment."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.plain import plain
from mrtransfer.shift.weighed import part_starts

_NUMBERS_AT_ONCE = 1 << 22  # of one block of inner products, or of rows × resamples: 32 MiB


@dataclass(frozen=True)
class Similarity:
    """Linear CKA with its 95 % interval over subjects: 1 the same up to rotation and scale, 0 unrelated."""

    value: float
    low: float
    high: float
    subjects: int
    resamples: int
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON can write them."""
        return plain(asdict(self))


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """‖XᵀY‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) of centred features ``x`` (n, d1) and ``y`` (n, d2) of the same n samples.

    Kornblith et al. 2019, "Similarity of neural network representations revisited", equation 4 with linear kernels.
    With fewer samples than features it is large for unrelated features too. Raises :class:`UserError` for unlike
    numbers of rows, NaN, fewer than two rows, and features that are all constant.
    """
    x, y = _check(x, y)
    if max(x.shape[1], y.shape[1]) > len(x):  # the same norms, from (n, n) instead of (d1, d2)
        x, y = x @ x.T, y @ y.T
        return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))
    across, of_x, of_y = (((a.T @ b) ** 2).sum() for a, b in ((x, y), (x, x), (y, y)))
    return float(across / np.sqrt(of_x * of_y))


def compare_networks(
    x: np.ndarray, y: np.ndarray, units: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> Similarity:
    """:func:`linear_cka` with an interval over subjects; ``units`` (n,) names the subject of every row.

    The interval is the 2.5 % and 97.5 % of bootstrap samples of subjects, moved so that their mean is the value, as a
    sample with copies always has a larger CKA, and clipped to [0, 1]. Raises :class:`UserError` as
    :func:`linear_cka` does, and for fewer than two subjects.
    """
    value = linear_cka(x, y)
    names, unit = np.unique(np.asarray(units).astype(str), return_inverse=True)
    if unit.shape != (len(x),):
        raise UserError(f"{len(x)} samples and {unit.size} subjects: give the subject of every sample")
    if len(names) < 2:
        raise UserError("all samples are of one subject: an interval over subjects needs at least two")
    order = np.argsort(unit, kind="stable")
    weights = _resamples(len(names), resamples, seed)
    x, y = _check(x, y)
    again = _weighed(x[order], y[order], unit[order], weights)
    low, high = np.quantile(again - again.mean() + value, [0.025, 0.975]) if resamples else (np.nan, np.nan)
    return Similarity(
        value=value,
        low=float(max(low, 0.0)),
        high=float(min(high, 1.0)),
        subjects=len(names),
        resamples=resamples,
        note=_note(len(x), max(x.shape[1], y.shape[1])),
    )


def _note(rows: int, width: int) -> str:
    if rows > width:
        return ""
    return f"{rows} samples for up to {width} features: CKA is large here even for unrelated networks"


def _check(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both tables in float64, centred, or the reason why they cannot be compared."""
    tables = []
    for name, table in (("X", x), ("Y", y)):
        table = np.asarray(table, np.float64)
        if table.ndim != 2 or len(table) < 2:
            raise UserError(
                f"{name} has the shape {table.shape}: give a table (samples, features) of at least two rows"
            )
        if not np.isfinite(table).all():
            raise UserError(f"{name} holds NaN or infinite values: leave these samples out of both tables")
        if (table == table[0]).all():
            raise UserError(f"every feature of {name} is constant: there is nothing to compare")
        tables.append(table - table.mean(0))
    if len(tables[0]) != len(tables[1]):
        raise UserError(
            f"X has {len(tables[0])} rows and Y has {len(tables[1])}: both networks must have seen the same samples"
        )
    return tables[0], tables[1]


def _resamples(subjects: int, number: int, seed: int) -> np.ndarray:
    """(number, subjects): how often each is drawn; two different ones at least."""
    generator = np.random.default_rng([seed, 4])
    drawn = generator.multinomial(subjects, np.full(subjects, 1 / subjects), size=number)
    while (alone := (drawn > 0).sum(1) < 2).any():
        drawn[alone] = generator.multinomial(subjects, np.full(subjects, 1 / subjects), size=int(alone.sum()))
    return drawn.astype(np.float64)


def _weighed(x: np.ndarray, y: np.ndarray, unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """CKA (B,) where the rows of subject s count ``weights`` (B, S) times; ``unit`` (n,) is sorted.

    With kernels K and L and weights w of the rows, n of them in all, tr(HKHL) =
    Σ w_i w_j K_ij L_ij − 2/n Σ w_i (Kw)_i (Lw)_i + (wᵀKw)(wᵀLw)/n². Nothing of size (n, n) is kept.
    """
    pairs = ((x, y), (x, x), (y, y))
    sums = [_pair_sums(left, right, unit) for left, right in pairs]
    total = weights @ np.bincount(unit).astype(np.float64)
    found = np.empty(len(weights))
    step = max(1, _NUMBERS_AT_ONCE // len(x))
    for start in range(0, len(weights), step):
        own, n = weights[start : start + step], total[start : start + step]
        rows = own[:, unit]
        seen = {id(table): (rows @ table) @ table.T for table in (x, y)}
        across, of_x, of_y = (
            np.einsum("bs,st,bt->b", own, inner, own, optimize=True)
            - 2 / n * (rows * seen[id(left)] * seen[id(right)]).sum(1)
            + (rows * seen[id(left)]).sum(1) * (rows * seen[id(right)]).sum(1) / n**2
            for (left, right), inner in zip(pairs, sums, strict=True)
        )
        found[start : start + step] = across / np.sqrt(of_x * of_y)
    return found


def _pair_sums(x: np.ndarray, y: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Σ K_ij L_ij (S, S) over the rows i of one subject and j of another."""
    starts = part_starts(unit)
    found = np.zeros((len(starts), len(starts)))
    step = max(1, _NUMBERS_AT_ONCE // len(x))
    for start in range(0, len(x), step):
        block = slice(start, start + step)
        products = (x[block] @ x.T) * (y[block] @ y.T)
        np.add.at(found, unit[block], np.add.reduceat(products, starts, axis=1))
    return found
