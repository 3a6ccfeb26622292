"""A case: one row of a manifest, read; all its channels and its mask on one grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from nibabel.orientations import aff2axcodes

from mrtransfer.common.errors import UserError
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.readers import read_mask
from mrtransfer.data.readers.location import is_phantom
from mrtransfer.data.volume.read import Planes, is_phantom_volume, read_planes
from mrtransfer.data.volume.volume import SAME_GRID, grid_difference, spacing_of

COLOURS = ("red", "green", "blue")
"""The channels of a colour picture that is a sample's whole image."""
_REMEDY = "channels and mask of a sample must share one grid, so resample one onto the other's"


@dataclass(frozen=True, eq=False)
class Case:
    """One subject's scan, or one slice of it, as read."""

    image: np.ndarray
    """float32 (C, X, Y, Z), in the files' own units."""
    mask: np.ndarray | None
    """uint8 (X, Y, Z), class indices of the manifest's mask labels; None where there is no mask."""
    affine: np.ndarray
    """(4, 4), from voxel indices to RAS mm."""
    channels: tuple[str, ...]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along each axis in mm."""
        return spacing_of(self.affine)


def read_case(manifest: Manifest, row: int, *, with_mask: bool = True) -> Case:
    """The image and mask of one row; a manifest without mask labels has masks of one class, all that is not 0.

    A colour picture gives three channels. Where files do not say where they lie, the columns ``spacing_y`` (between
    rows) and ``spacing_x`` give the size of a pixel. Raises :class:`UserError` that names the files whose grids differ
    (in shape, or by more than a twentieth of a voxel anywhere), and the file that is missing, damaged, constant
    throughout a volume, not finite, or holds a mask value without meaning.
    """
    locations = manifest.locations(row)
    read = [_channel(location, manifest.root, alone=len(locations) == 1) for location in locations]
    files = list(zip(locations, read, strict=True))
    table = manifest.table
    mask_location = table["mask"].iloc[row] if with_mask else None
    if mask_location is None or pd.isna(mask_location):
        mask = None
    else:
        mask = _mask(str(mask_location), manifest)
        files.append((str(mask_location), mask))
    _check_one_grid(files)
    data = [planes.data for planes in read]
    image = np.empty((sum(map(len, data)), *data[0].shape[1:]), np.float32)
    np.concatenate(data, out=image, casting="unsafe")
    placed = next((planes.affine for planes in read if planes.placed), None)
    return Case(
        image,
        None if mask is None else mask.data[0],
        _with_pixel_size(read[0].affine, table.iloc[row]) if placed is None else placed,
        manifest.channels if len(image) == len(manifest.channels) else COLOURS,
    )


def read_reference(manifest: Manifest, row: int) -> np.ndarray:
    """The mask of one row alone, uint8 (X, Y, Z) class indices, on the grid that :func:`read_case` checked."""
    return _mask(str(manifest.table["mask"].iloc[row]), manifest).data[0]


def _channel(location: str, root: Path, alone: bool) -> Planes:
    """One file's channels, checked; several only where it is ``alone`` the whole image."""
    planes = read_planes(location, root)
    if not alone:
        planes = _grey(planes, location, "each channel's file must be grey")
    if planes.data.dtype.kind == "f":
        wrong = planes.data.size - np.count_nonzero(np.isfinite(planes.data))
        if wrong:
            raise UserError(
                f"{location}: {wrong:,} of its {planes.data.size:,} values are NaN or infinite; replace them, "
                "for example by 0"
            )
    # A slice may lie outside the head; a whole volume of one value is a mistake.
    if planes.data.shape[-1] > 1 and planes.data.min() == planes.data.max():
        raise UserError(f"{location}: is {planes.data.flat[0]:g} everywhere; a scan has more than one value")
    return planes


def _mask(location: str, manifest: Manifest) -> Planes:
    """The mask as class indices, uint8."""
    labels = manifest.mask_labels or MaskLabels.binary()
    slice_of_phantom = is_phantom(location) and not is_phantom_volume(location)
    planes = None if slice_of_phantom else read_planes(location, manifest.root)
    if planes is None or (labels.anything_else and not planes.placed):  # as masks of pictures are read everywhere
        mask = read_mask(location, manifest.root)
        return Planes(labels.to_classes(mask, location)[None, ..., None], np.eye(4), placed=False)
    planes = _grey(planes, location, "a mask with values of its own for classes must be grey")
    return Planes(labels.to_classes(planes.data, location), planes.affine, planes.placed)


def _grey(planes: Planes, location: str, needed: str) -> Planes:
    """The one channel of a picture whose colours are equal."""
    if (planes.data[1:] != planes.data[:1]).any():
        raise UserError(f"{location}: is a colour image; {needed}")
    return Planes(planes.data[:1], planes.affine, planes.placed)


def _check_one_grid(files: Sequence[tuple[str, Planes]]) -> None:
    """All of one shape, and all that say where they lie in one place."""
    name, first = files[0]
    for other_name, other in files[1:]:
        if other.data.shape[1:] != first.data.shape[1:]:
            sizes = " and ".join(" × ".join(map(str, planes.data.shape[1:])) for planes in (first, other))
            raise UserError(f"{name} and {other_name}: have different shapes ({sizes}); {_REMEDY}")
    placed = [(name, planes) for name, planes in files if planes.placed]
    for other_name, other in placed[1:]:
        name, first = placed[0]
        apart = grid_difference(first.data.shape[1:], first.affine, other.affine)
        if apart > SAME_GRID:
            raise UserError(
                f"{name} and {other_name}: lie on different grids ({_difference(first, other, apart)}); {_REMEDY}"
            )


def _difference(first: Planes, other: Planes, apart: float) -> str:
    axes = ["".join(aff2axcodes(planes.affine)) for planes in (first, other)]
    if axes[0] != axes[1]:
        return f"their axes point to {axes[0]} and {axes[1]}"
    return f"voxels of the same index are up to {apart:.2g} voxels apart"


def _with_pixel_size(affine: np.ndarray, row: pd.Series) -> np.ndarray:
    """The affine of a picture, with the manifest's pixel size where it has one."""
    sizes = np.diag(affine).copy()
    for axis, column in enumerate(("spacing_y", "spacing_x")):
        if pd.notna(row[column]):
            sizes[axis] = row[column]
    return np.diag(sizes)
