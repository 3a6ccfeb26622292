"""NIfTI files as volumes, through nibabel."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.readers import suffix
from mrtransfer.data.readers.location import Location
from mrtransfer.data.volume.volume import Volume, checked_affine, spacing_of

_TO_MM = {"micron": 1e-3, "meter": 1e3}
_LARGEST = 100.0  # mm; no scanner makes such voxels


def read_nifti(location: Location, file: Path) -> Volume:
    """The volume in a NIfTI file; ``#volume=k`` chooses one of a file that holds several.

    The affine is the sform, or else the qform, or else (with neither) the voxel sizes as nibabel places them; in mm,
    also where the header counts in metres or microns. Scaled values are float32, others keep the file's type.
    Raises :class:`UserError` for a file with several volumes and no ``volume=``, and for an affine that is no affine.
    """
    location.only("volume")
    header: Any = nib.load(file)
    index = _index(location, header.shape)
    affine = _in_mm(checked_affine(header.affine, file), header, file)
    if any(index) or suffix(file) != ".nii.gz" or int(np.prod(header.shape[3:])) > 1:
        voxels = _voxels(header, index, location)
    else:  # all at once is quicker than piece by piece, and checks the checksum at the file's end
        voxels = _voxels(type(header).from_bytes(gzip.decompress(file.read_bytes())), index, location)
    return Volume(voxels.reshape(*voxels.shape, *[1] * (3 - voxels.ndim)), affine)


def _index(location: Location, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index into the axes behind the third; ``()`` where there are none."""
    size = " × ".join(map(str, shape))
    long = [axis for axis, n in enumerate(shape) if axis > 2 and n > 1]
    if len(shape) < 2 or len(long) > 1 or 0 in shape:
        raise UserError(f"{location}: has shape {size}; a volume with three axes (or four, with volume=) is needed")
    count = shape[long[0]] if long else 1
    if long and "volume" not in location.options:
        raise UserError(
            f"{location}: holds {count} volumes ({size}) where one is needed; choose one with #volume=k, "
            f"k from 0 to {count - 1}"
        )
    volume = location.number("volume", 0)
    if not 0 <= volume < count:
        raise UserError(f"{location}: volume must be between 0 and {count - 1}")
    return tuple(volume if axis in long else 0 for axis in range(3, len(shape)))


def _voxels(image: Any, index: tuple[int, ...], location: Location) -> np.ndarray:
    stored = image.get_data_dtype()
    if stored.kind not in "biuf":
        raise UserError(f"{location}: holds {stored} values; real numbers are needed")
    voxels = np.asarray(image.dataobj[(..., *index)])
    return voxels.astype(np.float32 if voxels.dtype.kind == "f" else voxels.dtype.newbyteorder("="), copy=False)


def _in_mm(affine: np.ndarray, image: Any, file: Path) -> np.ndarray:
    unit = image.header.get_xyzt_units()[0]
    scaled = affine.copy()
    scaled[:3] *= _TO_MM.get(unit, 1.0)
    widest = max(spacing_of(scaled))
    if unit == "meter" and widest > _LARGEST:
        raise UserError(
            f"{file}: its header counts in metres, which makes its voxels {widest:g} mm wide; "
            "correct the header's unit (millimetres are code 2)"
        )
    return scaled
