"""The phase of the phantom's images: a smooth background, an echo off its centre, and what the main field's shape adds.

The field is worked out from the susceptibility of the subject's own tissues and of the air around and within the head,
shimmed, and turns into phase over the echo time of a gradient echo, or over the small error of a spin echo's timing.
"""

from functools import lru_cache
from types import MappingProxyType

import numpy as np
from scipy import ndimage

from mrtransfer.data.phantom.acquisition import SCANNERS
from mrtransfer.data.phantom.contrast import GradientEcho, Sequence
from mrtransfer.data.phantom.grid import Floats, Grid, RandomField
from mrtransfer.data.phantom.head import ellipsoid, head
from mrtransfer.data.phantom.kspace_scan import KspaceScan, Part
from mrtransfer.data.phantom.randomness import Stream, generator
from mrtransfer.data.phantom.tissues import N_TISSUES, Tissue
from mrtransfer.data.phantom.volume_scan import ANATOMIES
from mrtransfer.physics.susceptibility import field_shift, shimmed

GYROMAGNETIC = 42.577  # MHz/T: the proton's, over 2π
FAT_SHIFT = -3.4  # ppm
_POINTS, _STEP = 64, 4.0  # the cube on which the field is worked out, mm
_SLAB = 8
_REACH = 60.0  # mm above and below the anatomy's centre that are shimmed
_TIMING = 0.3  # ms, by which a spin echo may miss the readout's middle
_KNOT = 70.0  # mm, of the smooth background
# ppm more than in water, after Schenck, Med Phys 23:815 (1996).
_SUSCEPTIBILITY = MappingProxyType(
    {
        Tissue.AIR: 9.4,
        Tissue.BONE: -2.0,
        Tissue.FAT: 0.7,
        Tissue.MARROW: 0.3,
        Tissue.FATTY_MARROW: 0.6,
    }
)
# Air within the head: centre and half axes in mm; |x|, so off the middle there are two of a kind.
_SINUSES = (
    ((9, 70, -8), (10, 6, 13)),  # frontal
    ((6, 38, -37), (9, 18, 10)),  # sphenoid and ethmoid
    ((0, 66, -52), (12, 24, 20)),  # nose
    ((50, -22, -38), (9, 11, 14)),  # mastoid
    ((0, 18, -75), (13, 16, 26)),  # throat
)


def echo_time(scan: KspaceScan, sequence: Sequence) -> float:
    """Milliseconds over which off-resonance turns into phase."""
    if isinstance(sequence, GradientEcho):
        return sequence.te
    return float(scan.generator(Part.PHASE, 1).uniform(-_TIMING, _TIMING))


def phase(scan: KspaceScan, grid: Grid, time: float) -> Floats:
    """Radians on ``grid``, of water, for an effective echo ``time`` in ms."""
    draw = scan.generator(Part.PHASE)
    background = RandomField.draw(draw, _KNOT)
    total = np.float32(draw.uniform(0.5, 1.3)) * background.on(grid) + np.float32(draw.uniform(-np.pi, np.pi))
    x, y, z = grid.axes()
    ramp = 2 * np.pi / 230 * draw.normal(0, 0.6, 3)  # a cycle over the field of view moves the echo by one sample
    total += np.float32(ramp[0]) * x + np.float32(ramp[1]) * y + np.float32(ramp[2]) * z
    turns = GYROMAGNETIC * SCANNERS[scan.scanner].field * time / 1000  # cycles per ppm
    return total + np.float32(2 * np.pi * turns) * field(scan.anatomy, scan.seed, scan.subject).on(grid)


@lru_cache(maxsize=8)
def field(anatomy: str, seed: int, subject: int) -> RandomField:
    """The main field's deviation in ppm where a subject lies in it, as a spline through its values."""
    part = ANATOMIES[anatomy]
    grid = Grid.box((_POINTS,) * 3, (_STEP,) * 3, part.centre)
    table = np.zeros(N_TISSUES, dtype=np.float32)
    for tissue, value in _SUSCEPTIBILITY.items():
        table[tissue] = value
    labels = np.concatenate([part.draw(seed, subject, "no_tumour", slab)[0] for slab in grid.slabs(_SLAB)])
    susceptibility = table[labels]
    if anatomy == "brain":
        susceptibility[_air(seed, subject, grid)] = _SUSCEPTIBILITY[Tissue.AIR]
    susceptibility = ndimage.gaussian_filter(susceptibility, 1.0)  # its stairs would be waves of the field
    shift = field_shift(susceptibility, (_STEP,) * 3)
    near = np.abs(np.asarray(grid.z) - part.centre[2])[:, None, None] < _REACH
    left = shimmed(shift, near & (labels != Tissue.AIR))
    return RandomField(ndimage.spline_filter(left, order=3, output=np.float32), _STEP, part.centre)


def _air(seed: int, subject: int, grid: Grid) -> np.ndarray:
    """Where a head's sinuses and airways are, boolean ``grid.shape``."""
    draw = generator(seed, Stream.KSPACE, int(Part.PHASE), subject, len(ANATOMIES))
    x, y, z = head(seed, subject).coordinates(grid)
    air = np.zeros(grid.shape, dtype=bool)
    for centre, half in _SINUSES:
        size = draw.uniform(0.6, 1.25)
        air |= ellipsoid(np.abs(x), y, z, centre, tuple(size * axis for axis in half)) < 1
    return air
