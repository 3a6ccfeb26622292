"""Histogram matching: the whole distribution of intensities becomes that of the reference."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from mrtransfer.data.harmonise import HARMONISERS
from mrtransfer.data.harmonise._curve import CurveHarmoniser, quantiles


@HARMONISERS.register("histogram_matching")
class HistogramMatching(CurveHarmoniser):
    """Histogram matching to the average quantile function of the source's images.

    The average of quantile functions is the distribution that is nearest to all of them (the barycentre in the
    2-Wasserstein distance; Agueh & Carlier 2011). Where it is that of a single image, this is classical histogram
    specification (Gonzalez & Woods, Digital Image Processing, 3.3).
    """

    name: ClassVar[str] = "histogram_matching"
    words: ClassVar[str] = "histogram matching"

    points: int = Field(1001, ge=2)
    """Quantiles that describe a distribution, evenly spaced from the least value to the greatest."""

    def _summary(self, values: np.ndarray) -> np.ndarray:
        return quantiles(values, np.linspace(0, 1, self.points))

    def _combined(self, summaries: np.ndarray) -> np.ndarray:
        return summaries.mean(axis=0)

    def _curve(self, values: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._summary(values), reference
