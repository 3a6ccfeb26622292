"""Intensities: what is background, and how channels are normalised."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mrtransfer.data.volume import background_values

Normalise = Literal["zscore", "zscore_nonzero", "uint8"]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's red, green and blue, from 0 to 1."""


def foreground(image: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: where any channel of ``image`` (C, X, Y, Z) differs from its background value."""
    inside = np.zeros(image.shape[1:], bool)
    for channel, value in zip(image, background_values(image), strict=True):
        inside |= channel != value
    return inside


def normalised(image: np.ndarray, how: Sequence[Normalise]) -> np.ndarray:
    """``image`` (C, X, Y, Z) float32 with channel i normalised as ``how[i]`` says; a channel of one value becomes 0."""
    result = np.empty(image.shape, np.float32)
    inside = foreground(image) if "zscore_nonzero" in how else np.ones(image.shape[1:], bool)
    means, deviations = IMAGENET if len(how) == 3 else ((0.5,) * len(how), (0.5,) * len(how))
    for channel, kind, out, mean, deviation in zip(image, how, result, means, deviations, strict=True):
        if kind == "uint8":
            np.multiply(channel, 1 / (255 * deviation), out=out)
            out -= mean / deviation
            continue
        values = channel[inside] if kind == "zscore_nonzero" else channel
        average = values.mean(dtype=np.float64) if values.size else 0.0
        spread = values.std(dtype=np.float64) if values.size else 0.0
        np.subtract(channel, np.float32(average), out=out)
        out *= np.float32(1 / spread if spread > 0 else 0)
        if kind == "zscore_nonzero":
            out[~inside] = 0
    return result


def padding_values(image: np.ndarray, how: Sequence[Normalise]) -> np.ndarray:
    """What surrounds a prepared ``image`` (C, x, y, z) where a patch reaches beyond it; float32 (C,).

    0 for ``zscore_nonzero``, which is its background; else the channel's least value.
    """
    least = image.reshape(len(image), -1).min(axis=1)
    return np.array([0 if kind == "zscore_nonzero" else low for kind, low in zip(how, least, strict=True)], np.float32)
