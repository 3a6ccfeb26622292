"""What a scanner's coils would see of the phantom, before they see it: complex images without noise.

Water and fat are drawn on points finer than the pixels, with several through the slice, and measured as k-space is:
only frequencies within the matrix are kept. Fat is displaced along the readout and has a phase of its own; where fat
is suppressed, a rest of it stays, most where the field is off.
"""

from dataclasses import fields, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from mrtransfer.data.phantom.acquisition import SCANNERS
from mrtransfer.data.phantom.contrast import AFTER_AGENT, GradientEcho, Sequence
from mrtransfer.data.phantom.grid import Floats, Grid, RandomField
from mrtransfer.data.phantom.kspace_scan import FAT_SUPPRESSED, KspaceScan, Part
from mrtransfer.data.phantom.phase import FAT_SHIFT, GYROMAGNETIC, echo_time, field, phase
from mrtransfer.data.phantom.randomness import Stream, generator
from mrtransfer.data.phantom.texture import modulation, paint_vessels
from mrtransfer.data.phantom.tissues import GRAIN, N_TISSUES, Tissue, relaxation
from mrtransfer.data.phantom.volume_scan import ANATOMIES

_THROUGH = 3  # points through a slice
_FINER = 2  # points per pixel along rows and columns
_INFLOW = 2.0  # fresh blood is brighter than the steady state of a gradient echo
_BEND, _BEND_KNOT = 0.9, 12.0  # mm: standard deviation and scale of what bends the anatomy's surfaces
_GRAIN = 0.35  # of the anatomy's coarse grain; the rest of it is finer here
_FAT_SEEN = ((0.85, 1.2), (0.35, 0.9))  # of fat's signal: echo trains brighten it, gradient echoes often saturate it
_KNEE_ECHO = 28.0  # ms, of the knee's proton-density images, as in fastMRI's protocol
_BAND = 6.0  # ppm within which fat suppression fails wholly
_FAT_SHARE = np.zeros(N_TISSUES, dtype=np.float32)
_FAT_SHARE[[Tissue.FAT, Tissue.FATTY_MARROW, Tissue.MARROW]] = 0.93, 0.95, 0.6

Complex = NDArray[np.complex64]


def complex_image(scan: KspaceScan, number: int) -> tuple[Complex, Grid]:
    """Slice ``number`` of ``scan`` without coils and noise, (rows, columns), and where its pixels lie."""
    position = scan.positions[number]
    height, width = scan.matrix
    grid = scan.grid(position, (1, height, width))
    water, fat = _points(scan, number, position)
    sequence = _sequence(scan)
    time = echo_time(scan, sequence)
    off = _flat(scan, field(scan.anatomy, scan.seed, scan.subject).on(grid))
    rate = 2 * np.pi * GYROMAGNETIC * SCANNERS[scan.scanner].field * time / 1000
    shift = scan.generator(Part.PHASE, 2).uniform(0.4, 2.0)  # rows, by bandwidth
    image = low_pass(water, (height, width), 0.0)
    share = scan.generator(Part.TIMING, 2).uniform(*_FAT_SEEN[isinstance(sequence, GradientEcho)])
    fatty = low_pass(fat, (height, width), shift) * np.complex64(share * np.exp(1j * rate * FAT_SHIFT))
    if scan.contrast == FAT_SUPPRESSED:
        rest = scan.generator(Part.TIMING, 1).uniform(0.08, 0.2)
        fatty *= rest + (1 - rest) * np.minimum(np.square(off / _BAND), 1)
    image += fatty
    angle = _flat(scan, phase(scan, grid, time))
    bias = RandomField.draw(scan.generator(Part.PHASE, 3), 80.0).on(grid)
    strength = np.float32(0.5 * SCANNERS[scan.scanner].bias)  # of the transmit coil alone
    image *= np.exp(strength * _flat(scan, bias) + 1j * angle)
    return _filtered(image, scan), grid


def _points(scan: KspaceScan, number: int, position: float) -> tuple[Floats, Floats]:
    """Signal of water and of fat on the fine points of a slice, the mean through it, (rows, columns) each."""
    height, width = (_FINER * n for n in scan.matrix)
    grid = scan.grid(position, (_THROUGH, height, width))
    _, labels, grain = ANATOMIES[scan.anatomy].draw(scan.seed, scan.subject, scan.lesion, grid)
    labels, grain = scan.as_slices(labels), scan.as_slices(grain)
    pixel = (scan.pixel / _FINER, scan.pixel / _FINER)
    rows, columns = _bent(scan, scan.grid(position, (1, height, width)))
    labels, grain = labels[:, rows, columns], grain[:, rows, columns]
    draw = scan.generator(Part.TEXTURE, number)
    paint_vessels(labels, scan.anatomy, pixel, draw)
    signal = _signals(scan)[labels]
    signal *= 1 + _GRAIN * GRAIN.astype(np.float32)[labels] * grain
    fat = _FAT_SHARE[labels] * signal
    factor = modulation(labels[_THROUGH // 2], pixel, scan.plane != "axial", draw)
    return (signal - fat).mean(axis=0) * factor, fat.mean(axis=0) * factor


def _bent(scan: KspaceScan, grid: Grid) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which point each point of the slice shows, (rows, columns) each: no surface is as smooth, no layer as even as
    the anatomy's formulas are.
    """
    reach = np.float32(_BEND / (scan.pixel / _FINER))
    down, right = (
        reach * _flat(scan, RandomField.draw(scan.generator(Part.GEOMETRY, 2 + axis), _BEND_KNOT).on(grid))
        for axis in range(2)
    )
    height, width = down.shape
    rows = np.rint(np.arange(height, dtype=np.float32)[:, None] + down).astype(np.intp)
    columns = np.rint(np.arange(width, dtype=np.float32)[None, :] + right).astype(np.intp)
    return rows.clip(0, height - 1), columns.clip(0, width - 1)


@lru_cache(maxsize=64)
def _signals(scan: KspaceScan) -> Floats:
    """Signal by tissue label; the tissues are the subject's, as in the phantom's other images."""
    person = (scan.subject,) if scan.anatomy == "brain" else (scan.subject, list(ANATOMIES).index(scan.anatomy))
    draw = generator(scan.seed, Stream.TISSUE, *person)
    tissue = relaxation(SCANNERS[scan.scanner].field, agent=scan.contrast in AFTER_AGENT, generator=draw)
    sequence = _sequence(scan)
    signal = sequence.signal(tissue).astype(np.float32)
    if isinstance(sequence, GradientEcho):
        signal[Tissue.BLOOD] *= _INFLOW
    return signal


def _sequence(scan: KspaceScan) -> Sequence:
    """The scanner's protocol with the small changes of timing that operators make."""
    name = "pd" if scan.contrast == FAT_SUPPRESSED else scan.contrast
    sequence = SCANNERS[scan.scanner].sequences[name]
    if scan.anatomy == "knee" and name == "pd":
        sequence = replace(sequence, te=_KNEE_ECHO)
    draw = scan.generator(Part.TIMING)
    changed = {
        part.name: getattr(sequence, part.name) * float(np.exp(0.08 * draw.standard_normal()))
        for part in fields(sequence)
        if part.name != "ti"  # set to null the CSF
    }
    return replace(sequence, **changed)


def low_pass(points: Floats, shape: tuple[int, int], shift: float) -> Complex:
    """The image (rows, columns) of which only the frequencies within ``shape`` are measured, ``shift`` rows down."""
    rows, columns = points.shape
    height, width = shape
    spectrum = fft.rfft2(points)
    half = width // 2 + 1
    across = np.concatenate([spectrum[: (height + 1) // 2, :half], spectrum[rows - height // 2 :, :half]])
    # Points lie in the pixels' parts: the first one's centre is before the first pixel's.
    down = fft.fftfreq(height) * (0.5 - 0.5 * height / rows - shift)
    right = np.arange(half) / width * (0.5 - 0.5 * width / columns)
    across *= np.exp(2j * np.pi * down)[:, None] * np.exp(2j * np.pi * right)[None, :]
    image = fft.irfft2(across, s=shape) * np.float32(height * width / (rows * columns))
    return image.astype(np.complex64)


def _filtered(image: Complex, scan: KspaceScan) -> Complex:
    """Beyond the field of view the receiver's filter weakens what an oversampled readout still sees."""
    if scan.oversampled:
        place = np.abs(np.arange(len(image)) + 0.5 - len(image) / 2) / len(image)
        image *= np.cos(np.pi / 2 * np.clip((place - 0.3) / 0.1, 0, 1)).astype(np.float32)[:, None]
    return image


def _flat(scan: KspaceScan, drawn: Floats) -> Floats:
    return scan.as_slices(drawn)[0]
