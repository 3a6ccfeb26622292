"""Files of BART: a header of dimensions (.hdr) beside complex floats in column-major order (.cfl)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace.arrays import array_volume
from mrtransfer.data.kspace.files import reading
from mrtransfer.data.kspace.volume import KspaceVolume

DIMENSIONS = (
    *("READ", "PHS1", "PHS2", "COIL", "MAPS", "TE", "COEFF", "COEFF2"),
    *("ITER", "CSHIFT", "TIME", "TIME2", "LEVEL", "SLICE", "AVG", "BATCH"),
)
_COIL, _SLICE = 3, 13


def both_files(file: Path) -> tuple[Path, Path]:
    """The header and the data of a file that is named with either suffix, or with none as BART does."""
    base = file.with_suffix("") if file.suffix in (".cfl", ".hdr") else file
    return base.with_name(base.name + ".hdr"), base.with_name(base.name + ".cfl")


@dataclass(frozen=True)
class _Slices:
    """Reads one slice (C, H, W)."""

    file: Path
    shape: tuple[int, ...]
    plane: tuple[int, int]

    def __call__(self, index: int) -> np.ndarray:
        with reading(self.file, "a BART file"):
            array = np.memmap(self.file, np.complex64, "r", shape=self.shape, order="F")
            wanted = (*self.plane, _COIL)
            chosen = tuple(slice(None) if axis in wanted else 0 for axis in range(_SLICE))
            return np.moveaxis(np.array(array[(*chosen, index)]), -1, 0)


def open_bart(file: Path, *, image: bool = False) -> KspaceVolume:
    """The volume in ``file``: two of READ, PHS1 and PHS2 are rows and columns, COIL and SLICE are what they say.

    With ``image`` the file holds a complex image, not k-space. Raises :class:`UserError` that names the file where it
    is absent or of another size than its header says, and where it has further dimensions.
    """
    header, data = both_files(file)
    sizes = _sizes(header)
    with reading(data, "a BART file"):
        there, needed = data.stat().st_size, 8 * int(np.prod(sizes, dtype=np.int64))
    if there != needed:
        raise UserError(f"{data}: has {there} bytes, and its header {header.name} says {needed}; copy both again")
    plane = [axis for axis in range(3) if sizes[axis] > 1]
    others = [f"{DIMENSIONS[axis]} of {size}" for axis, size in enumerate(sizes)
              if size > 1 and axis not in (0, 1, 2, _COIL, _SLICE)]  # fmt: skip
    if len(plane) != 2 or others:
        said = f"dimensions {' '.join(map(str, sizes[: max(4, _last(sizes))]))}"
        extra = f" ({', '.join(others)})" if others else ""
        raise UserError(
            f"{data}: has {said}{extra}; only two of READ, PHS1 and PHS2 may be above 1, and COIL and SLICE: transform "
            "a 3-D acquisition along one axis first (bart fft -u -i), and take one of several images (bart slice)"
        )
    source = _Slices(data, sizes[: _SLICE + 1], (plane[0], plane[1]))
    matrix = (sizes[plane[0]], sizes[plane[1]])
    return array_volume(data, source, (sizes[_SLICE], sizes[_COIL], *matrix), image=image)


def _last(sizes: tuple[int, ...]) -> int:
    return 1 + max((axis for axis, size in enumerate(sizes) if size > 1), default=0)


def _sizes(header: Path) -> tuple[int, ...]:
    """All dimensions, those that the header leaves out being 1."""
    with reading(header, "a BART header"):
        lines = header.read_text(encoding="utf-8").splitlines()
        sizes = tuple(map(int, lines[lines.index("# Dimensions") + 1].split()))
    if not sizes or min(sizes) < 1 or len(sizes) > len(DIMENSIONS):
        raise UserError(f"{header}: its dimensions are {sizes}; they must be 1 to {len(DIMENSIONS)} sizes above 0")
    return sizes + (1,) * (len(DIMENSIONS) - len(sizes))
