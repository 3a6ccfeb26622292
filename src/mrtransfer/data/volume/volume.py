"""A volume: voxels, and where in the patient they lie."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

from mrtransfer.common.errors import UserError

# Headers round: two files of one grid may differ by this part of a voxel anywhere in it, and not by more.
SAME_GRID = 0.05
_FLAT = 1e-3  # columns of an affine that span less than this part of a box are taken for a plane


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels (X, Y, Z) in the file's own type, and the affine (4, 4) from voxel indices to RAS coordinates in mm.

    A 2-D image is a volume of one slice, (rows, columns, 1).
    """

    data: np.ndarray
    affine: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        x, y, z = self.data.shape
        return (x, y, z)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along each axis in mm."""
        return spacing_of(self.affine)


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Distance between voxel centres along each axis in mm."""
    x, y, z = (float(size) for size in voxel_sizes(affine))
    return (x, y, z)


def checked_affine(affine: np.ndarray, where: str | Path) -> np.ndarray:
    """``affine`` as float64; raises :class:`UserError` that names ``where`` if it is not finite or not invertible."""
    affine = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        raise UserError(f"{where}: its affine holds values that are not finite; correct the header's sform or qform")
    box = float(np.prod(voxel_sizes(affine)))
    if abs(np.linalg.det(affine[:3, :3])) <= _FLAT * box:
        sizes = " × ".join(f"{size:g}" for size in voxel_sizes(affine))
        raise UserError(
            f"{where}: its affine is singular (voxels of {sizes} mm that span no volume); "
            "correct the header's sform or qform"
        )
    return affine


def grid_difference(shape: tuple[int, ...], affine: np.ndarray, other: np.ndarray) -> float:
    """The farthest that a voxel of a grid lies from itself under ``other``, in voxels of ``affine``.

    The difference of two affine maps is largest at a corner of the grid.
    """
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    apart = np.abs(apply_affine(np.linalg.inv(affine) @ other, corners) - corners)
    return float(apart.max())
