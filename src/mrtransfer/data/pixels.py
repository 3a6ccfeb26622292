"""From an image as it was read to the uint8 pixels that a network sees, the same for the store and for prediction."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from mrtransfer.common.errors import UserError

Fit = Literal["stretch", "pad"]
WINDOW = (0.5, 99.5)


def prepare(
    images: Sequence[np.ndarray], *, size: int = 224, fit: Fit = "stretch", window: tuple[float, float] = WINDOW
) -> np.ndarray:
    """One sample's image as uint8 (C, size, size).

    ``images`` is one array (H, W) or (H, W, K), or one per channel. A colour image whose channels are equal counts as
    one channel. Values of other types than uint8 are scaled so that the ``window`` percentiles of the image become 0
    and 255. Resized by area (triangle filter as wide as the scale); ``pad`` keeps the aspect, with 0 around. Raises
    :class:`UserError` where channels have different sizes.
    """
    planes = [plane for image in images for plane in _planes(_windowed(image, window), single=len(images) > 1)]
    shapes = sorted({plane.shape for plane in planes})
    if len(shapes) > 1:
        sizes = " and ".join(" × ".join(map(str, shape)) for shape in shapes)
        raise UserError(f"its channels have different sizes ({sizes}); all channels of a sample must have the same")
    height, width = shapes[0]
    scale = size / max(height, width)
    rows, columns = (size, size) if fit == "stretch" else (max(1, round(height * scale)), max(1, round(width * scale)))
    prepared = np.zeros((len(planes), size, size), np.uint8)
    top, left = (size - rows) // 2, (size - columns) // 2
    for channel, plane in zip(prepared, planes, strict=True):
        channel[top : top + rows, left : left + columns] = _resized(plane, rows, columns)
    return prepared


def _windowed(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """uint8 as it is; others as float32 between 0 and 255, not yet rounded. Values that are not finite become 0."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    values = image.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(image.shape, np.uint8)
    low, high = np.percentile(values[finite], window)
    if high <= low:  # almost constant: the window would divide by nothing
        low, high = float(values[finite].min()), float(values[finite].max())
    scaled = (np.where(finite, values, low) - low) * (255 / (high - low) if high > low else 0)
    return np.clip(scaled, 0, 255).astype(np.float32)


def _planes(image: np.ndarray, single: bool) -> list[np.ndarray]:
    """The channels (H, W) of an image; one where all are equal. ``single`` allows no more than one."""
    if image.ndim == 2:
        return [image]
    planes = [image[..., k] for k in range(image.shape[-1])]
    if all(np.array_equal(planes[0], plane) for plane in planes[1:]):
        return planes[:1]
    if single:
        raise UserError("one of its channel files is a colour image; each channel's file must be grey")
    return planes


def _resized(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
    if plane.shape == (rows, columns):
        return np.rint(plane).astype(np.uint8)
    resized = Image.fromarray(np.ascontiguousarray(plane)).resize((columns, rows), Image.Resampling.BILINEAR)
    return np.clip(np.rint(np.asarray(resized)), 0, 255).astype(np.uint8)
