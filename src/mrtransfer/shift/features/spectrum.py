"""How much of a picture is coarse and how much is fine."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.ndimage import convolve, distance_transform_edt

from mrtransfer.common.errors import UserError
from mrtransfer.data.silhouette import foreground, ranks
from mrtransfer.shift.feature import Family, Feature, each_slice
from mrtransfer.shift.features import FEATURES
from mrtransfer.shift.slices import Slices

_EMPTY = 1e-9  # of all power: less is rounding, and what no pixel can show
_EDGE = 24  # the anatomy fades out over this part of the picture's side
_LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)


@FEATURES.register("spectrum")
class Spectrum(Feature):
    """Radial power spectrum and noise level within the anatomy: how a scanner resolves and how noisy it is.

    Intensities are replaced by their ranks within the anatomy, which fade to their mean at its edge and outside, so
    that the head's outline is not most of what is seen. The power of this picture's k-space, without its centre, is
    averaged over rings of equal |k| and divided by its sum; the logarithm (base 10) of each of ``bins`` rings is a
    column. Rings are in cycles/mm up to the smallest Nyquist frequency of all domains, where all say how large their
    pixels are, and otherwise in cycles/pixel; ``unit`` settles it. One more column is the logarithm of the noise's
    standard deviation (Immerkær 1996), relative to the anatomy's.

    Moved by resolution, interpolation, filters, noise and ringing; also by contrast and content, as other tissues are
    bright, or other structures are there. Not moved by any scale of intensities, and hardly by a gamma curve. A picture
    on a grid coarser than its own has lost its highest frequencies: where scanners matter, slices as large as the
    scans' matrix show more. K-space is seen through its magnitude images, so that it can be compared with domains that
    have only images.
    """

    name: ClassVar[str] = "spectrum"
    words: ClassVar[str] = "radial power spectrum and noise"
    family: ClassVar[Family] = "scanner"

    bins: int = Field(24, ge=4, le=256)
    unit: Literal["auto", "mm", "pixel"] = "auto"

    def learn(self, *domains: Slices) -> dict[str, Any]:
        """``unit``, and ``highest``: the frequency at which the last ring ends."""
        pixel = np.concatenate([domain.pixel for domain in domains])
        known = bool(np.isfinite(pixel).all())
        if self.unit == "mm" and not known:
            raise _unknown_pixel(next(domain for domain in domains if not np.isfinite(domain.pixel).all()))
        if self.unit == "pixel" or not known:
            return {"unit": "pixel", "highest": 0.5}
        return {"unit": "mm", "highest": 0.5 / float(pixel.max())}

    def table(self, slices: Slices, learned: Mapping[str, Any]) -> np.ndarray:
        """(N, C · (bins + 1)): of each channel the rings, from coarse to fine, and the noise."""
        pixel = np.ones(len(slices))
        if learned["unit"] == "mm":
            pixel = slices.pixel
            if not np.isfinite(pixel).all():
                raise _unknown_pixel(slices)
        edges = np.linspace(0, learned["highest"], self.bins + 1)

        def row(image: np.ndarray, index: int) -> np.ndarray:
            inside = foreground(image[None])[0]
            return np.concatenate([_of_channel(channel, inside, pixel[index], edges) for channel in image])

        return each_slice(slices, row, "spectra")


def _unknown_pixel(slices: Slices) -> UserError:
    sample = slices.samples[int(np.flatnonzero(~np.isfinite(slices.pixel))[0])]
    return UserError(
        f"{slices.name}: sample {sample}: the size of its pixels is not known, so its spectrum has no frequencies in "
        "cycles/mm; give spacing_x and spacing_y in the dataset's table, or use the feature spectrum with unit: pixel"
    )


def _of_channel(channel: np.ndarray, inside: np.ndarray, pixel: float, edges: np.ndarray) -> np.ndarray:
    if channel[inside].min() == channel[inside].max():  # nothing to see at any frequency
        return np.full(len(edges), np.log10(_EMPTY))
    contrast = np.where(inside, (ranks(channel, inside) - 0.5) * np.sqrt(12), 0.0)
    depth = distance_transform_edt(inside) * (_EDGE / len(inside))
    rings = radial_power(contrast * np.minimum(depth, 1), pixel, edges)
    return np.log10(np.maximum([*rings, _noise(contrast, inside)], _EMPTY))


def radial_power(image: np.ndarray, pixel: float, edges: np.ndarray) -> np.ndarray:
    """(len(edges) - 1,): mean power in each ring of |k| of ``image`` (H, W), over the sum of all; without k = 0.

    ``edges`` in cycles per unit of ``pixel``. A ring that holds no sample of k-space has the power interpolated between
    its neighbours; one beyond the picture's own Nyquist frequency has none.
    """
    power = np.abs(np.fft.rfft2(image)) ** 2
    down, across = np.fft.fftfreq(image.shape[0], pixel), np.fft.rfftfreq(image.shape[1], pixel)
    radius = np.hypot(down[:, None], across[None, :]).ravel()
    # The half of k-space that a real picture repeats counts as well.
    twice = np.where((across > 0) & (2 * np.arange(len(across)) != image.shape[1]), 2.0, 1.0)
    weight = np.broadcast_to(twice, power.shape).ravel().copy()
    weight[0] = 0  # k = 0
    ring = np.searchsorted(edges, radius, side="right") - 1
    ring[radius == edges[-1]] = len(edges) - 2
    used = (ring >= 0) & (ring < len(edges) - 1)
    number = np.bincount(ring[used], weight[used], len(edges) - 1)
    total = np.bincount(ring[used], (weight * power.ravel())[used], len(edges) - 1)
    if total.sum() <= 0:
        return np.zeros(len(number))
    known = number > 0
    mean = np.divide(total, number, out=np.zeros_like(total), where=known)
    centres = (edges[:-1] + edges[1:]) / 2
    mean = np.interp(centres, centres[known], mean[known])
    mean[centres > 0.5 / pixel] = 0
    return mean / mean.sum()


def _noise(contrast: np.ndarray, inside: np.ndarray) -> float:
    """Standard deviation of the noise: Immerkær, Fast noise variance estimation, CVIU 1996, with a median for edges."""
    deep = convolve(inside.astype(np.float64), np.ones((3, 3)), mode="constant") > 8.5
    if not deep.any():
        return 0.0
    second = convolve(contrast, _LAPLACIANS, mode="nearest")[deep]
    return float(np.median(np.abs(second)) / (0.6745 * 6))
