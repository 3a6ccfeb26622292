"""The picture that goes with a reconstructed volume: its middle slice, and what it was made from."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mrtransfer.deploy.reconstructor import Reconstructed
from mrtransfer.tasks.reconstruction.detail import white_of
from mrtransfer.tasks.reconstruction.pictures import slice_picture

_SIDE = 320  # pixels of an image's longer side
_GAP = 6
_LINE = 22  # pixels of a line of text
_STRIP = 22  # pixels of the sampled columns' height
_BRIGHT, _GREY = (235, 235, 235), (170, 170, 170)


def contact_sheet(result: Reconstructed) -> np.ndarray:
    """uint8 (H, W, 3): zero-filled and reconstruction of the middle slice, below them the sampled columns of k-space.

    Where the full data are there, beside the reference, with errors and a detail, by
    :func:`~mrtransfer.tasks.reconstruction.pictures.slice_picture`.
    """
    spacing = result.volume.spacing[:2] if result.volume.spacing else (1.0, 1.0)
    zero_filled, image = result.zero_filled[result.middle], result.images[result.middle]
    if result.targets is not None:
        return slice_picture(
            result.targets[result.middle],
            zero_filled,
            {"reconstruction": image},
            max_value=result.max_value,
            columns=result.sampled,
            acceleration=None if result.drawn is None else result.drawn.acceleration,
            spacing=spacing,
        )
    white = white_of(image)
    shown = {"zero-filled": zero_filled, "reconstruction": image}
    cells = [_titled(name, _scaled(pixels / white, spacing)) for name, pixels in shown.items()]
    width = 2 * cells[0].width + _GAP
    canvas = Image.new("RGB", (width, cells[0].height + _LINE + _STRIP + 2 * _GAP))
    for place, cell in enumerate(cells):
        canvas.paste(cell, (place * (cell.width + _GAP), 0))
    sampled = f"{int(result.sampled.sum())} of {len(result.sampled)} columns of k-space sampled"
    _write(canvas, (4, cells[0].height + _GAP), f"slice {result.middle + 1} of {len(result.images)}; {sampled}", _GREY)
    lines = np.where(result.sampled, 225, 45).astype(np.uint8)[None].repeat(_STRIP, axis=0)
    strip = Image.fromarray(lines).resize((width, _STRIP), Image.Resampling.BOX)
    canvas.paste(strip, (0, cells[0].height + _GAP + _LINE))
    return np.asarray(canvas)


def _scaled(values: np.ndarray, spacing: tuple[float, ...]) -> Image.Image:
    """Values from 0 to 1 as grey, in true proportions."""
    pixels = np.rint(255 * np.clip(np.nan_to_num(values), 0, 1)).astype(np.uint8)
    height, width = (size * step for size, step in zip(pixels.shape, spacing, strict=True))
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _titled(name: str, image: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (image.width, image.height + _LINE))
    _write(canvas, (4, 3), name, _BRIGHT)
    canvas.paste(image, (0, _LINE))
    return canvas


def _write(canvas: Image.Image, place: tuple[int, int], text: str, colour: tuple[int, int, int]) -> None:
    ImageDraw.Draw(canvas).text(place, text, fill=colour, font=ImageFont.load_default(13))
