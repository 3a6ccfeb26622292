"""First-order and texture statistics of the anatomy."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from mrtransfer.common.errors import UserError
from mrtransfer.data.silhouette import foreground
from mrtransfer.shift.feature import Family, Feature, each_slice
from mrtransfer.shift.features import FEATURES
from mrtransfer.shift.slices import Slices

_ENDS = (1.0, 99.0)  # percentiles between which intensities are divided into levels
_CONSTANT = 1e-6  # of a column's mean; a smaller spread is rounding
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))

FIRST_ORDER = ("mean", "sd", "10th percentile", "median", "90th percentile", "skewness", "kurtosis", "entropy")
TEXTURE = ("gradient", "sd of gradient", "contrast", "homogeneity", "energy", "correlation", "joint entropy")


@FEATURES.register("radiomics")
class Radiomics(Feature):
    """First-order and texture statistics of the anatomy, standardised over all domains.

    First order, of raw intensities: mean, standard deviation, percentiles, skewness, kurtosis, entropy. Texture: the
    gradient (relative to the mean), and contrast, homogeneity, energy, correlation and entropy of the co-occurrence of
    neighbours' grey levels (Haralick et al. 1973; ``levels`` between the slice's own 1st and 99th percentile, in four
    directions). And the part of the picture that is anatomy. Each column has mean 0 and standard deviation 1 over the
    slices of all domains; constant ones are left out.

    It counts to the family of intensity, because scale and gamma move all of its first order. But its texture is moved
    by noise and resolution too, and both by content: it is a summary of everything, as in the Fréchet radiomics
    distance (Konz et al. 2024), and says less than others about what has shifted. Not moved by where things are.
    """

    name: ClassVar[str] = "radiomics"
    words: ClassVar[str] = "first-order and texture statistics"
    family: ClassVar[Family] = "intensity"

    levels: int = Field(16, ge=2, le=128)

    def learn(self, *domains: Slices) -> dict[str, Any]:
        """``columns`` that are not constant, their ``mean`` and ``sd``."""
        pooled = np.concatenate([self._raw(domain) for domain in domains]).astype(np.float64)
        mean, sd = pooled.mean(axis=0), pooled.std(axis=0)
        columns = np.flatnonzero(sd > _CONSTANT * np.abs(mean))
        if not len(columns):
            names = " and ".join(dict.fromkeys(domain.name for domain in domains))
            raise UserError(f"{names}: every statistic of the feature radiomics is the same in all slices")
        return {"columns": columns.tolist(), "mean": mean[columns].tolist(), "sd": sd[columns].tolist()}

    def table(self, slices: Slices, learned: Mapping[str, Any]) -> np.ndarray:
        """(N, columns that are not constant), standardised."""
        raw = self._raw(slices)[:, learned["columns"]].astype(np.float64)
        return ((raw - np.array(learned["mean"])) / np.array(learned["sd"])).astype(np.float32)

    def _raw(self, slices: Slices) -> np.ndarray:
        return each_slice(slices, lambda image, _: self._row(image), "statistics")

    def _row(self, image: np.ndarray) -> np.ndarray:
        inside = foreground(image[None])[0]
        parts = [_of_channel(channel.astype(np.float64), inside, self.levels) for channel in image]
        return np.concatenate([*parts, [inside.mean()]])


def _of_channel(channel: np.ndarray, inside: np.ndarray, levels: int) -> np.ndarray:
    values = channel[inside]
    grey = _grey_levels(channel, values, levels)
    mean, sd = values.mean(), values.std()
    z = (values - mean) / sd if sd > 0 else np.zeros_like(values)
    share = np.bincount(grey[inside], minlength=levels) / len(values)
    first = [mean, sd, *np.percentile(values, (10, 50, 90)), (z**3).mean(), (z**4).mean(), _entropy(share)]
    steepness = np.hypot(*np.gradient(channel))[inside] / (abs(mean) if mean != 0 else 1.0)
    return np.array([*first, steepness.mean(), steepness.std(), *haralick(cooccurrence(grey, inside, levels))])


def _grey_levels(channel: np.ndarray, values: np.ndarray, levels: int) -> np.ndarray:
    low, high = np.percentile(values, _ENDS)
    if high <= low:
        return np.zeros(channel.shape, np.int64)
    return np.clip((channel - low) * (levels / (high - low)), 0, levels - 1).astype(np.int64)


def cooccurrence(grey: np.ndarray, inside: np.ndarray, levels: int) -> np.ndarray:
    """(levels, levels), summing to 1: how often neighbours, both ``inside`` (H, W), have each pair of ``grey`` levels.

    Symmetric, over four directions at a distance of one pixel.
    """
    counts = np.zeros(levels * levels)
    height, width = grey.shape
    for down, right in _STEPS:
        here = slice(0, height - down), slice(max(0, -right), width - max(0, right))
        there = slice(down, height), slice(max(0, right), width - max(0, -right))
        both = inside[here] & inside[there]
        counts += np.bincount(grey[here][both] * levels + grey[there][both], minlength=levels * levels)
    matrix = counts.reshape(levels, levels)
    matrix = matrix + matrix.T
    return matrix / max(matrix.sum(), 1.0)


def haralick(matrix: np.ndarray) -> list[float]:
    """Contrast, homogeneity (inverse difference moment), energy, correlation and entropy of a co-occurrence matrix."""
    level = np.arange(len(matrix))
    apart = (level[:, None] - level[None, :]) ** 2
    share = matrix.sum(axis=0)
    mean = (share * level).sum()
    variance = (share * (level - mean) ** 2).sum()
    together = (matrix * np.outer(level - mean, level - mean)).sum()
    return [
        float((matrix * apart).sum()),
        float((matrix / (1 + apart)).sum()),
        float((matrix**2).sum()),
        float(together / variance) if variance > 0 else 0.0,
        _entropy(matrix.ravel()),
    ]


def _entropy(share: np.ndarray) -> float:
    """In bits."""
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())
