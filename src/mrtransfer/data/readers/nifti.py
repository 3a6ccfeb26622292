"""Slices of NIfTI volumes, through nibabel; only the slice is read."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.readers.location import Location

_TOWARDS = "RAS"  # directions whose indices grow against the way they are shown
_ROWS_FIRST = {"S": 0, "I": 0, "A": 1, "P": 1, "R": 2, "L": 2}


def read(location: Location, file: Path) -> np.ndarray:
    """One slice (H, W), as a radiologist sees it: anterior or superior on top, the patient's right on the left.

    ``#axis=2&index=70`` counts as the file is stored; by default the middle slice of axis 2. ``volume=k`` chooses a
    volume of a 4-D file, by default the first. Scaled values are float32, others keep the file's type.
    """
    image, axis, index, volume = _where(location, file)
    part: list[Any] = [slice(None)] * 3
    part[axis] = index
    rest = [volume] if len(image.shape) > 3 else []
    pixels = np.asarray(image.dataobj[(*part, *rest)])
    if pixels.dtype.kind not in "biuf":
        raise UserError(f"{location}: holds {pixels.dtype} values; real numbers are needed")
    if pixels.dtype == np.float64:
        pixels = pixels.astype(np.float32)
    rows, columns, codes = _shown(image, axis)
    if rows > columns:
        pixels = pixels.T
    return np.ascontiguousarray(
        pixels[tuple(slice(None, None, -1 if codes[a] in _TOWARDS else 1) for a in (rows, columns))]
    )


def meta(location: Location, file: Path) -> dict[str, Any]:
    """Shape and spacing of the slice, rows first."""
    image, axis, _, _ = _where(location, file)
    rows, columns, _ = _shown(image, axis)
    zooms = image.header.get_zooms()
    found: dict[str, Any] = {"shape": (image.shape[rows], image.shape[columns])}
    if zooms[rows] > 0 and zooms[columns] > 0:
        found["spacing"] = (float(zooms[rows]), float(zooms[columns]))
    return found


def _where(location: Location, file: Path) -> tuple[Any, int, int, int]:
    location.only("axis", "index", "volume")
    image: Any = nib.load(file)
    shape = image.shape
    if len(shape) not in (3, 4):
        raise UserError(f"{location}: has shape {shape}; a volume with three axes (or four, with time) is needed")
    axis = location.number("axis", 2)
    if axis not in (0, 1, 2):
        raise UserError(f"{location}: axis must be 0, 1 or 2")
    index = location.number("index", shape[axis] // 2)
    if not 0 <= index < shape[axis]:
        raise UserError(f"{location}: index must be between 0 and {shape[axis] - 1} along axis {axis}")
    volume, volumes = location.number("volume", 0), shape[3] if len(shape) == 4 else 1
    if not 0 <= volume < volumes:
        raise UserError(f"{location}: volume must be between 0 and {volumes - 1}")
    return image, axis, index, volume


def _shown(image: Any, axis: int) -> tuple[int, int, tuple[str, ...]]:
    """The stored axes that become rows and columns, and where each stored axis points (R, A, S, L, P or I)."""
    codes = tuple(code or "RAS"[i] for i, code in enumerate(nib.aff2axcodes(image.affine)))
    rows, columns = sorted((a for a in range(3) if a != axis), key=lambda a: _ROWS_FIRST[codes[a]])
    return rows, columns, codes
