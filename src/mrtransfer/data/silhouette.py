"""Where in a scan there is anatomy: Otsu's threshold on the logarithm of the signal, holes filled."""

import numpy as np
from scipy.ndimage import binary_fill_holes, label, uniform_filter
from scipy.stats import rankdata

from mrtransfer.data.volume.frame import background_values

_FLOOR = 0.01  # of the bright end; what is darker is certainly no tissue
_BRIGHT = 99.5  # percentile
_BINS = 128
_SPECK = 0.05  # separate pieces smaller than this part of the largest are noise and lettering
_LEAST = 0.02  # of the picture; less is no anatomy either


def foreground(images: np.ndarray) -> np.ndarray:
    """bool (N, *spatial): the silhouette of the anatomy in any channel of ``images`` (N, C, *spatial).

    All of an image in which nothing stands out. The logarithm makes a bright lesion or bright fat one of many bright
    things, so that the threshold lies between air and the darkest tissue; filled holes make dark fluid and bone part of
    the silhouette, which so hardly depends on the threshold, and not on the scale of intensities.
    """
    found = np.empty((len(images), *images.shape[2:]), bool)
    for image, out in zip(images, found, strict=True):
        above = np.zeros(image.shape[1:], bool)
        for signal in signals(image):
            above |= signal > air_threshold(signal)
        out[...] = _silhouette(above)
    return found


def ranks(channel: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """float64 (H, W): the rank of each value of ``channel`` among those ``inside``, in (0, 1]; 0 outside."""
    ranked = np.zeros(channel.shape)
    ranked[inside] = rankdata(channel[inside]) / inside.sum()
    return ranked


def signals(image: np.ndarray) -> np.ndarray:
    """float64 (C, …): how far each value of ``image`` is from air's, which is that of all corners, else 0 or less."""
    image = image.astype(np.float64)
    places = image.reshape(*image.shape, *[1] * (4 - image.ndim))
    air, lowest = background_values(places), image.reshape(len(image), -1).min(axis=1)
    # Corners that differ are noise around 0, or the image's values do not start at 0.
    air = np.where(places[:, 0, 0, 0] == air, air, np.minimum(air, lowest))
    return np.abs(image - air.reshape(-1, *[1] * (image.ndim - 1)))


def air_threshold(signal: np.ndarray) -> float:
    """The ``signal`` (float64) that best divides air from tissue, by Otsu 1979 on its logarithm.

    It follows any scale of ``signal`` exactly, and is infinite where there is none, or where it is not a number.
    """
    bright = float(np.percentile(signal, _BRIGHT))
    if np.isnan(bright):
        return float("inf")
    if bright <= 0:
        return float("inf") if signal.max() <= 0 else 0.0
    logarithm = np.log(np.clip(signal / bright, _FLOOR, 1))
    counts, edges = np.histogram(logarithm, _BINS, range=(np.log(_FLOOR), 0.0))
    share = counts / counts.sum()
    below = np.cumsum(share)[:-1]
    centres = (edges[:-1] + edges[1:]) / 2
    moment = np.cumsum(share * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * below - moment[:-1]) ** 2 / (below * (1 - below))
    between = np.nan_to_num(between, nan=0.0, posinf=0.0)
    if between.max() <= 0:
        return 0.0  # all equally bright
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))  # an empty gap has one value all over: its middle
    return bright * float(np.exp(edges[1 + best].mean()))


def _silhouette(above: np.ndarray) -> np.ndarray:
    """The large pieces of a noisy mask (H, W), without holes; everything where there are none."""
    smooth = uniform_filter(above.astype(np.float32), 3, mode="nearest") > 0.5
    pieces, count = label(binary_fill_holes(smooth))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    if sizes.max() < _LEAST * above.size:
        return np.ones_like(above)
    return np.asarray((sizes >= _SPECK * sizes.max())[pieces])
