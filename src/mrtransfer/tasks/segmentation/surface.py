"""Distances between surfaces: 95th percentile of the Hausdorff distance, and normalised surface Dice.

The surface of a mask is made of those of its voxels that have a face-neighbour outside it (6 neighbours, 4 in a single
slice); voxels at the edge of the image belong to it. Distances run between centres of surface voxels, in mm.

* HD95 is the larger of the two directed 95th percentiles (from each surface to the other), with linear interpolation
  between order statistics. MONAI agrees: ``compute_hausdorff_distance(percentile=95, directed=False, spacing=...)``.
  The percentile of both sets of distances thrown together, which some tools report, is never larger.
* NSD (Nikolov et al. 2021, JMIR 23:e26151, in voxels instead of triangles) is the share of both surfaces' voxels that
  lie within a tolerance of the other. MONAI agrees: ``compute_surface_dice(class_thresholds=[tolerance], spacing=...,
  use_subvoxels=False)``.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree

from mrtransfer.tasks.segmentation.extent import checked_spacing, common_box, diagonal_mm

PERCENTILE = 95.0
_VOXELS_PER_QUERY = 30  # a tree's query costs about as much as this many voxels of a distance transform


def surface(mask: np.ndarray) -> np.ndarray:
    """The surface voxels of a boolean mask, bool of the same shape; axes of one voxel do not count as directions."""
    padded = np.pad(mask.astype(bool, copy=False), 1)
    core = (slice(1, -1),) * mask.ndim
    inside = np.ones(mask.shape, dtype=bool)
    for axis in [axis for axis, size in enumerate(mask.shape) if size > 1]:
        for shifted in (slice(2, None), slice(None, -2)):
            inside &= padded[(*core[:axis], shifted, *core[axis + 1 :])]
    return mask & ~inside


def surface_distances(
    predicted: np.ndarray, reference: np.ndarray, spacing: Sequence[float] | np.ndarray, *, missing: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm of every surface voxel to the other mask's surface.

    Args:
        predicted, reference: boolean masks of one shape.
        spacing: mm per axis.
        missing: the distance of a surface without counterpart; by default the diagonal of the grid.

    Returns:
        (predicted to reference, reference to predicted), one float64 number per surface voxel; empty for empty masks.
    """
    steps = checked_spacing(spacing, predicted.ndim)
    far = diagonal_mm(predicted.shape, steps) if missing is None else missing
    box = common_box(predicted, reference)
    if box is None:
        return np.zeros(0), np.zeros(0)
    own, other = _surface_in(predicted, box), _surface_in(reference, box)
    return _directed(own, other, steps, far), _directed(other, own, steps, far)


def _surface_in(mask: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """The surface within ``box``, which holds the whole mask: outside it there is only background."""
    # Axes of one voxel stay so; an axis that only the crop made flat gets the background that lies around it.
    margins = [(1, 1) if size > 1 else (0, 0) for size in mask.shape]
    found = surface(np.pad(mask[box], margins))
    return found[tuple(slice(before, -after if after else None) for before, after in margins)]


def _directed(own: np.ndarray, other: np.ndarray, steps: np.ndarray, far: float) -> np.ndarray:
    """Distance of every voxel of ``own`` to the nearest of ``other``."""
    distances = np.zeros(int(np.count_nonzero(own)))
    if not other.any():
        distances[:] = far
        return distances
    apart = ~other[own]  # what lies on both surfaces is 0 away: usually most of it
    count = int(np.count_nonzero(apart))
    if count * _VOXELS_PER_QUERY > own.size:
        distances[apart] = distance_transform_edt(~other, sampling=steps)[own][apart]
    elif count:
        # Building the balanced tree would cost more than its faster queries save.
        tree = KDTree(np.argwhere(other) * steps, balanced_tree=False, compact_nodes=False)
        distances[apart] = tree.query(np.argwhere(own)[apart] * steps)[0]
    return distances


def hd95(to_reference: np.ndarray, to_predicted: np.ndarray) -> float:
    """The 95 % Hausdorff distance from both directions' distances; 0 where there is no surface at all."""
    directed = [float(np.percentile(d, PERCENTILE)) for d in (to_reference, to_predicted) if len(d)]
    return max(directed, default=0.0)


def surface_dice(to_reference: np.ndarray, to_predicted: np.ndarray, tolerance_mm: float) -> float:
    """Normalised surface Dice, 0 … 1, from both directions' distances; 1 where there is no surface at all."""
    total = len(to_reference) + len(to_predicted)
    near = np.count_nonzero(to_reference <= tolerance_mm) + np.count_nonzero(to_predicted <= tolerance_mm)
    return float(near / total) if total else 1.0
