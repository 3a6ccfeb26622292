"""One picture of an image, its heat map, boxes and the mask's outline."""

from collections.abc import Sequence

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.tasks.localisation.boxes import Box
from mrtransfer.tasks.segmentation.surface import surface

HEAT = "inferno"
BOX_COLOUR = (86, 180, 233)  # sky blue and bluish green of Okabe & Ito, told apart with any colour vision
MASK_COLOUR = (0, 158, 115)
_OPAQUE = 0.6  # of the heat's colour where the map has its maximum
_WINDOW = (1.0, 99.0)  # percentiles of the image between black and white


def overlay(
    image: np.ndarray,
    heat: np.ndarray | None = None,
    *,
    boxes: Sequence[Box] = (),
    mask: np.ndarray | None = None,
    window: tuple[float, float] | None = None,
) -> np.ndarray:
    """An RGB picture, uint8 (rows, columns, 3): grey image, heat over it, the mask's outline, frames of the boxes.

    Args:
        image: (rows, columns), or (rows, columns, 3) uint8.
        heat: (rows, columns), 0 … 1; the hotter, the less of the image shows through.
        boxes: in (row, column); each frame lies on the box's outermost pixels.
        mask: (rows, columns), non-zero inside.
        window: image values shown black and white; by default its 1st and 99th percentile.
    """
    picture = _grey(image, window) if image.ndim == 2 else image.astype(float)
    if picture.shape != (*image.shape[:2], 3):
        raise UserError(f"image: shape {image.shape} does not fit; right are (rows, columns) or (rows, columns, 3)")
    for name, layer in (("heat map", heat), ("mask", mask)):
        if layer is not None and layer.shape != picture.shape[:2]:
            raise UserError(f"{name}: shape {layer.shape} does not fit the image's {picture.shape[:2]}")
    if heat is not None:
        from matplotlib import colormaps

        warm = np.clip(heat, 0, 1)[..., None]
        colour = 255 * colormaps[HEAT](warm[..., 0])[..., :3]
        picture = picture + _OPAQUE * warm * (colour - picture)
    picture = np.rint(picture).astype(np.uint8)
    if mask is not None:
        picture[surface(mask != 0)] = MASK_COLOUR
    for box in boxes:
        (top, left), (bottom, right) = box.first, box.last
        frame = np.zeros(picture.shape[:2], dtype=bool)
        frame[top : bottom + 1, left : right + 1] = True
        frame[top + 1 : bottom, left + 1 : right] = False
        picture[frame] = BOX_COLOUR
    return picture


def _grey(image: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """(rows, columns, 3) float, 0 … 255."""
    low, high = window or np.percentile(image, _WINDOW)
    scaled = (image.astype(float) - low) / max(high - low, np.finfo(float).tiny)
    return np.repeat(255 * np.clip(scaled, 0, 1)[..., None], 3, axis=2)
