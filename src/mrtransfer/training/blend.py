"""Answers of overlapping windows become one volume: a weighted mean, summed up in a slab that moves through it."""

import os
import tempfile
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mrtransfer.common.files import writing
from mrtransfer.training.windows import Tiles, overlap_slices


class Blend:
    """Weighted sums over a slab that moves through the volume; what no further window touches goes to ``output``.

    ``finish`` makes of mean logits (1, K, x, y, z) what is to be put out.
    """

    def __init__(self, output: np.ndarray, tiles: Tiles, weights: Tensor, finish: Callable[[Tensor], Tensor]) -> None:
        self.output, self.tiles, self.window, self.finish = output, tiles, weights, finish
        self.axis, self.base, self.end = tiles.axis, tiles.low[tiles.axis], tiles.high[tiles.axis]
        self.size = [high - low for low, high in zip(tiles.low, tiles.high, strict=True)]
        self.size[self.axis] = min(self.size[self.axis], tiles.patch[self.axis])
        self.sums = torch.zeros((len(output), *self.size), device=weights.device)
        self.weights = torch.zeros(self.size, device=weights.device)

    def add(self, start: tuple[int, ...], answer: Tensor) -> None:
        """Add the answer (K, *patch) to the window at ``start``; windows come in the order of the tiles."""
        self.move(max(start[self.axis], self.base))
        origin = list(self.tiles.low)
        origin[self.axis] = self.base
        offset = [first - zero for first, zero in zip(start, origin, strict=True)]
        inside, own = overlap_slices(offset, self.tiles.patch, self.size)
        self.sums[(slice(None), *inside)] += answer[(slice(None), *own)] * self.window[own]
        self.weights[inside] += self.window[own]

    def move(self, base: int) -> None:
        """Let the slab begin at ``base``: the planes before it are done."""
        done = base - self.base
        if done == 0:
            return
        kept = self.size[self.axis] - done
        means = self.sums.narrow(self.axis + 1, 0, done) / self.weights.narrow(self.axis, 0, done)
        place = [slice(low, high) for low, high in zip(self.tiles.low, self.tiles.high, strict=True)]
        place[self.axis] = slice(self.base, base)
        self.output[(slice(None), *place)] = self.finish(means[None])[0].cpu().numpy()
        for values, axis in ((self.sums, self.axis + 1), (self.weights, self.axis)):
            values.narrow(axis, 0, kept).copy_(values.narrow(axis, done, kept).clone())
            values.narrow(axis, kept, done).zero_()
        self.base = base


def fill_outside(output: np.ndarray, tiles: Tiles, values: np.ndarray) -> None:
    """Give everything that no window covers the same ``values`` (K,)."""
    rest = [slice(None)] * 3
    for axis in range(3):
        for place in (slice(0, tiles.low[axis]), slice(tiles.high[axis], None)):
            output[(slice(None), *rest[:axis], place, *rest[axis + 1 :])] = values[:, None, None, None]
        rest[axis] = slice(tiles.low[axis], tiles.high[axis])


def allocate(shape: tuple[int, ...], memory: int) -> np.ndarray:
    """A float32 array of ``shape``: in memory, or mapped from an unnamed temporary file where it is larger."""
    size = 4 * prod(shape)
    if size <= memory:
        return np.empty(shape, np.float32)
    folder = Path(tempfile.gettempdir())
    with writing(folder / "probabilities"), tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is met here, not in the middle of the work
        return np.memmap(file, np.float32, "w+", shape=shape)
