"""Z-score: mean and standard deviation become those of the reference."""

from typing import ClassVar

import numpy as np

from mrtransfer.data.harmonise import HARMONISERS
from mrtransfer.data.harmonise._curve import CurveHarmoniser


@HARMONISERS.register("z_score")
class ZScore(CurveHarmoniser):
    """Z-score within each scan's foreground, on the scale of the source: the same mean and standard deviation.

    The z-score itself would leave the range of 8 bits; on the source's average mean and standard deviation it is the
    same up to one linear function for all scans. Before a plan that z-scores the same foreground it changes nothing.
    """

    name: ClassVar[str] = "z_score"
    words: ClassVar[str] = "z-score"

    def _summary(self, values: np.ndarray) -> np.ndarray:
        return np.array([values.mean(dtype=np.float64), values.std(dtype=np.float64)])

    def _combined(self, summaries: np.ndarray) -> np.ndarray:
        return summaries.mean(axis=0)

    def _curve(self, values: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (mean, deviation), ends = self._summary(values), np.array([values.min(), values.max()], np.float64)
        return ends, reference[0] + (ends - mean) * (reference[1] / deviation)
