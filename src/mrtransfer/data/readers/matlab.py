"""MATLAB files: version 5 through SciPy, version 7.3 (HDF5) through h5py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from mrtransfer.common.errors import UserError
from mrtransfer.data.readers.location import Location

STRUCT = "cjdata"  # the figshare brain tumour set keeps everything in a struct of this name


def read(location: Location, file: Path) -> np.ndarray:
    """The array of ``#field=image`` (the default), from the struct ``cjdata`` or among the file's variables."""
    location.only("field")
    pixels = np.asarray(read_fields(file, [location.options.get("field", "image")])[0])
    if pixels.dtype.kind not in "biuf":
        raise UserError(f"{location}: holds {pixels.dtype} values; an array of numbers is needed")
    return pixels.astype(np.float32) if pixels.dtype == np.float64 else pixels


def meta(location: Location, file: Path) -> dict[str, Any]:
    """Nothing: a MATLAB file has no header to speak of."""
    return {}


def read_fields(file: Path, fields: Sequence[str]) -> list[Any]:
    """The values of ``fields`` as MATLAB shows them; text as str. From 7.3 files only these are read.

    Raises :class:`UserError` that lists the fields there are where one is missing.
    """
    if h5py.is_hdf5(file):
        with h5py.File(file, "r") as opened:
            group = opened.get(STRUCT, opened)
            return [_from_hdf5(_pick(group, field, file)) for field in fields]
    content = scipy.io.loadmat(file, squeeze_me=True, struct_as_record=False)
    values = {key: value for key, value in content.items() if not key.startswith("__")}
    if STRUCT in values:
        values = {key: getattr(values[STRUCT], key) for key in values[STRUCT]._fieldnames}
    return [_pick(values, field, file) for field in fields]


def _pick(values: Any, field: str, file: Path) -> Any:
    if field not in values:
        there = ", ".join(sorted(key for key in values if not key.startswith("#"))) or "none"
        raise UserError(f"{file}: has no field {field!r}; it has: {there}")
    return values[field]


def _from_hdf5(item: Any) -> Any:
    """An HDF5 dataset as MATLAB shows it: axes in reverse order (MATLAB is column-major), text from character codes."""
    if not isinstance(item, h5py.Dataset):
        raise ValueError("a struct stands where an array is needed")
    value = item[()]
    if item.attrs.get("MATLAB_class") == b"char":
        return "".join(map(chr, value.ravel(order="F")))
    return np.squeeze(value.T) if min(value.shape, default=1) == 1 else value.T
