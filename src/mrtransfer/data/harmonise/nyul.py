"""Nyúl and Udupa's standardisation: percentiles of the intensities are moved to a standard scale."""

from itertools import pairwise
from typing import ClassVar

import numpy as np
from pydantic import Field, field_validator

from mrtransfer.data.harmonise import HARMONISERS
from mrtransfer.data.harmonise._curve import CurveHarmoniser, quantiles


@HARMONISERS.register("nyul")
class Nyul(CurveHarmoniser):
    """Piecewise linear standardisation of MR intensities at percentiles (Nyúl & Udupa).

    Nyúl & Udupa, Magnetic Resonance in Medicine 42, 1999; with deciles as landmarks: Nyúl, Udupa & Zhang, IEEE
    Transactions on Medical Imaging 19, 2000. In training, each image's landmarks are moved linearly so that the first
    and the last meet the ends of the standard scale, and are then averaged over images. A scan is changed piece by
    piece between its own landmarks and these; beyond the outer ones the outer pieces go on.
    """

    name: ClassVar[str] = "nyul"
    words: ClassVar[str] = "Nyúl standardisation"

    landmarks: tuple[float, ...] = Field(
        (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0), min_length=2
    )
    """Percentiles of the foreground."""
    scale: tuple[float, float] | None = None
    """The standard scale's ends; by default the averages of the training images' first and last landmarks, so that
    scans keep the units of the source."""

    @field_validator("landmarks")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= low < high <= 100 for low, high in pairwise(value)):
            raise ValueError("landmarks are percentiles from 0 to 100 in ascending order, such as [1, 50, 99]")
        return value

    @field_validator("scale")
    @classmethod
    def _upwards(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not -np.inf < value[0] < value[1] < np.inf:
            raise ValueError("scale is two numbers, the lower first, such as [0, 100]")
        return value

    def _summary(self, values: np.ndarray) -> np.ndarray:
        return quantiles(values, np.array(self.landmarks) / 100)

    def _combined(self, summaries: np.ndarray) -> np.ndarray:
        low, high = summaries[:, 0].mean(), summaries[:, -1].mean()
        spread = summaries[:, -1] - summaries[:, 0]
        if not spread.any():  # nearly all of every image has one value: a single landmark, which changes nothing
            return summaries.mean(axis=0)
        if self.scale is not None:
            low, high = self.scale
        usable = summaries[spread > 0]
        relative = (usable - usable[:, :1]) / (usable[:, -1:] - usable[:, :1])
        return low + (high - low) * relative.mean(axis=0)

    def _curve(self, values: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._summary(values), reference
