"""A subject's head: size, shape and pose, and where the points of a grid lie inside it."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from mrtransfer.data.phantom.grid import Floats, Grid, RandomField
from mrtransfer.data.phantom.randomness import Stream, generator

_BASE = 8.0  # height (mm) below which the inside of the skull narrows only slowly


@dataclass(frozen=True, eq=False)
class Head:
    """What is drawn once for a subject; lengths in mm, angles in radians."""

    seed: int
    subject: int
    axes: tuple[float, float, float]  # half axes of the inside of the skull
    taper: float  # how much narrower the front is
    rotation: float
    tilt: float
    shift: tuple[float, float]
    atrophy: float  # width of the space between skull and brain
    sulcus: float  # half width of sulci
    cortex: float  # thickness of the cortex
    sulcus_depth: float
    ventricles: float  # relative width
    skull: float
    fat: float

    @cached_property
    def folds(self) -> RandomField:
        """The field along whose zero set the cortex is folded."""
        return self._field(0, 5.2)

    @cached_property
    def lumps(self) -> RandomField:
        """Slow irregularity of the skull."""
        return self._field(1, 42.0)

    @cached_property
    def bend(self) -> RandomField:
        """Slow asymmetry of what lies inside."""
        return self._field(2, 30.0)

    def _field(self, number: int, knot: float) -> RandomField:
        return RandomField.draw(generator(self.seed, Stream.FOLDS, self.subject, number), knot)

    def coordinates(self, grid: Grid) -> tuple[Floats, Floats, Floats]:
        """Positions of the grid's points in the head's own frame, each broadcastable to ``grid.shape``."""
        x, y, z = grid.axes()
        x, y = x - self.shift[0], y - self.shift[1]
        cos, sin = np.float32(np.cos(self.rotation)), np.float32(np.sin(self.rotation))
        return cos * x + sin * y, cos * y - sin * x, z + np.float32(self.tilt) * y

    def scanner_height(self, x: float, y: float, z: float) -> float:
        """The slice position (mm) at which a point of the head's frame lies."""
        row = np.sin(self.rotation) * x + np.cos(self.rotation) * y
        return float(z - self.tilt * row)

    def surface_point(self, azimuth: float, elevation: float) -> NDArray[np.float64]:
        """The point (x, y, z) on the inside of the skull in a direction (radians) from the head's centre."""
        way = np.array([np.cos(elevation) * np.sin(azimuth), np.cos(elevation) * np.cos(azimuth), np.sin(elevation)])
        return way / np.sqrt(((way / self.axes) ** 2).sum()) + np.array([0, 0, _BASE])


@lru_cache(maxsize=32)
def head(seed: int, subject: int) -> Head:
    """The head of ``subject``, a pure function of the two numbers."""
    draw = generator(seed, Stream.HEAD, subject)
    size, age = np.clip(draw.normal(1.0, 0.045), 0.9, 1.09), draw.uniform(0, 1)
    return Head(
        seed,
        subject,
        axes=(67 * size * draw.normal(1, 0.02), 85 * size * draw.normal(1, 0.02), 66 * size),
        taper=draw.uniform(0.04, 0.16),
        rotation=np.deg2rad(draw.normal(0, 6.0)),
        tilt=np.deg2rad(draw.normal(0, 3.0)),
        shift=(draw.normal(0, 4.0), draw.normal(-1, 4.0)),
        atrophy=1.2 + 2.2 * age + draw.uniform(0, 0.6),
        sulcus=0.35 + 0.75 * age,
        cortex=draw.uniform(2.6, 3.3),
        sulcus_depth=draw.uniform(15, 21),
        ventricles=float(np.clip(0.75 + 0.6 * age + draw.normal(0, 0.15), 0.55, 1.8)),
        skull=draw.uniform(5.0, 8.0),
        fat=draw.uniform(2.5, 7.0),
    )


@dataclass(frozen=True, eq=False)
class Place:
    """A grid seen from inside a head: positions in its frame, and the depth (mm) below the inside of the skull."""

    x: Floats
    y: Floats
    z: Floats
    depth: Floats


def place(head: Head, grid: Grid) -> Place:
    """Positions and depths of the grid's points, each ``grid.shape`` (or broadcastable to it)."""
    x, y, z = head.coordinates(grid)
    height = np.where(z > _BASE, z - _BASE, 0.22 * (z - _BASE))
    narrowed = x * (1 + np.float32(head.taper) * y / head.axes[1])
    lumps = head.lumps.on(grid)
    depth = depth_in_ellipsoid(narrowed, y, height, head.axes) + 1.6 * lumps
    return Place(x + 1.5 * head.bend.on(grid), y + 1.5 * lumps, z + 0 * x, depth)


def ellipsoid(x: Floats, y: Floats, z: Floats, centre: tuple[float, float, float], half: tuple[float, ...]) -> Floats:
    """Squared relative radius: below 1 inside."""
    return (
        ((x - np.float32(centre[0])) * np.float32(1 / half[0])) ** 2
        + ((y - np.float32(centre[1])) * np.float32(1 / half[1])) ** 2
        + ((z - np.float32(centre[2])) * np.float32(1 / half[2])) ** 2
    )


def depth_in_ellipsoid(x: Floats, y: Floats, z: Floats, half: tuple[float, float, float]) -> Floats:
    """First-order distance (mm) from the surface of an ellipsoid at the origin, positive inside."""
    a, b, c = (np.float32(1 / h) for h in half)
    u, v, w = (x * a) ** 2, (y * b) ** 2, (z * c) ** 2
    r = np.sqrt(u + v + w)
    return (1 - r) * r / np.sqrt(u * a**2 + v * b**2 + w * c**2 + 1e-9)
