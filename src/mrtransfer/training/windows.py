"""Where the windows of a sliding-window inference lie, and how much each of their voxels counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

Box = tuple[tuple[int, ...], tuple[int, ...]]

MARGIN = 8
"""Voxels around everything that is not background which are still covered by windows."""
_LEAST = 1e-3  # as MONAI: far from its centre a window still counts, so that weights can be divided by


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of the windows along one axis of ``size`` voxels, in ascending order.

    Neighbours share ``overlap`` (0 ≤ overlap < 1) of a window; the last one is flush with the border. This is the grid
    of MONAI and nnU-Net. A window larger than the axis is centred on it, so its start is negative.
    """
    if size <= patch:
        return [-((patch - size) // 2)]
    step = max(int(patch * (1 - overlap)), 1)
    return [min(step * index, size - patch) for index in range(-(-(size - patch) // step) + 1)]


def grid(box: Box, shape: Sequence[int], patch: Sequence[int], overlap: float) -> list[list[int]]:
    """Starts per axis of the windows that cover ``box`` of a volume of ``shape``.

    Where the box is smaller than a window, the window reaches into the volume around it, and beyond the volume only
    where that is smaller too.
    """
    starts = []
    for low, high, size, length in zip(*box, shape, patch, strict=True):
        if high - low >= length or size <= length:
            low, high = (low, high) if size > length else (0, size)
        else:
            low = min(max((low + high - length) // 2, 0), size - length)
            high = low + length
        starts.append([low + start for start in window_starts(high - low, length, overlap)])
    return starts


def importance(patch: Sequence[int]) -> np.ndarray:
    """The Gaussian importance map float32 of ``patch`` voxels: σ = patch / 8, 1 at the centre, at least 0.001.

    Predictions are best far from a window's border (Isensee et al. 2021, nnU-Net); the same map as MONAI's.
    """
    weights = np.ones((), np.float64)
    for length in patch:
        distance = np.arange(length) - (length - 1) / 2
        weights = weights[..., None] * np.exp(-(distance**2) / (2 * (length / 8) ** 2))
    return np.maximum(weights, max(float(weights.min()), _LEAST)).astype(np.float32)


def content_box(image: np.ndarray, background: np.ndarray, margin: int = MARGIN) -> Box:
    """The box (first voxels, voxels behind the last) around all of ``image`` (C, X, Y, Z) but ``background`` (C,).

    ``margin`` voxels of background are kept on every side. A volume of nothing else is all content. Reads one plane
    after the other, so a memory map stays on disk.
    """
    shape = image.shape[1:]
    background = background[:, None, None]
    seen = [np.zeros(size, dtype=bool) for size in shape]
    for x in range(shape[0]):
        differs = (np.asarray(image[:, x]) != background).any(axis=0)
        seen[0][x] = differs.any()
        seen[1] |= differs.any(axis=1)
        seen[2] |= differs.any(axis=0)
    if not seen[0].any():
        return (0, 0, 0), tuple(shape)
    found = [np.flatnonzero(axis)[[0, -1]] for axis in seen]
    low = tuple(max(int(first) - margin, 0) for first, _ in found)
    high = tuple(min(int(last) + 1 + margin, size) for (_, last), size in zip(found, shape, strict=True))
    return low, high


@dataclass(frozen=True)
class Tiles:
    """Windows of ``patch`` voxels at all combinations of ``starts``; ``low`` to ``high`` is what they cover.

    ``axis`` is the one along which a slab of one window's thickness is the least share of the volume.
    """

    starts: list[list[int]]
    patch: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    reuse: bool

    @classmethod
    def create(cls, starts: list[list[int]], patch: tuple[int, ...], shape: Sequence[int], reuse: bool) -> "Tiles":
        low = tuple(max(axis[0], 0) for axis in starts)
        high = tuple(min(axis[-1] + length, size) for axis, length, size in zip(starts, patch, shape, strict=True))
        return cls(starts, patch, low, high, reuse)

    @property
    def count(self) -> int:
        return prod(map(len, self.starts))

    @property
    def axis(self) -> int:
        return min(range(3), key=lambda axis: self.patch[axis] / (self.high[axis] - self.low[axis]))

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """All windows, slab after slab."""
        order = [self.axis, *(axis for axis in range(3) if axis != self.axis)]
        for places in product(*(self.starts[axis] for axis in order)):
            yield tuple(place for _, place in sorted(zip(order, places, strict=True)))

    def covers(self, shape: Sequence[int]) -> bool:
        return not any(self.low) and self.high == tuple(shape)


def place_windows(
    image: np.ndarray, patch: tuple[int, ...], overlap: float, background: np.ndarray | None = None
) -> Tiles:
    """The windows over all of ``image``, or over what is not ``background`` (C,) where those are fewer.

    With a background, answers to constant windows are to be reused; without, all windows are alike.
    """
    shape = image.shape[1:]
    every = Tiles.create(grid(((0, 0, 0), shape), shape, patch, overlap), patch, shape, background is not None)
    if background is None or every.count == 1:
        return every
    few = Tiles.create(grid(content_box(image, background), shape, patch, overlap), patch, shape, reuse=True)
    return few if few.count < every.count else every


def cut(image: np.ndarray, start: Sequence[int], patch: Sequence[int], fill: np.ndarray) -> np.ndarray:
    """The window (C, *patch) float32 at ``start``; beyond the volume: each channel's ``fill`` (C,)."""
    inside, own = overlap_slices(start, patch, image.shape[1:])
    part = np.asarray(image[(slice(None), *inside)], dtype=np.float32)
    if part.shape[1:] == tuple(patch):
        return part
    window = np.empty((len(image), *patch), np.float32)
    window[:] = fill[:, None, None, None]
    window[(slice(None), *own)] = part
    return window


def overlap_slices(
    start: Sequence[int], patch: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What the window at ``start`` has of a volume of ``shape``: as slices of the volume, and of the window."""
    inside, own = [], []
    for first, length, size in zip(start, patch, shape, strict=True):
        low, high = max(first, 0), min(first + length, size)
        inside.append(slice(low, high))
        own.append(slice(low - first, high - first))
    return tuple(inside), tuple(own)
