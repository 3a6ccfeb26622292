"""JPEG, PNG, TIFF and BMP, through Pillow."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.data.readers.location import Location

# Pillow's modes whose pixels are numbers as they are; all others are colour, palette or alpha.
_NUMBERS = ("L", "RGB", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def read(location: Location, file: Path) -> np.ndarray:
    """Pixels (H, W) or (H, W, 3); 16-bit grey stays uint16. ``#frame=k`` chooses a page of a TIFF."""
    location.only("frame")
    with Image.open(file) as image:
        frame, frames = location.number("frame", 0), getattr(image, "n_frames", 1)
        if not 0 <= frame < frames:
            raise UserError(f"{location}: there is no frame {frame}; the file has {frames}, counted from 0")
        if frame:
            image.seek(frame)
        grey = "L" if image.mode in ("1", "LA", "La") else "RGB"
        pixels = np.asarray(image if image.mode in _NUMBERS else image.convert(grey))
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def meta(location: Location, file: Path) -> dict[str, Any]:
    """The shape (H, W). Resolution tags of these formats are for printers and say nothing about millimetres."""
    with Image.open(file) as image:
        return {"shape": (image.height, image.width)}
