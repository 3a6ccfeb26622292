"""Pictures of segmented cases: every channel in three planes, with the outlines of masks."""

from collections.abc import Mapping

import numpy as np
from contourpy import contour_generator
from nibabel.orientations import io_orientation
from PIL import Image, ImageDraw

from mrtransfer.data.volume.volume import spacing_of

REFERENCE = (64, 220, 120)
PREDICTED = (255, 96, 190)
_SIDE = 220  # pixels of a plane's longer side
_GAP = 6
_MARGIN = 4  # voxels around what is shown
_WINDOW = (1.0, 99.5)  # percentiles of the voxels that are not background

Colour = tuple[int, int, int]


def case_picture(image: np.ndarray, affine: np.ndarray, masks: Mapping[Colour, np.ndarray]) -> np.ndarray:
    """One row per channel, its columns the axial, coronal and sagittal plane, as radiologists look at them.

    ``image`` (C, X, Y, Z) and ``masks``, colour to class indices (X, Y, Z), on one grid with ``affine``. The planes go
    through where the first mask that is not empty is largest. A case of one slice is shown as it is stored, channels
    side by side. Returns uint8 (H, W, 3).
    """
    box = _shown(image, masks)
    image, masks = image[(slice(None), *box)], {colour: mask[box] for colour, mask in masks.items()}
    at = _middle(masks, image.shape[1:])
    flat = image.shape[3] == 1
    turn = None if flat else io_orientation(affine)
    rows = []
    for channel in image:
        low, high = _window(channel)
        grey = np.clip((channel.astype(np.float32) - low) * (255 / (high - low)), 0, 255)
        rows.append(
            [
                _drawn(
                    plane, [(colour, _planes(mask, at, affine, turn)[place][0]) for colour, mask in masks.items()], size
                )
                for place, (plane, size) in enumerate(_planes(grey, at, affine, turn))
            ]
        )
    if flat:
        rows = [[tile for row in rows for tile in row]]
    return _tiled(rows)


def _shown(image: np.ndarray, masks: Mapping[Colour, np.ndarray]) -> tuple[slice, slice, slice]:
    """The box around all that is not background, a little wider."""
    seen = np.any(image > image.min(axis=(1, 2, 3), keepdims=True), axis=0)
    for mask in masks.values():
        seen |= mask > 0
    found = []
    for axis in range(3):
        inside = np.flatnonzero(seen.any(axis=tuple({0, 1, 2} - {axis})))
        size = seen.shape[axis]
        low, high = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, size)
        found.append(slice(max(low - _MARGIN, 0), min(high + _MARGIN, size)))
    return found[0], found[1], found[2]


def _middle(masks: Mapping[Colour, np.ndarray], shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Along each axis, where the first mask that is not empty has most voxels; the centre where all are empty."""
    for mask in masks.values():
        if mask.any():
            x, y, z = (int(np.argmax((mask > 0).sum(axis=tuple({0, 1, 2} - {axis})))) for axis in range(3))
            return x, y, z
    return shape[0] // 2, shape[1] // 2, shape[2] // 2


def _window(channel: np.ndarray) -> tuple[float, float]:
    """Values shown black and white."""
    inside = channel[channel > channel.min()]
    if not inside.size:
        return float(channel.min()), float(channel.min()) + 1
    low, high = (float(value) for value in np.percentile(inside, _WINDOW))
    return low, high if high > low else low + 1


def _planes(
    volume: np.ndarray, at: tuple[int, int, int], affine: np.ndarray, turn: np.ndarray | None
) -> list[tuple[np.ndarray, tuple[float, float]]]:
    """Planes through ``at``, rows first, and their pixels' height and width in mm.

    The patient's right is on the left, front and head are on top; sagittal planes look to the left.
    """
    spacing = spacing_of(affine)
    if turn is None:
        return [(volume[..., at[2]], (spacing[0], spacing[1]))]
    slices = [volume[tuple(at[a] if a == axis else slice(None) for a in range(3))] for axis in range(3)]
    shown = []
    for normal, columns in (
        (2, 0),
        (1, 0),
        (0, 1),
    ):  # axes of the patient: x to the right, y to the front, z to the head
        stored = [int(np.flatnonzero(turn[:, 0] == axis)[0]) for axis in range(3)]
        rows = 3 - normal - columns
        plane = slices[stored[normal]]
        kept = [axis for axis in range(3) if axis != stored[normal]]
        if kept.index(stored[rows]) > kept.index(stored[columns]):
            plane = plane.T
        plane = plane[:: -1 if turn[stored[rows], 1] > 0 else 1, :: -1 if turn[stored[columns], 1] > 0 else 1]
        shown.append((plane, (spacing[stored[rows]], spacing[stored[columns]])))
    return shown


def _drawn(grey: np.ndarray, masks: list[tuple[Colour, np.ndarray]], pixel: tuple[float, float]) -> Image.Image:
    """The plane in its true proportions, with the outline of every class of every mask."""
    height, width = grey.shape[0] * pixel[0], grey.shape[1] * pixel[1]
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = (
        Image.fromarray(np.ascontiguousarray(grey).astype(np.uint8))
        .resize(size, Image.Resampling.BICUBIC)
        .convert("RGB")
    )
    pen = ImageDraw.Draw(picture)
    for colour, mask in masks:
        for value in np.unique(mask)[np.unique(mask) > 0]:
            padded = np.pad(mask == value, 1).astype(np.float32)
            for line in contour_generator(z=padded).lines(0.5):
                points = (np.asarray(line) - 0.5) * (size[0] / grey.shape[1], size[1] / grey.shape[0])
                pen.line([(float(x), float(y)) for x, y in points], fill=colour, width=2)
    return picture


def _tiled(rows: list[list[Image.Image]]) -> np.ndarray:
    """Rows of pictures on black."""
    heights = [max(tile.height for tile in row) for row in rows]
    widths = [max(row[place].width for row in rows) for place in range(len(rows[0]))]
    canvas = Image.new("RGB", (sum(widths) + _GAP * (len(widths) - 1), sum(heights) + _GAP * (len(heights) - 1)))
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for tile, width in zip(row, widths, strict=True):
            canvas.paste(tile, (left + (width - tile.width) // 2, top + (height - tile.height) // 2))
            left += width + _GAP
        top += height + _GAP
    return np.asarray(canvas)
