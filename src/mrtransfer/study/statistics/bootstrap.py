"""The bootstrap over test units and seeds: two crossed sources of chance, resampled independently.

A study's numbers would come out differently with other test subjects and with other seeds (other draws of labelled
subjects, other initial weights, other batch orders). Both are resampled, units and seeds independently of each other,
which is Owen's pigeonhole bootstrap (Annals of Applied Statistics 2007). All arms see the same draws, so a difference
between two arms is paired in both.

The draws give the shape of the interval. Their width is set right, because designs are small:

* crossed resampling counts the chance that belongs to one unit under one seed several times; the standard error here
  counts it once: units + seeds − (units × seeds), and not less than either (Cameron, Gelbach & Miller 2011);
* of U units, U − 1 are drawn (of S seeds, S − 1), which keeps the variance of a mean unbiased (McCarthy & Snowden
  1985);
* the interval is the percentile interval, centred on the estimate (the ECE of a resample is systematically larger than
  that of the sample) and stretched by t/z with Satterthwaite's degrees of freedom: few seeds are few, however many
  resamples are drawn of them;
* where no resample differs from another (every case right), a bootstrap would be certain; the rule of three
  (Hanley & Lippman-Hand 1983) gives ± 3/U instead.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from mrtransfer.common.files import digest
from mrtransfer.common.progress import progress
from mrtransfer.study.statistics.measures import Measures
from mrtransfer.study.statistics.pool import Cell, Pool

LEVEL = 0.95
_Z = float(stats.norm.ppf(0.5 + LEVEL / 2))
_SAME = 1e-12  # differences below this are rounding
_NUMBERS_AT_ONCE = 1 << 24  # weights of one block of resamples: 128 MiB at most


@dataclass(frozen=True, eq=False)
class Estimate:
    """A mean over seeds with its 95 % interval; ``draws`` (B,) are centred on ``value``. NaN where undefined."""

    value: float
    low: float
    high: float
    error: float  # standard error
    degrees: float  # Satterthwaite's degrees of freedom
    draws: np.ndarray
    per_seed: np.ndarray  # (S,)


class Bootstrap:
    """Every metric of every run of a :class:`Pool`, on the sample and on ``resamples`` resamples of its units."""

    def __init__(self, pool: Pool, measures: Measures, metrics: list[str], resamples: int, seed: int) -> None:
        self.pool = pool
        self.measures = measures
        self.resamples = resamples
        self._seed = seed
        self._values = _resampled(pool, measures, metrics, resamples, seed)

    def values(self, cell: Cell, metric: str, seeds: list[int]) -> np.ndarray:
        """(S, 1 + B): one row per seed; column 0 is the sample itself, the rest are its resamples."""
        return np.stack([self._values[cell, seed][metric] for seed in seeds])

    def seed_weights(self, count: int) -> np.ndarray:
        """(1 + B, S) weights of S seeds, each row adding up to 1; row 0 weighs all alike. The same for every arm."""
        drawn = max(count - 1, 1)
        generator = np.random.default_rng([self._seed, 1, count])
        picks = generator.multinomial(drawn, np.full(count, 1 / count), size=self.resamples)
        return np.concatenate([np.full((1, count), 1 / count), picks / drawn])

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean over seeds (1 + B,) of ``values`` (S, 1 + B), under the seeds' draws."""
        return np.einsum("bs,sb->b", self.seed_weights(len(values)), values)

    def estimate(self, values: np.ndarray, metric: str, *, difference: bool = False) -> Estimate:
        """Mean over seeds of ``values`` (S, 1 + B) with its interval, clipped to what the metric can be.

        A single unit says nothing of others: there is no interval then.
        """
        units = self.pool.unit_count
        per_seed = values[:, 0]
        value = float(per_seed.mean())
        draws = self.mean(values)[1:]
        usable = np.isfinite(draws)
        if not np.isfinite(value) or units < 2 or usable.mean() < 0.5:
            return Estimate(value, np.nan, np.nan, np.nan, np.nan, draws, per_seed)
        draws = draws[usable] - draws[usable].mean()
        error, degrees = _standard_error(values, units)
        least, most = self._range(metric, difference)
        if error < _SAME:
            reach = 3 / units if np.isfinite(most) else 0.0
            bounds = max(value - reach, least), min(value + reach, most)
            return Estimate(value, *bounds, 0.0, np.inf, draws + value, per_seed)
        draws *= error / max(float(draws.std()), _SAME)
        stretch = float(stats.t.ppf(0.5 + LEVEL / 2, degrees)) / _Z
        low, high = value + stretch * np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(value, max(float(low), least), min(float(high), most), error, degrees, draws + value, per_seed)

    def _range(self, metric: str, difference: bool) -> tuple[float, float]:
        """What the metric, or a difference of it, can be."""
        low, high = self.measures.ranges[metric]
        return (low - high, high - low) if difference else (low, high)

    def p_value(self, difference: Estimate) -> float:
        """Two-sided p for a difference of zero, never smaller than the design could show.

        The largest of: the share of resamples on the far side of zero, doubled, with one added to both counts (Davison
        & Hinkley 1997, eq. 4.11); Student's t with Satterthwaite's degrees of freedom, which is what few seeds can
        show; and 2 / 2^U, the smallest p of a sign-flip test over U units.
        """
        if not np.isfinite(difference.error):
            return float("nan")
        if difference.error < _SAME:
            return 1.0
        count = len(difference.draws)
        below = np.count_nonzero(difference.draws <= _SAME) + 1
        above = np.count_nonzero(difference.draws >= -_SAME) + 1
        by_t = 2 * float(stats.t.sf(abs(difference.value) / difference.error, difference.degrees))
        return min(1.0, max(2 * min(below, above) / (count + 1), by_t, 2.0 ** (1 - self.pool.unit_count)))


def _resampled(
    pool: Pool, measures: Measures, metrics: list[str], resamples: int, seed: int
) -> dict[tuple[Cell, int], dict[str, np.ndarray]]:
    """(cell, seed) -> metric -> (1 + B,). Equal predictions, such as a convex probe's on all labels, are done once."""
    units = pool.unit_count
    generator = np.random.default_rng([seed, 0])
    block = max(1, _NUMBERS_AT_ONCE // units)
    unique = {}
    for cell, runs in pool.runs.items():
        for number, values in runs.items():
            unique[cell, number] = digest(np.ascontiguousarray(values).data.cast("B"), 32)
    first = {name: key for key, name in reversed(list(unique.items()))}
    pieces: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in first}
    starts = range(0, resamples, block)
    with progress("statistics", len(first) * len(starts)) as advance:
        for start in starts:
            size = min(block, resamples - start)
            counts = generator.multinomial(max(units - 1, 1), np.full(units, 1 / units), size=size).astype(float)
            if start == 0:
                counts = np.concatenate([np.ones((1, units)), counts])
            for name, (cell, number) in first.items():
                values = pool.runs[cell][number]
                pieces[name].append(measures.resampled(pool.labels, values, counts, units=pool.units, metrics=metrics))
                advance(1)
    joined = {name: {m: np.concatenate([part[m] for part in parts]) for m in metrics} for name, parts in pieces.items()}
    return {key: joined[name] for key, name in unique.items()}


def _standard_error(values: np.ndarray, units: int) -> tuple[float, float]:
    """Standard error of the mean over seeds of ``values`` (S, 1 + B), and its degrees of freedom (Satterthwaite 1946).

    With v₁ the bootstrap variance over units of one seed's value and v that of their mean, (v₁ − v) / (S − 1) is the
    part of v that belongs to single units under single seeds, which the variance between seeds holds once more.
    """
    seeds = len(values)
    of_units = float(np.nanvar(values[:, 1:].mean(0)))
    if seeds == 1:
        return float(np.sqrt(of_units)), max(units - 1.0, 1.0)
    of_seeds = float(values[:, 0].var(ddof=1)) / seeds
    of_both = max((float(np.nanvar(values[:, 1:], axis=1).mean()) - of_units) / (seeds - 1), 0.0)
    total = max(of_units, of_seeds, of_units + of_seeds - of_both)
    parts = ((of_units, units - 1), (of_seeds, seeds - 1), (of_both, (units - 1) * (seeds - 1)))
    spread = sum(variance**2 / degrees for variance, degrees in parts if degrees > 0)
    return float(np.sqrt(total)), max(total**2 / spread, 1.0) if spread > 0 else 1.0
