"""How bright the anatomy is."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from mrtransfer.data.silhouette import foreground
from mrtransfer.shift.feature import Family, Feature, each_slice
from mrtransfer.shift.features import FEATURES
from mrtransfer.shift.slices import Slices

_ENDS = (1.0, 99.0)  # percentiles of a slice's intensities, of which the range is made


@FEATURES.register("histogram")
class Histogram(Feature):
    """Histogram of the raw intensities within the anatomy, and the part of the picture that is anatomy.

    Bins are equally wide over one range for all domains, and what lies outside counts in the first and last bin. The
    range goes, in each channel, from the lowest to the highest of the domains' medians of their slices' 1st and 99th
    percentiles, and as far again to both sides as half of that.

    Moved by any change of intensities: scale, gamma, window, bias field, contrast. Also by content, where it changes
    how much there is of each tissue. Not moved by where things are, as long as there is as much of them.
    """

    name: ClassVar[str] = "histogram"
    words: ClassVar[str] = "intensity histogram"
    family: ClassVar[Family] = "intensity"

    bins: int = Field(32, ge=2, le=1024)

    def learn(self, *domains: Slices) -> dict[str, Any]:
        """``low`` and ``high``: the range of each channel."""
        ends = np.stack([np.median(_ends(domain), axis=0) for domain in domains])  # (domains, C, 2)
        low, high = ends[..., 0].min(axis=0), ends[..., 1].max(axis=0)
        wider = np.maximum((high - low) / 2, 1e-6 * np.maximum(np.abs(high), 1e-30))
        return {"low": (low - wider).tolist(), "high": (high + wider).tolist()}

    def table(self, slices: Slices, learned: Mapping[str, Any]) -> np.ndarray:
        """(N, C · bins + 1): shares of the foreground's pixels in each bin, and the foreground's of the picture."""
        ranges = list(zip(learned["low"], learned["high"], strict=True))
        return each_slice(slices, lambda image, _: self._row(image, ranges), "histograms")

    def _row(self, image: np.ndarray, ranges: list[tuple[float, float]]) -> np.ndarray:
        inside = foreground(image[None])[0]
        row = [np.array([inside.mean()])]
        for channel, (low, high) in zip(image, ranges, strict=True):
            place = np.floor((channel[inside].astype(np.float64) - low) * (self.bins / (high - low)))
            counts = np.bincount(np.clip(place, 0, self.bins - 1).astype(np.int64), minlength=self.bins)
            row.insert(-1, counts / counts.sum())
        return np.concatenate(row)


def _ends(slices: Slices) -> np.ndarray:
    """(N, C, 2): low and high percentile of the foreground of every slice."""

    def row(image: np.ndarray, _: int) -> np.ndarray:
        return np.percentile(image[:, foreground(image[None])[0]], _ENDS, axis=1).T.ravel()

    return each_slice(slices, row, "range of intensities").reshape(len(slices), -1, 2)
