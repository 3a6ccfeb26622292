"""Where a mask lies, so that all work on it can be done in its bounding box."""

from collections.abc import Sequence

import numpy as np

from mrtransfer.common.errors import UserError

Box = tuple[slice, ...]


def bounding_box(mask: np.ndarray) -> Box | None:
    """The smallest box that holds every non-zero voxel of ``mask`` (any number of axes); None where there is none."""
    if mask.ndim == 0:
        return () if mask else None
    view, box = mask, []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(view.any(axis=others))
        if len(filled) == 0:
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
        view = view[(slice(None),) * axis + (box[-1],)]  # the next axis is looked at inside this one's bounds
    return tuple(box)


def common_box(first: np.ndarray, second: np.ndarray, *, margin: int = 0) -> Box | None:
    """The smallest box that holds every non-zero voxel of two arrays of one shape; None where both are empty.

    ``margin`` voxels are added on every side, as far as the arrays reach.
    """
    boxes = [box for box in (bounding_box(first), bounding_box(second)) if box is not None]
    if not boxes:
        return None
    return tuple(
        slice(max(min(part.start for part in parts) - margin, 0), min(max(part.stop for part in parts) + margin, size))
        for *parts, size in zip(*boxes, first.shape, strict=True)
    )


def checked_spacing(spacing: Sequence[float] | np.ndarray, axes: int) -> np.ndarray:
    """``spacing`` as float64 (axes,); :class:`UserError` unless it is one positive length in mm per axis."""
    found = np.asarray(spacing, dtype=float)
    if found.shape != (axes,) or not (np.isfinite(found) & (found > 0)).all():
        raise UserError(f"spacing: {spacing!r} does not fit; right are {axes} lengths in mm, all above 0")
    return found


def diagonal_mm(shape: Sequence[int], spacing: np.ndarray) -> float:
    """Length of a grid's diagonal in mm, number of voxels × spacing; axes of one voxel have no length."""
    extents = [n * step for n, step in zip(shape, spacing, strict=True) if n > 1]
    return float(np.sqrt(np.square(extents).sum()))
