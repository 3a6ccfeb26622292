"""What is shown, in coarse pixels."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from mrtransfer.data.silhouette import foreground, ranks
from mrtransfer.data.volume.resample import resample
from mrtransfer.shift.feature import Family, Feature, each_slice
from mrtransfer.shift.features import FEATURES
from mrtransfer.shift.slices import Slices


@FEATURES.register("pixels")
class Pixels(Feature):
    """Coarse pixels, each the rank of its intensity within the anatomy: what is shown, and where.

    In each channel the pixels of the foreground are numbered from dark to bright, in (0, 1], the background is 0, and
    the picture is averaged to ``size`` × ``size``.

    Moved by another body part, view, position or contrast (T1 against T2 reorders the tissues), and by lesions. Not
    moved by any scale of the intensities, and hardly by a gamma curve, a window or noise: ranks keep their order, and
    coarse pixels average.
    """

    name: ClassVar[str] = "pixels"
    words: ClassVar[str] = "coarse pixels, by rank"
    family: ClassVar[Family] = "content"

    size: int = Field(24, ge=4, le=128)
    """Pixels of a side."""

    def table(self, slices: Slices, learned: Mapping[str, Any]) -> np.ndarray:
        """(N, C · size²), channel by channel and row by row."""
        return each_slice(slices, lambda image, _: self._row(image), "coarse pixels")

    def _row(self, image: np.ndarray) -> np.ndarray:
        inside = foreground(image[None])[0]
        ranked = np.stack([ranks(channel, inside) for channel in image])
        return resample(ranked, (len(ranked), self.size, self.size), ("linear",) * 3).ravel()
