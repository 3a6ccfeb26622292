"""Where in a slice there is anatomy: what is brighter than the darkest corner of the picture."""

import numpy as np
from scipy.ndimage import uniform_filter

from mrtransfer.data.volume.frame import background_values

_CORNER = 16  # the corners looked at are a sixteenth of a picture's side
_LEAST = 0.02  # a smaller part of the picture is rather noise, or the whole picture is anatomy


def foreground(images: np.ndarray) -> np.ndarray:
    """bool (N, H, W): anatomy in any channel of ``images`` (N, C, H, W); all of a picture in which nothing stands out.

    See :func:`brighter_than_corners`.
    """
    inside = brighter_than_corners(images)
    inside[inside.mean(axis=(1, 2)) < _LEAST] = True
    return inside


def brighter_than_corners(images: np.ndarray) -> np.ndarray:
    """bool (N, H, W): brighter than all of the darkest corner in any channel, after a majority filter of 3 × 3.

    A frame of one value (padding, a brain that was cut out) is left aside before corners are looked at. Only the order
    of intensities counts, so the answer is the same after any strictly increasing change of them, such as a scale or a
    gamma curve.
    """
    found = np.zeros((len(images), *images.shape[2:]), bool)
    for image, out in zip(images, found, strict=True):
        box = _framed(image)
        part = image[(slice(None), *box)]
        if part.size:
            bright = (part > _darkest_corner(part)[:, None, None]).any(axis=0)
            out[box] = uniform_filter(bright.astype(np.float32), 3, mode="nearest") > 0.5
    return found


def _framed(image: np.ndarray) -> tuple[slice, slice]:
    """The smallest box of (C, H, W) outside of which every channel has its background's value."""
    different = (image != background_values(image[..., None])[:, None, None]).any(axis=0)
    rows, columns = (np.flatnonzero(different.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _darkest_corner(part: np.ndarray) -> np.ndarray:
    """(C,) the largest value of the corner whose largest value is smallest."""
    side = max(1, min(part.shape[1:]) // _CORNER)
    ends = (slice(None, side), slice(-side, None))
    return np.min([part[:, rows, columns].max(axis=(1, 2)) for rows in ends for columns in ends], axis=0)
