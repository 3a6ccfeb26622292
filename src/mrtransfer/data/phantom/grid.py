"""Where pixels lie in space, and smooth random fields over that space.

Coordinates are in mm in the scanner's frame: x from the image's left to its right, y from back to front, z from foot to
head; the origin is near the centre of the brain. Arrays are (z, y, x), and rows run from front to back as radiologists
look at axial slices.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FIELD_OF_VIEW = 236.0
Floats = NDArray[np.float32]

# Variance of a cubic B-spline series with independent unit coefficients is 151/315 per dimension (mean over a cell).
_SPLINE_SD = (151 / 315) ** 1.5


@dataclass(frozen=True)
class Grid:
    """Sample points on three axes: positions in mm, ascending. A slice is a grid with one z."""

    z: tuple[float, ...]
    rows: tuple[float, ...]  # from front to back: -y
    columns: tuple[float, ...]  # x

    @classmethod
    def square(cls, z: Sequence[float], size: int) -> "Grid":
        """Axial slices at the heights ``z`` mm, each of ``size`` × ``size`` pixels over the field of view."""
        side = _centres(size, FIELD_OF_VIEW / size)
        return cls(tuple(float(height) for height in z), side, side)

    @classmethod
    def axial(cls, z: float, size: int) -> "Grid":
        """One such slice."""
        return cls.square((z,), size)

    @classmethod
    def box(
        cls,
        size: tuple[int, int, int],
        spacing: tuple[float, float, float],
        centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> "Grid":
        """``size`` points along x, y and z, ``spacing`` mm apart, around ``centre`` (x, y, z in mm)."""
        x, y, z = (_centres(n, step) for n, step in zip(size, spacing, strict=True))
        return cls(tuple(centre[2] + v for v in z), tuple(v - centre[1] for v in y), tuple(centre[0] + v for v in x))

    def slabs(self, thickness: int) -> Iterator["Grid"]:
        """The grid in parts of ``thickness`` slices, from the lowest upwards."""
        for first in range(0, len(self.z), thickness):
            yield replace(self, z=self.z[first : first + thickness])

    @property
    def pixel(self) -> float:
        """Distance between columns in mm."""
        return self.columns[1] - self.columns[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return (len(self.z), len(self.rows), len(self.columns))

    def axes(self) -> tuple[Floats, Floats, Floats]:
        """x (1, 1, n), y (1, n, 1), z (slices, 1, 1) in mm; they broadcast to :attr:`shape`."""
        x, rows, z = (np.asarray(axis, dtype=np.float32) for axis in (self.columns, self.rows, self.z))
        return x[None, None, :], -rows[None, :, None], z[:, None, None]


@dataclass(frozen=True, eq=False)
class RandomField:
    """A smooth Gaussian random field of about unit variance: a cubic B-spline series on knots ``knot`` mm apart.

    The field fills a cube around ``centre`` (x, y, z in mm), fades to zero outside, and is separable to evaluate, so a
    slice of a volume costs a slice, and any grid sees the same field.
    """

    coefficients: Floats
    knot: float
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        knot: float,
        extent: float = 128.0,
        centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> "RandomField":
        """A new field over the cube of ±``extent`` mm, by default the whole head."""
        n = int(np.ceil(2 * extent / knot)) + 3
        coefficients = generator.standard_normal((n, n, n), dtype=np.float32)
        return cls(coefficients / np.float32(_SPLINE_SD), knot, centre)

    def on(self, grid: Grid) -> Floats:
        """The field's values, ``grid.shape``."""
        return self._series(grid, 0, 0, 0)

    def with_gradient(self, grid: Grid) -> tuple[Floats, Floats, Floats, Floats]:
        """The field and its derivatives along x, y and z (per mm), each ``grid.shape``."""
        return (
            self._series(grid, 0, 0, 0),
            self._series(grid, 1, 0, 0),
            -self._series(grid, 0, 1, 0),  # rows run against y
            self._series(grid, 0, 0, 1),
        )

    def slope(self, grid: Grid) -> Floats:
        """The derivative along z, scaled to about unit variance: nearly independent of the field itself."""
        return self._series(grid, 0, 0, 1) * np.float32(self.knot / np.sqrt(2 / 3 / (151 / 315)))

    def _series(self, grid: Grid, dx: int, dy: int, dz: int) -> Floats:
        n = len(self.coefficients)
        x, y, z = self.centre
        along_z = _basis(np.asarray(grid.z) - z, n, self.knot, dz)
        along_y = _basis_plane(grid.rows, -y, n, self.knot, dy)
        along_x = _basis_plane(grid.columns, x, n, self.knot, dx)
        planes = np.tensordot(along_z, self.coefficients, axes=(1, 0))
        return np.matmul(np.matmul(along_y, planes), along_x.T, dtype=np.float32)


@lru_cache(maxsize=64)
def _centres(size: int, step: float) -> tuple[float, ...]:
    """``size`` positions around 0, ``step`` mm apart."""
    places = (np.arange(size) + 0.5) * step - size * step / 2
    return tuple(places.astype(np.float32).tolist())


@lru_cache(maxsize=256)
def _basis_plane(positions: tuple[float, ...], middle: float, n: int, knot: float, derivative: int) -> Floats:
    return _basis(np.asarray(positions, dtype=np.float32) - middle, n, knot, derivative)


def _basis(positions: NDArray, n: int, knot: float, derivative: int) -> Floats:
    """(len(positions), n) values, or first derivatives per mm, of the n cubic B-splines centred on the knots."""
    place = np.asarray(positions, dtype=np.float64) / knot + (n - 1) / 2
    t = place[:, None] - np.arange(n)
    a = np.abs(t)
    if derivative:
        inner, outer = t * (1.5 * a - 2), -0.5 * np.sign(t) * (2 - a) ** 2
        scale = 1 / knot
    else:
        inner, outer = 2 / 3 - a**2 + a**3 / 2, (2 - a) ** 3 / 6
        scale = 1.0
    return (scale * np.where(a < 1, inner, np.where(a < 2, outer, 0.0))).astype(np.float32)
