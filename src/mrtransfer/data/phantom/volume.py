"""Volumes of the phantom: a whole head or knee with its tumour, in 3-D, and the classes of its parts.

The anatomy is drawn on points about 1.5 mm apart, up to three along each axis of a voxel; the voxel shows their mean,
the partial volume effect. A tumour is one piece: what its random surface cuts off stays healthy. Contrast ``mask`` is
the class map of the same subject on the same grid.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.phantom.acquisition import SCANNERS, Scanner
from mrtransfer.data.phantom.anatomy import Labels
from mrtransfer.data.phantom.contrast import CONTRASTS
from mrtransfer.data.phantom.grid import Floats, Grid
from mrtransfer.data.phantom.randomness import Stream, generator
from mrtransfer.data.phantom.render import signal_table
from mrtransfer.data.phantom.tissues import GRAIN, N_TISSUES, Tissue
from mrtransfer.data.phantom.volume_scan import ANATOMIES, MASK, VolumeScan, parse_volume
from mrtransfer.physics.bias import bias_field
from mrtransfer.physics.noise import rician
from mrtransfer.physics.resolution import limit_resolution

# As BraTS since 2017: one class for necrosis and the core that does not enhance.
LABELS = MaskLabels.create(
    {"necrosis": 1, "oedema": 2, "enhancing": 3},
    {
        "whole tumour": ["necrosis", "oedema", "enhancing"],
        "tumour core": ["necrosis", "enhancing"],
        "enhancing tumour": ["enhancing"],
    },
)
_CLASS = np.zeros(N_TISSUES, dtype=np.uint8)
_CLASS[[Tissue.GLIOMA, Tissue.NECROSIS, Tissue.CALCIFICATION, Tissue.ADENOMA_CYST]] = 1
_CLASS[Tissue.OEDEMA] = 2
_CLASS[[Tissue.GLIOMA_RIM, Tissue.MENINGIOMA, Tissue.ADENOMA]] = 3
_OUTSIDE = ("AIR", "SKIN", "FAT", "BONE", "MARROW", "MUSCLE", "EYE", "DURA", "BLOOD")
_IN_BRAIN = ~np.isin(np.arange(N_TISSUES), [Tissue[name] for name in _OUTSIDE])
_GRAIN = GRAIN.astype(np.float32)
_POINTS = 1.5  # mm between the points of the anatomy in a voxel, about
_MOST_POINTS = 3  # of a voxel along an axis
_SLAB = 4  # slices of points drawn at a time: small arrays stay in the processor's cache
_UNITS = 1000  # the 99th percentile of a volume in scanner units, before the scan's own gain


def render_volume(location: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The volume at ``location``, the same bytes every time: (X, Y, Z) and its affine (4, 4), voxels to RAS mm.

    int16 in scanner units, whose scale differs from scan to scan; for contrast ``mask``, uint8 classes of
    :data:`LABELS`.
    """
    scan = parse_volume(location)
    slices = class_map(scan) if scan.contrast == MASK else _acquire(scan)
    # (z, rows, columns) to (X, Y, Z): rows run to the back and columns to the patient's left.
    return np.ascontiguousarray(slices.transpose(2, 1, 0)[::-1, ::-1]), scan.affine


def class_map(scan: VolumeScan) -> NDArray[np.uint8]:
    """The class that fills most of each voxel, (z, rows, columns)."""
    labels, _ = _anatomy(*_drawn(scan))
    factors = _factors(scan.spacing)
    classes = _CLASS[labels]
    if factors == (1, 1, 1):
        return classes
    shares = np.stack([_voxels(classes == index, factors) for index in range(len(LABELS.names))])
    return shares.argmax(axis=0).astype(np.uint8)


def _acquire(scan: VolumeScan) -> NDArray[np.int16]:
    """What the scanner writes, (z, rows, columns): signal, partial volume, resolution, bias, noise, gain."""
    labels, grain = _anatomy(*_drawn(scan))
    person = (scan.subject,) if scan.anatomy == "brain" else (scan.subject, list(ANATOMIES).index(scan.anatomy))
    points = signal_table(scan.seed, person, scan.contrast, scan.scanner)[labels]
    points *= 1 + _GRAIN[labels] * grain
    factors = _factors(scan.spacing)
    signal = _voxels(points, factors)
    scanner = SCANNERS[scan.scanner]
    draw = generator(
        scan.seed,
        Stream.VOLUME,
        scan.subject,
        list(ANATOMIES).index(scan.anatomy),
        CONTRASTS.index(scan.contrast),
        list(SCANNERS).index(scan.scanner),
    )
    image = _in_plane(signal, scan.spacing[::-1], scanner)
    image *= bias_field(image.shape, scanner.bias, draw)
    level = float(np.partition(image.ravel(), -image.size // 100)[-image.size // 100])
    image = rician(image, scanner.noise * level, draw)
    image *= _UNITS * np.exp(0.3 * draw.standard_normal()) / level
    if scan.extracted:
        inside = ndimage.binary_closing(_voxels(_IN_BRAIN[labels], factors) >= 0.5)
        image[~(_largest(inside) | (class_map(scan) > 0))] = 0
    return np.clip(np.rint(image), 0, np.iinfo(np.int16).max).astype(np.int16)


def _in_plane(signal: Floats, spacing: tuple[float, ...], scanner: Scanner) -> Floats:
    """The scanner's resolution within its slices, which are thickest along the axis of the largest ``spacing``."""
    through = max(range(3), key=lambda axis: (spacing[axis], axis == 0))
    rows, columns = (step for axis, step in enumerate(spacing) if axis != through)
    measured = limit_resolution(np.moveaxis(signal, through, 0), (rows, columns), scanner.resolution)
    return np.ascontiguousarray(np.moveaxis(np.maximum(measured, 0), 0, through))


def _drawn(scan: VolumeScan) -> tuple[str, int, int, str, tuple[float, ...], tuple[int, ...]]:
    """What the anatomy depends on: all contrasts and the mask of a subject share it."""
    return scan.anatomy, scan.seed, scan.subject, scan.lesion, scan.spacing, scan.size


@lru_cache(maxsize=4)
def _anatomy(
    name: str, seed: int, subject: int, kind: str, spacing: tuple[float, ...], size: tuple[int, ...]
) -> tuple[Labels, Floats]:
    """Labels and grain on the points of all voxels."""
    anatomy = ANATOMIES[name]
    z, y, x = _factors(spacing)
    grid = Grid.box(
        (size[0] * x, size[1] * y, size[2] * z), (spacing[0] / x, spacing[1] / y, spacing[2] / z), anatomy.centre
    )
    healthy, labels = np.empty(grid.shape, dtype=np.uint8), np.empty(grid.shape, dtype=np.uint8)
    grain = np.empty(grid.shape, dtype=np.float32)
    for number, slab in enumerate(grid.slabs(_SLAB)):
        part = slice(number * _SLAB, number * _SLAB + len(slab.z))
        healthy[part], labels[part], grain[part] = anatomy.draw(seed, subject, kind, slab)
    tumour = _CLASS[labels] > 0
    labels = np.where(tumour & ~_largest(tumour), healthy, labels)
    labels.setflags(write=False)
    grain.setflags(write=False)
    return labels, grain


def _largest(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part."""
    parts, count = ndimage.label(inside)
    if count < 2:
        return inside
    return np.asarray(parts == 1 + np.bincount(parts.ravel())[1:].argmax())


def _factors(spacing: tuple[float, ...]) -> tuple[int, int, int]:
    """Points in a voxel along z, rows and columns."""
    x, y, z = (min(max(1, round(step / _POINTS)), _MOST_POINTS) for step in spacing)
    return z, y, x


def _voxels(points: NDArray[Any], factors: tuple[int, int, int]) -> Floats:
    """The mean of each voxel's points, (z, rows, columns) float32."""
    total: NDArray[Any] = points.astype(np.float32)
    for axis, k in enumerate(factors):
        if k > 1:
            parts = [total[(slice(None),) * axis + (slice(first, None, k),)] for first in range(k)]
            total = sum(parts[1:], start=parts[0])
    return np.asarray(total / np.float32(np.prod(factors)), dtype=np.float32)
