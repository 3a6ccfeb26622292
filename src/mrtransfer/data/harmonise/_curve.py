"""Harmonisers that move intensities along a curve of their own for every scan, whatever lies where."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Literal

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.strict import Strict
from mrtransfer.data.harmoniser import Harmoniser, checked
from mrtransfer.data.silhouette import foreground as silhouettes
from mrtransfer.data.volume import background_values

Foreground = Literal["nonzero", "silhouette", "above_mean"]
_EMPTY = 0.25  # share of pixels of one value from which a background counts as removed, as for plans


class Reference(Strict):
    """What is remembered of the training images; one entry per channel."""

    foreground: Foreground
    background: tuple[float, ...]
    """The value around the head: the median over the training images."""
    values: tuple[tuple[float, ...], ...]
    """What the harmoniser's ``_combined`` gave."""


class CurveHarmoniser(Harmoniser):
    """Every channel of a scan is changed by one non-decreasing, piecewise linear function of its intensity.

    The function depends on the scan's foreground alone. Pixels of exactly the background's value get that of the
    reference (0 in most data); between background and foreground the function is linear.
    """

    learned_type: ClassVar[type[Strict]] = Reference

    foreground: Literal["auto", "nonzero", "silhouette", "above_mean"] = "auto"
    """What of a channel counts. ``nonzero``: all but the value in all corners of the image, or else 0. ``silhouette``:
    the anatomy in noisy air, dark fluid included. ``above_mean``: what is brighter than the image's mean (Nyúl & Udupa
    1999). ``auto``: ``nonzero`` where more than half of the training images have at least a quarter of their pixels at
    exactly the background's value, otherwise ``silhouette``."""

    @abstractmethod
    def _summary(self, values: np.ndarray) -> np.ndarray:
        """(m,) float64: what counts of the foreground intensities (k,) of one channel of one image."""

    @abstractmethod
    def _combined(self, summaries: np.ndarray) -> np.ndarray:
        """(r,): the reference from summaries (n, m) of n images."""

    @abstractmethod
    def _curve(self, values: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Knots (intensities, what they become) of the curve for an image whose foreground is ``values`` (k,)."""

    def _learn(self, images: Iterable[np.ndarray]) -> Reference:
        kinds: list[Foreground] = ["nonzero", "silhouette"] if self.foreground == "auto" else [self.foreground]
        backgrounds: list[np.ndarray] = []
        removed: list[bool] = []
        summaries: dict[Foreground, list[list[np.ndarray]]] = {kind: [] for kind in kinds}
        for number, image in enumerate(images, 1):
            image = checked(image)
            background = background_values(image)
            if backgrounds and len(background) != len(backgrounds[0]):
                raise UserError(
                    f"harmonise {self.name}: image {number} of the reference has {len(image)} channels, and those "
                    f"before it have {len(backgrounds[0])}; all must have the same"
                )
            backgrounds.append(background)
            removed.append(background_removed(image, background))
            for kind, rows in summaries.items():
                inside = [c[mask] for c, mask in zip(image, foreground_of(image, background, kind), strict=True)]
                rows.append([self._summary(values) if shows(values) else np.empty(0) for values in inside])
        if not backgrounds:
            raise UserError(f"harmonise {self.name}: there are no images to learn the reference from")
        chosen = kinds[0] if 2 * sum(removed) > len(removed) else kinds[-1]
        return Reference(
            foreground=chosen,
            background=tuple(np.median(backgrounds, axis=0).tolist()),
            values=tuple(self._of_channel(c, column) for c, column in enumerate(zip(*summaries[chosen], strict=True))),
        )

    def _of_channel(self, channel: int, column: tuple[np.ndarray, ...]) -> tuple[float, ...]:
        """The reference of one channel from its summaries; those of images that show nothing are empty."""
        found = [summary for summary in column if len(summary)]
        if not found:
            raise UserError(
                f"harmonise {self.name}: channel {channel + 1} is constant in all {len(column)} images of the "
                "reference; leave the channel out, or choose another reference"
            )
        return tuple(self._combined(np.stack(found)).tolist())

    def _harmonised(self, image: np.ndarray, learned: Reference) -> np.ndarray:
        if len(image) != len(learned.values):
            raise UserError(
                f"has {len(image)} channels, and the harmoniser was fitted on images of {len(learned.values)}; "
                "both must agree"
            )
        result, background = image.copy(), background_values(image)
        masks = foreground_of(image, background, learned.foreground)
        rows = zip(image, result, masks, background, learned.values, learned.background, strict=True)
        for channel, out, mask, own, reference, theirs in rows:
            values = channel[mask]
            if not shows(values):
                continue
            x, y = without_ties(*self._curve(values, np.array(reference)))
            if len(x) < 2:
                continue
            x, y = extended(x, y, float(values.min()), float(values.max()))
            if learned.foreground != "nonzero" and own < x[0] and theirs <= y[0]:
                x, y = np.append(own, x), np.append(theirs, y)
            lit = channel != own
            moved = channel[lit]
            out[lit] = np.interp(moved, *extended(x, y, float(moved.min()), float(moved.max())))
            out[~lit] = theirs
        return result


def background_removed(image: np.ndarray, background: np.ndarray) -> bool:
    """Whether at least a quarter of the pixels of ``image`` (C, *spatial) are exactly its ``background`` (C,)."""
    return bool(np.mean([np.mean(c == b) for c, b in zip(image, background, strict=True)]) >= _EMPTY)


def foreground_of(image: np.ndarray, background: np.ndarray, how: Foreground) -> np.ndarray:
    """bool, of the shape of ``image`` (C, *spatial): which pixels count; ``background`` (C,) is its own."""
    each = (-1, *[1] * (image.ndim - 1))
    if how == "nonzero":
        return np.asarray(image != background.reshape(each))
    if how == "silhouette":
        return np.broadcast_to(silhouettes(image[None])[0], image.shape)
    means = image.reshape(len(image), -1).mean(axis=1, dtype=np.float64)
    return np.asarray(image > means.reshape(each))


def shows(values: np.ndarray) -> bool:
    """Whether a foreground has more than one value."""
    return bool(values.size) and bool(values.min() < values.max())


def quantiles(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """float64 quantiles of ``values`` (k,) at ``shares`` (0 to 1), linear between order statistics.

    One sort: much faster than NumPy's selection where there are many shares.
    """
    ordered = np.sort(values)
    place = shares * (len(ordered) - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, len(ordered) - 1)
    low, high = ordered[below].astype(np.float64), ordered[above].astype(np.float64)
    return low + (high - low) * (place - below)


def without_ties(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knots with every ``x`` once: what equal ones become is their average. Both must be in ascending order."""
    unique, where = np.unique(x, return_inverse=True)
    average = np.bincount(where, weights=y) / np.bincount(where)
    return unique, np.maximum.accumulate(average)  # ascending, also after rounding


def extended(x: np.ndarray, y: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Knots from at most ``low`` to at least ``high``: the first and the last piece are lengthened."""
    if low < x[0]:
        x, y = np.append(low, x), np.append(y[0] - (x[0] - low) * (y[1] - y[0]) / (x[1] - x[0]), y)
    if high > x[-1]:
        x, y = np.append(x, high), np.append(y, y[-1] + (high - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2]))
    return x, y
