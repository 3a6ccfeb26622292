"""Batches: slices of the pixel store, in an order that is a pure function of (seed, epoch)."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mrtransfer.training.part import ALONE, Part
from mrtransfer.training.problems import derived_seed


def epoch_order(rows: np.ndarray, seed: int, epoch: int, count: int | None = None) -> np.ndarray:
    """``rows`` shuffled for one epoch; with ``count``, so many: part of one pass, or several passes one after another.

    A part is the next one in a pass that goes on over several epochs, so that every row is seen equally often.
    """
    if count is None:
        return _pass(rows, seed, epoch)
    first, start = divmod(epoch * count, len(rows))
    last = first + -(-(start + count) // len(rows))
    return np.concatenate([_pass(rows, seed, number) for number in range(first, last)])[start : start + count]


def _pass(rows: np.ndarray, seed: int, number: int) -> np.ndarray:
    return np.random.default_rng(derived_seed(seed, "order", number)).permutation(rows)


def batch_bounds(count: int, batch: int) -> list[tuple[int, int]]:
    """Start and end of every batch. A last batch of one sample joins the one before: batch norm needs two."""
    starts = list(range(0, count, batch))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return list(pairwise([*starts, count]))


class Numbered(Protocol):
    """Batches that are read by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> dict[str, Any]: ...


class Prefetched:
    """All batches in order, each read in the background while the one before it is worked on.

    ``note`` is told how many seconds each took to read.
    """

    def __init__(self, batches: Numbered, note: Callable[[float], None] = lambda _: None) -> None:
        self.batches, self.note = batches, note

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if len(self) == 0:
            return
        with ThreadPoolExecutor(1, thread_name_prefix="next batch") as reader:
            coming = reader.submit(self._read, 0)
            for number in range(len(self)):
                batch = coming.result()
                if number + 1 < len(self):
                    coming = reader.submit(self._read, number + 1)
                yield batch

    def _read(self, number: int) -> dict[str, Any]:
        started = time.perf_counter()
        batch = self.batches[number]
        self.note(time.perf_counter() - started)
        return batch


class Batches:
    """Batches of uint8 images (B, C, H, W) and their labels (B,), or one process's part of each.

    ``number``: of the batch in its epoch. ``first``: place of the part in the batch. ``size``: of the whole batch.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, rows: np.ndarray, batch: int, part: Part = ALONE
    ) -> None:
        self.images, self.labels, self.rows, self.part = images, labels, rows, part
        self.bounds = batch_bounds(len(rows), batch)

    def __len__(self) -> int:
        return len(self.bounds)

    def __getitem__(self, number: int) -> dict[str, Any]:
        if number >= len(self.bounds):
            raise IndexError(number)
        start, end = self.bounds[number]
        share = self.part.share(end - start)
        rows = self.rows[start:end][share]
        return {
            "images": gather(self.images, rows),
            "labels": torch.from_numpy(np.asarray(self.labels)[rows].astype(np.int64)),
            "number": number,
            "first": share.start,
            "size": end - start,
        }


def gather(images: np.ndarray, rows: np.ndarray) -> Tensor:
    """Rows of the store as a tensor of their own, read in the order in which they lie on disk."""
    order = np.argsort(rows, kind="stable")
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return torch.from_numpy(np.ascontiguousarray(images[np.asarray(rows)[order]][back]))


def image_batches(images: np.ndarray, rows: np.ndarray, batch: int) -> Iterator[Tensor]:
    """The images of ``rows`` as they are, in order."""
    for start, end in batch_bounds(len(rows), batch):
        yield gather(images, rows[start:end])


def input_settings(value: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an arm's input settings that :func:`mrtransfer.augment.prepare.to_input` takes."""
    return {"channels": int(value["channels"]), "normalise": value["normalise"]}
