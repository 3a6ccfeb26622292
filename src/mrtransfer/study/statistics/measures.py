"""What a study measures: the metrics of a task with their direction, range and words, and their values on resamples.

The statistics know nothing else of a task. Of classification they keep probabilities, because its metrics are no means
over samples; of tasks that score every subject by itself (Dice, SSIM) they keep a table of these scores.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.tasks.classification import metrics as classification

SHARE = "%"  # the unit of metrics between 0 and 1 that are told in per cent, and their differences in points
_DECIMALS = {SHARE: 1, "mm": 1, "ml": 1, "": 3}
_OTHER_DECIMALS = 2


@dataclass(frozen=True)
class Measures(ABC):
    """The metrics of a task. Every mapping has all of ``names``, but ``units``: without a unit a number stands alone.

    ``ranges``: least and largest possible value, infinity allowed; ``words``: the name within a sentence (``AUROC``);
    ``units``: :data:`SHARE` or a unit such as ``mm``.
    """

    names: tuple[str, ...]
    higher_is_better: Mapping[str, bool]
    ranges: Mapping[str, tuple[float, float]]
    words: Mapping[str, str]
    units: Mapping[str, str]

    @abstractmethod
    def resampled(
        self,
        labels: np.ndarray,
        values: np.ndarray,
        weights: np.ndarray,
        *,
        units: np.ndarray | None = None,
        metrics: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Metrics (by default all) under B weightings of the same values: name to (B,), NaN where undefined.

        ``labels`` (n,), ``values`` (n, …); ``weights`` (B, n), or (B, U) together with ``units`` (n,), the column of
        ``weights`` that belongs to each row.
        """

    @abstractmethod
    def notes(
        self, labels: np.ndarray, runs: Sequence[np.ndarray], metrics: Sequence[str], classes: Sequence[str] | None
    ) -> list[str]:
        """Sentences on what ``metrics`` leave out, of ``labels`` (n,) and the values (n, …) of every run."""

    def check(self, name: str) -> None:
        """Raise :class:`UserError` where ``name`` is no metric of this task."""
        if name not in self.names:
            raise unknown_name("metric", name, self.names)

    def sign(self, name: str) -> int:
        """+1 where a higher value is better, −1 where a lower one is."""
        return 1 if self.higher_is_better[name] else -1

    def is_share(self, name: str) -> bool:
        """Whether the metric is told in per cent."""
        return self.units.get(name, "") == SHARE

    def scale(self, name: str) -> int:
        """What a value is multiplied with to be told: 100 of shares, otherwise 1."""
        return 100 if self.is_share(name) else 1

    def number(self, value: float, name: str) -> str:
        """A value or difference without its unit: ``12.3`` (per cent, or points of it), ``0.120``, ``1.4`` (mm)."""
        decimals = _DECIMALS.get(self.units.get(name, ""), _OTHER_DECIMALS)
        text = f"{self.scale(name) * value:.{decimals}f}"
        return "0.0" if text == "-0.0" else text.replace("-", "−")

    def score(self, value: float, name: str) -> str:
        """A value with its unit: ``81.2 %``, ``1.4 mm``, ``0.120``."""
        return f"{self.number(value, name)} {self.units.get(name, '')}".rstrip()

    def difference(self, value: float, name: str) -> str:
        """A difference with its unit: ``12.3 points``, ``1.4 mm``, ``0.120``."""
        if self.is_share(name):
            text = self.number(value, name)
            return f"{text} point{'' if text.lstrip('−') == '1.0' else 's'}"
        return self.score(value, name)

    def amount(self, value: float, name: str) -> str:
        """A difference in words: ``12.3 points of Dice``, ``1.4 mm of HD95``, ``0.120 of log loss``."""
        return f"{self.difference(value, name)} of {self.words[name]}"


@dataclass(frozen=True)
class _Classification(Measures):
    """Metrics of probabilities (n, C) against classes."""

    def resampled(
        self,
        labels: np.ndarray,
        values: np.ndarray,
        weights: np.ndarray,
        *,
        units: np.ndarray | None = None,
        metrics: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        wanted = self.names if metrics is None else metrics
        return classification.evaluate_resampled(labels, values, weights, units=units, metrics=wanted)

    def notes(
        self, labels: np.ndarray, runs: Sequence[np.ndarray], metrics: Sequence[str], classes: Sequence[str] | None
    ) -> list[str]:
        absent = [c for c in range(runs[0].shape[1]) if not (labels == c).any()]
        if not absent:
            return []
        named = ", ".join(str(classes[c]) if classes else f"class {c}" for c in absent)
        return [f"No test sample is labelled {named}; averages over classes leave it out."]


@dataclass(frozen=True)
class _Table(Measures):
    """Means of a table (n, M) with one column per metric."""

    def resampled(
        self,
        labels: np.ndarray,
        values: np.ndarray,
        weights: np.ndarray,
        *,
        units: np.ndarray | None = None,
        metrics: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        wanted = self.names if metrics is None else tuple(metrics)
        for name in wanted:
            self.check(name)
        table = self._checked(values)[:, [self.names.index(name) for name in wanted]]
        known = np.isfinite(table)
        counted = np.concatenate([np.where(known, table, 0.0), known], axis=1)
        weights = np.asarray(weights, dtype=float)
        if units is not None:
            per_unit = np.zeros((weights.shape[1], counted.shape[1]))
            np.add.at(per_unit, units, counted)
            counted = per_unit
        sums, totals = np.split(weights @ counted, 2, axis=1)
        means = np.divide(sums, totals, out=np.full_like(sums, np.nan), where=totals > 0)
        return {name: means[:, column] for column, name in enumerate(wanted)}

    def notes(
        self, labels: np.ndarray, runs: Sequence[np.ndarray], metrics: Sequence[str], classes: Sequence[str] | None
    ) -> list[str]:
        undefined = np.logical_or.reduce([~np.isfinite(self._checked(values)) for values in runs]).sum(axis=0)
        counts = dict(zip(self.names, undefined, strict=True))
        return [
            f"{self.words[name][:1].upper()}{self.words[name][1:]} is undefined for {counts[name]} of {len(labels)} "
            "test rows in at least one run; averages leave these out."
            for name in metrics
            if counts[name]
        ]

    def _checked(self, values: np.ndarray) -> np.ndarray:
        table = np.asarray(values, dtype=float)
        if table.ndim != 2 or table.shape[1] != len(self.names):
            raise UserError(
                f"scores: shape {table.shape} does not fit; right is one row per subject and one column for each of "
                f"the {len(self.names)} metrics {', '.join(self.names)}"
            )
        return table


CLASSIFICATION: Measures = _Classification(
    names=classification.METRICS,
    higher_is_better=classification.HIGHER_IS_BETTER,
    ranges=classification.RANGES,
    words=classification.WORDS,
    units={name: SHARE for name, higher in classification.HIGHER_IS_BETTER.items() if higher},
)


def table_measures(
    names: Sequence[str],
    higher_is_better: Mapping[str, bool],
    ranges: Mapping[str, tuple[float, float]],
    words: Mapping[str, str],
    units: Mapping[str, str],
) -> Measures:
    """Measures of a task whose every subject has its own score.

    The values are a table (n, M): one row per subject, columns in the order of ``names``. A metric is the weighted mean
    of its column. An undefined score (NaN or infinite) has no weight in its column, so that two arms may be compared
    on different subjects, which a note says; where none is defined, neither is the mean. The labels are not looked at.

    ``units``: :data:`SHARE` (``%``) of metrics told in points of a percent, or what follows the number (``mm``).
    """
    return _Table(tuple(names), dict(higher_is_better), dict(ranges), dict(words), dict(units))
