"""Training patches, cut from the store of cases."""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch

from mrtransfer.common.errors import UserError

HELD = 2**25
"""Bytes of the store, about, that may be held in memory between batches."""
_ORDER, _PLACE = 0, 1  # what a stream of random numbers is for


class Cases(Protocol):
    """What a sampler asks of a store; :class:`~.store.CaseStore` is one."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""

    @property
    def classes_in(self) -> Sequence[Sequence[int]]:
        """The classes, other than background, that occur in each case."""

    def image(self, row: int) -> np.ndarray:
        """float16 (C, x, y, z)."""

    def mask(self, row: int) -> np.ndarray | None:
        """uint8 (x, y, z), class indices."""

    def foreground(self, row: int, cls: int) -> np.ndarray:
        """int32 (k, 3): where a class is."""

    def padding(self, row: int) -> np.ndarray:
        """float16 (C,): what surrounds the case."""

    def release(self) -> None:
        """Let go of what was read."""


class PatchSampler:
    """Batches of patches of the cases at ``rows``: a pure function of (``seed``, epoch, step).

    Cases are visited in one random order after another, through batches and epochs without a gap, so that at no time a
    case was visited more than once more often than another. A share ``foreground`` of the patches, drawn patch by
    patch, is centred on a voxel of a class: first one of the classes in the case, all equally likely, then one of its
    voxels (Isensee et al. 2021, nnU-Net, choose so too); where that would leave the volume, the patch is moved inside.
    The others, and those of cases without any class, lie anywhere inside, all places equally likely. Along an axis
    where the volume is smaller than ``patch``, all of it is seen, at a random place of the patch, with the store's
    padding around it and 0 in the mask.

    ``steps``: batches in an epoch; by default as many as one visit to every case takes.
    """

    def __init__(
        self,
        store: Cases,
        rows: Sequence[int] | np.ndarray,
        *,
        patch: Sequence[int],
        batch: int,
        foreground: float = 1 / 3,
        seed: int = 0,
        steps: int | None = None,
    ) -> None:
        self.store, self.rows = store, np.asarray(rows, dtype=np.int64)
        self.patch, self.size = tuple(int(length) for length in patch), batch
        self.foreground, self.seed = foreground, seed
        if not len(self.rows) or batch < 1 or len(self.patch) != 3:
            raise ValueError(f"{len(self.rows)} cases, batches of {batch} patches of {self.patch} voxels")
        unlabelled = [int(row) for row in self.rows if store.mask(int(row)) is None]
        if unlabelled:
            raise UserError(
                f"{len(unlabelled)} of {len(self.rows)} training cases have no mask (the first is case {unlabelled[0]} "
                "of its table); leave them out, or add their masks"
            )
        self.steps = steps or -(-len(self.rows) // batch)
        self._slice = range(batch)
        self._order: tuple[int, np.ndarray] | None = None
        self._held = 0

    def part(self, rank: int, world: int) -> Self:
        """The sampler of one of ``world`` processes: its slice of every batch; all slices together are the batch."""
        if self.size % world:
            near = max(round(self.size / world), 1) * world
            raise UserError(
                f"batch: is {self.size} patches, to be shared by {world} processes; "
                f"it must be a multiple of {world}, such as {near}"
            )
        share = self.size // world
        part = type(self)(
            self.store, self.rows, patch=self.patch, batch=self.size, foreground=self.foreground, seed=self.seed,
            steps=self.steps,
        )  # fmt: skip
        part._slice = range(rank * share, (rank + 1) * share)
        return part

    def batch(self, epoch: int, step: int) -> dict[str, Any]:
        """``images`` float16 (B, C, X, Y, Z), ``masks`` uint8 (B, X, Y, Z), and ``number``: ``step``."""
        images = np.empty((len(self._slice), len(self.store.channels), *self.patch), np.float16)
        masks = np.zeros((len(self._slice), *self.patch), np.uint8)
        for image, mask, index in zip(images, masks, self._slice, strict=True):
            row = self.row(epoch, step, index)
            self._cut(row, self._corner(row, [self.seed, _PLACE, epoch, step, index]), image, mask)
        if self._held > HELD:
            self.store.release()
            self._held = 0
        return {"images": torch.from_numpy(images), "masks": torch.from_numpy(masks), "number": step}

    def row(self, epoch: int, step: int, index: int) -> int:
        """The case of patch ``index`` of a batch."""
        turn, place = divmod((epoch * self.steps + step) * self.size + index, len(self.rows))
        known = self._order
        if known is None or known[0] != turn:
            known = turn, np.random.default_rng([self.seed, _ORDER, turn]).permutation(self.rows)
            self._order = known
        return int(known[1][place])

    def _corner(self, row: int, seed: list[int]) -> np.ndarray:
        """(3,) first voxel of the patch; below 0 where the volume is smaller than the patch."""
        random = np.random.default_rng(seed)
        free = np.array(self.store.image(row).shape[1:]) - self.patch
        low, high = np.minimum(free, 0), np.maximum(free, 0)
        corner = random.integers(low, high + 1)
        classes = self.store.classes_in[row]
        if random.random() < self.foreground and classes:
            voxels = self.store.foreground(row, classes[int(random.integers(len(classes)))])
            centred = voxels[random.integers(len(voxels))] - np.array(self.patch) // 2
            corner = np.where(free > 0, np.clip(centred, low, high), corner)
        return corner

    def _cut(self, row: int, corner: np.ndarray, image: np.ndarray, mask: np.ndarray) -> None:
        """Write the patch at ``corner`` into ``image`` (C, X, Y, Z) and ``mask`` (X, Y, Z)."""
        volume, classes = self.store.image(row), self.store.mask(row)
        assert classes is not None  # checked at the start
        inside: list[slice] = []
        own: list[slice] = []
        for first, length, size in zip(corner.tolist(), self.patch, classes.shape, strict=True):
            start, end = max(first, 0), min(first + length, size)
            inside.append(slice(start, end))
            own.append(slice(start - first, end - first))
        if mask[tuple(own)].size < mask.size:
            image[...] = self.store.padding(row)[:, None, None, None]
        image[(slice(None), *own)] = volume[(slice(None), *inside)]
        mask[tuple(own)] = classes[tuple(inside)]
        planes = image.shape[1] * classes[0].size  # whole ones: their rows are shorter than a page
        self._held += planes * (len(volume) * volume.itemsize + 1)
