"""Picture of one reconstructed slice: the reference, every arm, their errors, a detail, the sampled columns."""

import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mrtransfer.common.errors import UserError
from mrtransfer.tasks.reconstruction.detail import Detail, detail_window, white_of
from mrtransfer.tasks.reconstruction.metrics import evaluate_volume

HEAT = "inferno"  # of the errors
ENLARGED = 5  # times the errors are shown
_BOX = (86, 180, 233)  # sky blue of Okabe & Ito, which neither grey nor the heat's colours hide
_BRIGHT, _GREY = (235, 235, 235), (170, 170, 170)
_SIDE = 240  # pixels of an image's longer side
_GAP = 6
_ACROSS = 6  # images side by side
_TITLE, _SMALL, _LINE = 14, 11, 19  # font sizes, and a line of the name
_STRIP = 22  # pixels of the sampled columns' height
_INSET = 4  # pixels between a picture's edge and text


def slice_picture(
    reference: np.ndarray,
    zero_filled: np.ndarray,
    arms: Mapping[str, np.ndarray],
    *,
    max_value: float | None = None,
    columns: np.ndarray | None = None,
    acceleration: float | None = None,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """Rows: magnitudes, errors × 5, the detail; columns: the reference, zero-filled and the arms, in their order.

    All magnitudes are shown between 0 and one white, all errors between 0 and a fifth of it. Each image carries the
    SSIM and PSNR of this slice. Beyond five reconstructions the picture goes on below, with the reference again.

    Args:
        reference, zero_filled, arms: magnitudes (h, w).
        max_value: data range of SSIM and PSNR, the volume's maximum; by default the slice's own.
        columns: (W,) bool, the sampled columns of k-space; drawn as a strip at the bottom.
        acceleration: the nominal one, for the text.
        spacing: height and width of a pixel, for true proportions.

    Returns:
        uint8 (H, W, 3). Raises :class:`UserError` where the images are not of one size.
    """
    rebuilt = [("zero-filled", zero_filled), *arms.items()]
    for name, image in rebuilt:
        if image.ndim != 2 or image.shape != reference.shape:
            raise UserError(f"picture: {name} is of shape {image.shape}, the reference of {reference.shape}")
    detail = detail_window(reference, zero_filled, list(arms.values()), spacing)
    band = _Band(reference, float(reference.max()) if max_value is None else max_value, detail, spacing)
    steps = range(0, len(rebuilt), _ACROSS - 1)
    rows = [band.drawn(rebuilt[start : start + _ACROSS - 1]) for start in steps]
    if columns is not None:
        rows.append(_sampling(columns, acceleration, max(row.width for row in rows)))
    return np.asarray(_stacked(rows))


def to_png(pixels: np.ndarray) -> bytes:
    """A picture, uint8 (H, W, 3), as the bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    return stream.getvalue()


class _Band:
    """The reference beside some reconstructions, as three rows of pictures under their names."""

    def __init__(self, reference: np.ndarray, max_value: float, detail: Detail, spacing: tuple[float, float]) -> None:
        self.reference, self.white, self.max_value, self.detail = reference, white_of(reference), max_value, detail
        self.size = _fitting(reference.shape, spacing, _SIDE)
        enlarged = detail.width * spacing[1] / (detail.height * spacing[0])
        self.detail_size = self.size[0], max(1, round(self.size[0] / enlarged))

    def drawn(self, rebuilt: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
        """The reference and ``rebuilt``, side by side."""
        names = [_wrapped(name, self.size[0], _TITLE) for name, _ in rebuilt]
        most = max(len(lines) for lines in names)
        cells = [_stacked([self._titled(["reference"], "", most), *self._seen(self.reference, self._legend())])]
        for lines, (_, image) in zip(names, rebuilt, strict=True):
            scores = evaluate_volume(image[None], self.reference[None], self.max_value)
            title = self._titled(lines, f"SSIM {scores['ssim']:.3f} · {scores['psnr']:.1f} dB", most)
            cells.append(_stacked([title, *self._seen(image, self._error(image))]))
        canvas = Image.new("RGB", (len(cells) * (self.size[0] + _GAP) - _GAP, cells[0].height))
        for place, cell in enumerate(cells):
            canvas.paste(cell, (place * (self.size[0] + _GAP), 0))
        return canvas

    def _titled(self, name: list[str], scores: str, most: int) -> Image.Image:
        """The name, its last line above the scores where another has ``most`` lines."""
        canvas = Image.new("RGB", (self.size[0], 22 + _LINE * most))
        for place, line in enumerate(name, start=most - len(name)):
            _write(canvas, (_INSET, _INSET + _LINE * place), line, _BRIGHT, _TITLE)
        _write(canvas, (_INSET, _INSET + _LINE * most), scores, _GREY, _SMALL)
        return canvas

    def _error(self, image: np.ndarray) -> Image.Image:
        error = np.abs(image.astype(np.float64) - self.reference) * ENLARGED / self.white
        return _resized(_heat()[_to_bytes(error)], self.size)

    def _seen(self, image: np.ndarray, between: Image.Image) -> list[Image.Image]:
        """The magnitudes with the detail's frame, ``between``, and the detail."""
        grey = np.repeat(_to_bytes(image / self.white)[..., None], 3, axis=2)
        whole = _resized(grey, self.size)
        across, down = self.size[0] / image.shape[1], self.size[1] / image.shape[0]
        top, left, height, width = self.detail
        frame = left * across, top * down, (left + width) * across - 1, (top + height) * down - 1
        ImageDraw.Draw(whole).rectangle(frame, outline=_BOX, width=1)
        return [whole, between, _resized(self.detail.of(grey), self.detail_size)]

    def _legend(self) -> Image.Image:
        """What the row of errors is, with its colours, and what the frame is."""
        canvas = Image.new("RGB", self.size)
        width, middle = self.size[0], self.size[1] // 2
        _write(canvas, (_INSET, middle - 42), f"|error| × {ENLARGED}", _BRIGHT, _TITLE)
        bar = _heat()[np.linspace(0, 255, max(1, width - 6 * _INSET)).astype(int)][None].repeat(12, axis=0)
        canvas.paste(Image.fromarray(bar), (_INSET, middle - 18))
        _write(canvas, (_INSET, middle), f"0 to {100 // ENLARGED} % of white", _GREY, _SMALL)
        ImageDraw.Draw(canvas).rectangle((_INSET, middle + 35, _INSET + 11, middle + 46), outline=_BOX, width=1)
        _write(canvas, (_INSET + 18, middle + 34), "detail, below", _GREY, _SMALL)
        return canvas


def _sampling(columns: np.ndarray, acceleration: float | None, width: int) -> Image.Image:
    """The columns of k-space as a strip, sampled ones bright, under a line of text."""
    canvas = Image.new("RGB", (width, _STRIP + 26))
    fold = "" if acceleration is None else f"{acceleration:g}-fold acceleration: "
    text = f"{fold}{int(columns.sum())} of {len(columns)} columns of k-space sampled"
    _write(canvas, (_INSET, _INSET), text, _GREY, _SMALL)
    each = max(1, width // len(columns))  # whole pixels, so that columns look alike
    lines = np.where(columns, 225, 45).astype(np.uint8).repeat(each)[None].repeat(_STRIP, axis=0)
    strip = Image.fromarray(lines)
    canvas.paste(strip if strip.width <= width else strip.resize((width, _STRIP), Image.Resampling.BOX), (0, 26))
    return canvas


def _stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """One below the other on black, with gaps."""
    height = sum(picture.height for picture in pictures) + _GAP * (len(pictures) - 1)
    canvas, top = Image.new("RGB", (max(picture.width for picture in pictures), height)), 0
    for picture in pictures:
        canvas.paste(picture, (0, top))
        top += picture.height + _GAP
    return canvas


def _fitting(shape: tuple[int, ...], spacing: tuple[float, float], side: int) -> tuple[int, int]:
    """Pixels across and down, in true proportions."""
    height, width = shape[0] * spacing[0], shape[1] * spacing[1]
    scale = side / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """0 … 1 as 0 … 255; what is not a number as 0."""
    return np.rint(255 * np.clip(np.nan_to_num(values), 0, 1)).astype(np.uint8)


@cache
def _heat() -> np.ndarray:
    """(256, 3) uint8."""
    from matplotlib import colormaps

    return np.rint(255 * colormaps[HEAT](np.arange(256))[:, :3]).astype(np.uint8)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font: unlike Pillow's it has signs such as × and the letters of most languages."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _write(canvas: Image.Image, place: tuple[int, int], text: str, colour: tuple[int, int, int], size: int) -> None:
    ImageDraw.Draw(canvas).text(place, text, fill=colour, font=_font(size))


def _wrapped(text: str, width: int, size: int) -> list[str]:
    """At most two lines of ``width`` pixels, broken after a space, hyphen or underscore where there is one in time."""
    room, font = width - _INSET, _font(size)
    if font.getlength(text) <= room:
        return [text]
    fits = max(end for end in range(1, len(text)) if end == 1 or font.getlength(text[:end]) <= room)
    breaks = [end for end in range(fits // 3, fits + 1) if text[end - 1 : end] in (" ", "-", "_")]
    first = max(breaks, default=fits)
    rest = text[first:]
    while len(rest) > 1 and font.getlength(rest) > room:
        rest = rest.removesuffix("…")[:-1] + "…"
    return [text[:first], rest]
