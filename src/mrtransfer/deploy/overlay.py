"""The picture that goes with a predicted mask: every channel in three planes, with the outlines of what was found."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mrtransfer.common.files import write_bytes
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.volume import Case
from mrtransfer.tasks.segmentation.lesions import components
from mrtransfer.tasks.segmentation.pictures import Colour, case_picture

COLOURS: tuple[Colour, ...] = ((255, 96, 190), (255, 200, 60), (80, 200, 255), (120, 230, 120), (255, 130, 70))
"""Of the classes' outlines, in order; from the sixth on they repeat."""
_LINE = 20  # pixels of a line of the legend
_GREY = (200, 200, 200)


def overlay(case: Case, classes: np.ndarray, labels: MaskLabels, channels: Sequence[str]) -> np.ndarray:
    """uint8 (H, W, 3): planes through the largest lesion, and a legend.

    One row per channel; axial, coronal and sagittal planes as radiologists look at them. ``classes``: uint8
    (X, Y, Z), class indices on the grid of ``case``.
    """
    names = [(k, name) for k, name in enumerate(labels.names) if k]
    masks: dict[Colour, np.ndarray] = {_GREY: _largest_lesion(classes)}  # the first mask decides where the planes lie
    for k, _ in names:
        colour = COLOURS[(k - 1) % len(COLOURS)]
        masks[colour] = masks.get(colour, np.zeros_like(classes)) | np.where(classes == k, np.uint8(k), np.uint8(0))
    picture = case_picture(case.image, case.affine, masks)
    entries = [(COLOURS[(k - 1) % len(COLOURS)], name) for k, name in names if (classes == k).any()]
    planes = "" if classes.shape[2] == 1 else "; axial, coronal, sagittal"
    shown = ("rows: " if len(channels) > 1 and planes else "") + ", ".join(channels) + planes
    return np.vstack([picture, _legend(picture.shape[1], shown, entries or [(_GREY, "nothing found")])])


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 pixels (H, W) or (H, W, 3), or a mask of larger values in 16 bits; whole or not at all."""
    if pixels.dtype != np.uint8:
        pixels = pixels.astype(np.uint16)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    write_bytes(path, stream.getvalue())


def _largest_lesion(classes: np.ndarray) -> np.ndarray:
    """bool (X, Y, Z): the largest connected component of all classes together; empty where there is none."""
    labelled, count = components(classes > 0)
    if count == 0:
        return np.zeros(classes.shape, bool)
    return np.asarray(labelled == 1 + int(np.bincount(labelled.ravel())[1:].argmax()))


def _legend(width: int, shown: str, entries: Sequence[tuple[Colour, str]]) -> np.ndarray:
    """Lines of text under the picture: what the rows and columns are, and the name of every colour."""
    font = ImageFont.load_default(13)
    items: list[tuple[Colour, str]] = [(_GREY, shown), *entries]
    places, x, y = [], 6.0, 4
    for _, text in items:
        length = font.getlength(text) + 30
        if x > 6 and x + length > width:
            x, y = 6.0, y + _LINE
        places.append((x, y))
        x += length
    canvas = Image.new("RGB", (width, y + _LINE + 2))
    pen = ImageDraw.Draw(canvas)
    for index, ((colour, text), (left, top)) in enumerate(zip(items, places, strict=True)):
        if index:
            pen.rectangle((left, top + 3, left + 10, top + 13), fill=colour)
        pen.text((left + (16 if index else 0), top), text, fill=_GREY, font=font)
    return np.asarray(canvas)
