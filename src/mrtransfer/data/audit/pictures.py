"""Pairs of copies as pictures: side by side, with their difference."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mrtransfer.common.files import atomic_path
from mrtransfer.data.audit.report import Pair
from mrtransfer.data.readers import read_image

_SIDE = 320
_CAPTION = 34


def pair_picture(pair: Pair, root: str | Path) -> Image.Image:
    """The two images and their difference (three times as strong), each 320 px wide, with a caption above.

    The second image of a mirrored pair is shown as it is; the difference is taken to its mirror image.
    """
    first, second = (_grey_picture(location, root) for location in pair.locations)
    width = _SIDE
    height = max(1, round(_SIDE * first.height / first.width))
    first, second = (image.resize((width, height), Image.Resampling.BILINEAR) for image in (first, second))
    compared = second.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if pair.kind == "flipped" else second
    difference = np.abs(np.asarray(first, dtype=np.float32) - np.asarray(compared, dtype=np.float32))
    parts = [first, second, Image.fromarray(np.clip(3 * difference, 0, 255).astype(np.uint8))]
    sheet = Image.new("L", (3 * width, height + _CAPTION), 255)
    for k, part in enumerate(parts):
        sheet.paste(part, (k * width, _CAPTION))
    pen = ImageDraw.Draw(sheet)
    captions = [
        _caption(pair, 0),
        _caption(pair, 1),
        f"difference × 3\n{pair.kind.replace('_', ' ')}, r = {pair.score:.3f}",
    ]
    for k, text in enumerate(captions):
        pen.text((k * width + 4, 2), text, fill=0)
    return sheet


def save_pictures(pairs: list[Pair], root: Path, folder: Path) -> list[Path]:
    """Write each pair as ``001-near_identical.png``, and so on; returns the files."""
    paths = []
    for number, pair in enumerate(pairs, start=1):
        path = folder / f"{number:03d}-{pair.kind}.png"
        with atomic_path(path) as temporary:
            pair_picture(pair, root).save(temporary, format="PNG")
        paths.append(path)
    return paths


def _caption(pair: Pair, which: int) -> str:
    name = pair.samples[which]
    name = name if len(name) <= 50 else "…" + name[-49:]
    known = [text for text in (pair.labels[which], pair.splits[which]) if text]
    return f"{name}\n{', '.join(known)}"


def _grey_picture(location: str, root: str | Path) -> Image.Image:
    """8-bit grey: 8-bit images as they are, others stretched between their 0.5 and 99.5 percentiles."""
    image = read_image(location, root)
    grey = image.astype(np.float32) if image.ndim == 2 else image.mean(axis=2, dtype=np.float32)
    if image.dtype != np.uint8:
        low, high = np.nanpercentile(grey, (0.5, 99.5))
        grey = (grey - low) / max(float(high - low), 1e-6) * 255
    return Image.fromarray(np.clip(np.nan_to_num(grey), 0, 255).astype(np.uint8))
