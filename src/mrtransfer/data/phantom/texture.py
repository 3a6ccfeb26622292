"""Fine structure that tissue labels leave out: septa of fat, trabeculae of bone, fibres of muscle, grain, vessels.

Drawn on one slice, in mm, so that it is as fine on any matrix. Slices are thicker than the structure, so neighbours do
not share it.
"""

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from mrtransfer.data.phantom.anatomy import Labels
from mrtransfer.data.phantom.grid import Floats
from mrtransfer.data.phantom.tissues import N_TISSUES, Tissue

_FAT = (Tissue.FAT,)
_MARROW = (Tissue.MARROW, Tissue.FATTY_MARROW)
# Standard deviation of the power-law grain, relative to the signal; other tissues but water have _GRAIN.
_GRAIN = 0.04
_GRAINS = MappingProxyType({Tissue.SKIN: 0.15, Tissue.FAT: 0.07, Tissue.MUSCLE: 0.06, Tissue.WHITE: 0.03})
_HARD = (Tissue.AIR, Tissue.BONE, Tissue.MARROW, Tissue.FATTY_MARROW)  # where no vessel is drawn
_STILL = (Tissue.AIR, Tissue.CSF, Tissue.EYE, Tissue.CYST, Tissue.JOINT_FLUID)
# Where vessels run, and how many of them a slice of 100 cm² of it shows.
_BEDS = MappingProxyType({"brain": ((Tissue.GREY, Tissue.CSF), 30), "knee": ((Tissue.FAT, Tissue.MUSCLE), 16)})


def modulation(labels: Labels, pixel: tuple[float, float], lengthwise: bool, generator: np.random.Generator) -> Floats:
    """The factor (rows, columns) of the signal where tissue is mostly as ``labels`` say.

    ``pixel`` (mm) between rows and columns; ``lengthwise``: rows run along the body, and fibres with them.
    """
    shape = labels.shape
    grain = power_law(shape, pixel, generator)
    sizes = np.full(N_TISSUES, _GRAIN, dtype=np.float32)
    for tissue, size in _GRAINS.items():
        sizes[tissue] = size
    sizes[list(_STILL)] = 0
    factor = 1 + sizes[labels] * grain
    septa = band(shape, pixel, (5.0, 5.0), generator)
    factor *= 1 - 0.4 * _is(labels, _FAT) * np.exp(-np.square(septa / 0.1))
    along = (4.0, 1.1) if lengthwise else (1.3, 1.3)
    trabeculae = band(shape, pixel, along, generator)
    factor *= 1 + _is(labels, _MARROW) * (0.06 * trabeculae - 0.16 * np.exp(-np.square(trabeculae / 0.35)))
    fibres = band(shape, pixel, (12.0, 1.6) if lengthwise else (2.0, 2.0), generator)
    factor *= 1 + _is(labels, (Tissue.MUSCLE, Tissue.TENDON)) * (0.07 * fibres + 0.2 * (fibres > 2.0))
    return np.maximum(factor, 0)


def power_law(
    shape: tuple[int, int], pixel: tuple[float, float], generator: np.random.Generator, slope: float = 1.3
) -> Floats:
    """A random field of unit variance whose amplitude falls as frequency to the power −``slope`` below 1/30 mm."""
    k = _frequencies(shape, pixel, (1.0, 1.0))
    return _field(shape, np.float32(1) / np.maximum(k, np.float32(1 / 30)) ** np.float32(slope), generator)


def band(
    shape: tuple[int, int], pixel: tuple[float, float], scale: tuple[float, float], generator: np.random.Generator
) -> Floats:
    """A random field of unit variance of waves about ``scale`` mm apart times 2, along rows' and columns' axis."""
    k = _frequencies(shape, pixel, (2 * scale[0], 2 * scale[1]))
    return _field(shape, k * np.exp(-np.square(k)), generator)


def paint_vessels(labels: Labels, anatomy: str, pixel: tuple[float, float], generator: np.random.Generator) -> None:
    """Paint blood vessels of 0.6 to 1.6 mm into ``labels`` (through, rows, columns): dots, and winding lines."""
    bed, density = _BEDS[anatomy]
    rows, columns = np.nonzero(_is(labels[len(labels) // 2], bed))
    if not len(rows):
        return
    area = len(rows) * pixel[0] * pixel[1] / 1e4  # 100 cm²
    step = 0.5  # mm along a vessel
    for _ in range(generator.poisson(density * area)):
        start = generator.integers(len(rows))
        length = 1 if generator.random() < 0.75 else int(generator.uniform(4, 36))
        turns = generator.uniform(0, 2 * np.pi) + np.cumsum(0.18 * generator.standard_normal(length))
        y = rows[start] + np.cumsum(step * np.sin(turns)) / pixel[0]
        x = columns[start] + np.cumsum(step * np.cos(turns)) / pixel[1]
        _tube(labels, y, x, generator.uniform(0.3, 0.8), pixel)


def _tube(
    labels: Labels, y: NDArray[np.float64], x: NDArray[np.float64], radius: float, pixel: tuple[float, float]
) -> None:
    """Discs of blood around the points ``y``, ``x`` (pixels), ``radius`` in mm."""
    down, across = int(radius / pixel[0]) + 1, int(radius / pixel[1]) + 1
    dy, dx = np.mgrid[-down : down + 1, -across : across + 1]
    inside = np.hypot(dy * pixel[0], dx * pixel[1]) <= radius
    at_y = (np.rint(y).astype(np.intp)[:, None] + dy[inside]).clip(0, labels.shape[1] - 1)
    at_x = (np.rint(x).astype(np.intp)[:, None] + dx[inside]).clip(0, labels.shape[2] - 1)
    within = ~_is(labels[len(labels) // 2, at_y, at_x], _HARD)
    labels[:, at_y[within], at_x[within]] = Tissue.BLOOD


def _is(labels: Labels, tissues: tuple[Tissue, ...]) -> NDArray[np.bool_]:
    table = np.zeros(N_TISSUES, dtype=bool)
    table[list(tissues)] = True
    return table[labels]


def _frequencies(shape: tuple[int, int], pixel: tuple[float, float], scale: tuple[float, float]) -> Floats:
    """(rows, columns // 2 + 1) length of the frequency vector in cycles per ``scale`` mm."""
    down = fft.fftfreq(shape[0], pixel[0] / scale[0])
    across = fft.rfftfreq(shape[1], pixel[1] / scale[1])
    return np.hypot(down[:, None], across[None, :]).astype(np.float32)


def _field(shape: tuple[int, int], weights: Floats, generator: np.random.Generator) -> Floats:
    spectrum = fft.rfft2(generator.standard_normal(shape, dtype=np.float32))
    spectrum *= weights
    spectrum[0, 0] = 0
    field = fft.irfft2(spectrum, s=shape)
    return np.asarray(field / field.std(), dtype=np.float32)
