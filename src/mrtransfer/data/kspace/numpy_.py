"""NumPy files: .npy, and .npz with the array ``kspace``."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace.arrays import array_volume
from mrtransfer.data.kspace.files import reading
from mrtransfer.data.kspace.volume import KspaceVolume

_KEY = "kspace"
_AXES = {2: "hw", 4: "schw"}
_MEANING = "s for slices, c for coils, h for rows, w for columns"


@dataclass(frozen=True)
class _Slices:
    """Reads one slice (C, H, W)."""

    file: Path
    axes: str

    def __call__(self, index: int) -> np.ndarray:
        array = _array(self.file)
        order = [self.axes.index(axis) for axis in "schw" if axis in self.axes]
        ordered = array.transpose(order)
        one = ordered[index] if "s" in self.axes else ordered
        return np.array(one if "c" in self.axes else one[None])


def open_numpy(file: Path, *, axes: str | None = None, image: bool = False) -> KspaceVolume:
    """The volume in ``file``; ``axes`` names its axes (s slices, c coils, h rows, w columns), as in ``chw``.

    By default four axes are ``schw`` and two are ``hw``; three could be ``chw`` or ``shw``, so they must be said. With
    ``image`` the file holds a complex image, not k-space. Raises :class:`UserError` that names the file where it is
    damaged, not complex, or its axes are not known.
    """
    array = _array(file)
    if not np.iscomplexobj(array) or array.size == 0:
        raise UserError(f"{file}: holds {array.dtype} of shape {array.shape}; complex values are needed")
    axes = _checked(file, axes, array.ndim)
    sizes = {axis: int(size) for axis, size in zip(axes, array.shape, strict=True)}
    shape = tuple(sizes.get(axis, 1) for axis in "schw")
    return array_volume(file, _Slices(file, axes), shape, image=image)


def _checked(file: Path, axes: str | None, ndim: int) -> str:
    if axes is None and ndim not in _AXES:
        raise UserError(f"{file}: has {ndim} axes; say which they are, for example axes: chw ({_MEANING})")
    axes = _AXES[ndim] if axes is None else axes
    if len(axes) != ndim or len(set(axes)) < len(axes) or not {"h", "w"} <= set(axes) <= set("schw"):
        raise UserError(
            f"{file}: has {ndim} axes, and axes is {axes!r}; name each once, h and w among them: {_MEANING}"
        )
    return axes


def _array(file: Path) -> np.ndarray:
    """The array, memory-mapped where the format allows it."""
    with reading(file, "a NumPy file"):
        if file.suffix == ".npz":
            state = file.stat()
            return _unpacked(file, state.st_mtime_ns, state.st_size)
        return np.load(file, mmap_mode="r", allow_pickle=False)


@lru_cache(maxsize=1)  # an archive cannot be mapped: the one that was read last stays in memory
def _unpacked(file: Path, changed: int, size: int) -> np.ndarray:
    with np.load(file, allow_pickle=False) as arrays:
        names = list(arrays)
        if _KEY not in names and len(names) != 1:
            raise UserError(f"{file}: holds no array 'kspace' (it holds {', '.join(names) or 'nothing'}); name it so")
        array: np.ndarray = arrays[_KEY if _KEY in names else names[0]]
        return array
