"""Anatomy: a subject's head as tissue labels at any point of space, from scalp to ventricles.

Everything is an implicit function of position, so a slice costs a slice and a volume is its slices. The cortex is
folded along the zero set of a random field: points near that set and near the surface of the brain are sulci. Shapes
are rough averages of an adult head, in mm.
"""

import numpy as np
from numpy.typing import NDArray

from mrtransfer.data.phantom.grid import Floats, Grid
from mrtransfer.data.phantom.head import Head, Place, depth_in_ellipsoid, ellipsoid
from mrtransfer.data.phantom.tissues import Tissue

Labels = NDArray[np.uint8]
_STEPS = 4  # label lookup steps per mm of depth
SELLA = (0.0, 24.0, -31.0)


def normal_labels(head: Head, grid: Grid, at: Place) -> Labels:
    """Tissue labels of the healthy head, ``grid.shape`` uint8."""
    folds, gx, gy, gz = head.folds.with_gradient(grid)
    to_sulcus = np.abs(folds) / np.sqrt(gx**2 + gy**2 + gz**2 + 1e-6)
    labels = _skull_and_scalp(head)[_lookup(at.depth)]
    low = at.z.min() < -8
    brain = at.depth - np.float32(head.atrophy)
    if low:
        brain = _skull_base(labels, head, at, brain, folds)
    labels = _cortex(labels, head, at, brain, folds, to_sulcus)
    if low:
        _hindbrain(labels, at, folds)
    if at.z.max() > -14 and at.z.min() < 42:
        _deep_structures(labels, head, at, folds)
    if low:
        _sella(labels, at)
    _sinuses(labels, at)
    return labels


def _lookup(depth: Floats) -> NDArray[np.intp]:
    return np.clip((depth + 30) * _STEPS, 0, 30 * _STEPS).astype(np.intp)


def _skull_and_scalp(head: Head) -> Labels:
    """Label by depth from −30 mm to 0; deeper is CSF until the brain is painted into it."""
    layers = (
        (Tissue.DURA, 0.9),
        (Tissue.BONE, 0.25 * head.skull),
        (Tissue.MARROW, 0.45 * head.skull),
        (Tissue.BONE, 0.3 * head.skull),
        (Tissue.FAT, head.fat),
        (Tissue.SKIN, 1.8),
    )
    table = np.full(30 * _STEPS + 1, Tissue.AIR, dtype=np.uint8)
    edge, table[-1] = 0.0, Tissue.CSF
    for tissue, thickness in layers:
        table[max(0, int((30 - edge - thickness) * _STEPS)) : int((30 - edge) * _STEPS)] = tissue
        edge += thickness
    return table


def _cortex(labels: Labels, head: Head, at: Place, brain: Floats, folds: Floats, to_sulcus: Floats) -> Labels:
    """Paint CSF, grey and white matter by the distance to the nearest free surface of the cerebrum."""
    sulci = to_sulcus + np.maximum(brain - np.float32(head.sulcus_depth), 0)
    callosum = ellipsoid(np.abs(at.x), at.y, at.z, (0, 2, 8), (16, 38, 22))
    fissure = np.abs(at.x) + 12 * (callosum < 1) * (1.1 - callosum)
    fissures = np.minimum(fissure - 0.3, _sylvian(at, folds))
    surface = np.minimum(np.minimum(sulci, fissures), brain + np.float32(head.sulcus))
    steps = (surface > head.sulcus).astype(np.uint8) + (surface > head.sulcus + head.cortex)
    tissue = np.array([Tissue.CSF, Tissue.GREY, Tissue.WHITE], dtype=np.uint8)[steps]
    return np.where((brain > 0) & (at.depth > 0), tissue, labels)


def _sylvian(at: Place, folds: Floats) -> Floats:
    """Distance (mm) to the Sylvian fissure: from the side of the brain inwards, then along the insula."""
    side, y, z = np.abs(at.x), at.y - 5, at.z - 3
    insula = np.abs(side - 39 + 0.012 * y**2) + np.maximum(np.abs(y) - 19, 0) + np.maximum(np.abs(z) - 13, 0)
    opening = np.abs(y - 0.7 * z - 4 + 3 * folds) + np.maximum(39 - side, 0) + np.maximum(np.abs(z) - 15, 0)
    return np.minimum(insula, opening)


def _skull_base(labels: Labels, head: Head, at: Place, brain: Floats, texture: Floats) -> Floats:
    """Paint the skull base (bone, marrow, air, fat) and the eyes below the lobes; returns the depth in the lobes."""
    side = np.abs(at.x)
    # The frontal and occipital lobes keep their width down to the level of the midbrain and end soon below it.
    height = np.where(at.z > -16, 0.5 * (at.z - 12), 1.6 * (at.z + 16) - 14)
    cerebrum = depth_in_ellipsoid(at.x, at.y, height, (64, 82, 45))
    temporal = depth_in_ellipsoid(side - 43, at.y - 6, at.z + 26, (20, 36, 24))
    lobes = np.maximum(cerebrum, temporal)
    inside = np.where(at.z < -8, np.minimum(brain, lobes), brain)
    bone = (at.depth > 0) & (lobes < -2.5) & (at.z < -8)
    filling = np.where(texture > 0.5, Tissue.MARROW, np.where(texture < -0.9, Tissue.AIR, Tissue.BONE))
    filling = np.where(texture < -0.2, np.where(at.y > 45, Tissue.FAT, filling), filling)
    labels[bone] = filling.astype(np.uint8)[bone]
    eyes = ellipsoid(side, at.y, at.z, (31, 62, -34), (12, 12, 12))
    labels[(eyes < 2.4) & bone] = Tissue.FAT
    labels[(eyes < 1) & bone] = Tissue.EYE
    return inside


def _hindbrain(labels: Labels, at: Place, texture: Floats) -> None:
    """Cerebellum, brain stem and the cisterns around them."""
    side = np.abs(at.x)
    cerebellum = depth_in_ellipsoid(side - 18, at.y + 46, at.z + 42, (34, 31, 27))
    stem = depth_in_ellipsoid(at.x, at.y + 10, at.z + 36, (15, 13, 34))
    cistern = ellipsoid(at.x, at.y, at.z, (0, 12, -26), (15, 17, 14))
    room = at.depth > 0
    labels[room & ((np.maximum(cerebellum, stem) > -2.5) | (cistern < 1)) & (at.z < -6)] = Tissue.CSF
    inside = room & (cerebellum > 0)
    folia = (cerebellum + 4 * np.sin(0.55 * np.hypot(side, 1.3 * at.y)) + 1.5 * texture) > 14
    labels[inside] = np.where(folia, Tissue.WHITE, Tissue.GREY).astype(np.uint8)[inside]
    labels[room & (stem > 0)] = Tissue.WHITE
    labels[ellipsoid(at.x, at.y, at.z, (0, -27, -38), (6, 4, 9)) < 1] = Tissue.CSF


def _deep_structures(labels: Labels, head: Head, at: Place, texture: Floats) -> None:
    """Basal ganglia, thalamus, ventricles and choroid plexus."""
    side, y, z = np.abs(at.x), at.y, at.z
    width = head.ventricles
    grey = np.minimum(
        ellipsoid(side, y, z, (27 + width, 4, 5), (5.5, 17, 11)),
        np.minimum(
            ellipsoid(side, y, z, (10 + 3 * width, 20, 12), (4.5, 12, 10)),
            ellipsoid(side, y, z, (8 + 2 * width, -13, 6), (8, 14, 9)),
        ),
    )
    labels[grey < 1 + 0.06 * texture] = Tissue.DEEP_GREY
    middle = 6 * width + 0.012 * np.minimum(y, 0) ** 2 + 0.006 * np.maximum(y, 0) ** 2
    half = width * (3.6 + 0.07 * np.maximum(-y, 0))
    lateral = ((side - middle) / half) ** 2 + ((y + 4) / 41) ** 2 + ((z - 14) / (9 + 4 * width)) ** 2
    third = ellipsoid(side, y, z, (0, -6, -2), (1.3 + 1.2 * width, 13, 11))
    water = (lateral < 1) & (side > 0.8)
    labels[water] = Tissue.CSF
    labels[third < 1] = Tissue.CSF
    plexus = ((side - middle) ** 2 + (y + 27) ** 2 * 0.25 + (z - 9) ** 2 * 0.15) < 7
    labels[plexus & water] = Tissue.CHOROID


def _sella(labels: Labels, at: Place) -> None:
    """The pituitary gland in its bony seat, and the carotid arteries beside it."""
    x, y, z = SELLA
    seat = ellipsoid(at.x, at.y, at.z, (x, y, z - 4), (11, 8, 7))
    labels[(seat < 1) & (at.z < z + 2)] = Tissue.BONE
    labels[ellipsoid(at.x, at.y, at.z, (x, y, z), (6, 4.5, 3.5)) < 1] = Tissue.PITUITARY_GLAND
    carotids = ((np.abs(at.x) - 12) ** 2 + (at.y - y) ** 2) < 9
    labels[carotids & (at.z < z + 12)] = Tissue.BLOOD


def _sinuses(labels: Labels, at: Place) -> None:
    """The sagittal sinus behind, on top and in front, and the falx between the hemispheres."""
    near = np.abs(at.depth) + 1.2 * np.abs(at.x)
    labels[(near < 4.2) & (at.z > -5)] = Tissue.BLOOD
    falx = (np.abs(at.x) < 0.9) & (at.depth > 0) & (at.depth < 22) & (at.z > 0)
    labels[falx] = Tissue.DURA
