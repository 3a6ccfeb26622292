"""What a reconstruction learns from: slices of fully sampled volumes, each visit with a mask of its own."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mrtransfer.augment.kspace import MRAugment
from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace import KspaceStore, needs_targets
from mrtransfer.models.reconstruction import ReconstructionNetwork
from mrtransfer.physics.masks import Sampling
from mrtransfer.training.module import Task
from mrtransfer.training.part import ALONE, Part
from mrtransfer.training.problems import derived_seed
from mrtransfer.training.reconstruct import check_volume


@dataclass(frozen=True)
class ReconstructionTask(Task):
    """What a reconstruction learns from: volumes of k-space, and how they are undersampled. ``loss``: its weights."""

    volumes: KspaceStore
    sampling: Sampling
    loss: Mapping[str, float]
    augment: MRAugment | None

    def describe(self) -> dict[str, Any]:
        """K-space, targets, names (by which validation masks are drawn), sampling, loss, augmentation."""
        return {
            "kspace": self.volumes.content,
            "names": [self.volumes.volume(int(row)).name for row in self.validation],
            "sampling": self.sampling.model_dump(),
            "loss": dict(self.loss),
            "augment": self.augment.model_dump() if self.augment is not None else None,
        }


class SliceBatches:
    """All slices of some volumes, in batches of one matrix, crop and number of coils.

    The batches of one pass, and their order, are a pure function of (seed, number of the pass).
    """

    def __init__(self, volumes: KspaceStore, rows: np.ndarray, batch: int, seed: int) -> None:
        alike: dict[Any, list[tuple[int, int]]] = {}
        for row in rows.tolist():
            volume = volumes.volume(row)
            alike.setdefault((volume.coils, volume.matrix, volume.crop), []).extend(
                (row, index) for index in range(volume.slices)
            )
        self.alike = [np.array(slices) for slices in alike.values()]
        self.batch, self.seed = batch, seed

    def __len__(self) -> int:
        return sum(-(-len(slices) // self.batch) for slices in self.alike)

    def of(self, visit: int) -> list[np.ndarray]:
        """The batches of pass ``visit``, each (n, 2): the row of a volume, and a slice of it."""
        draw = np.random.default_rng(derived_seed(self.seed, "order", visit))
        batches: list[np.ndarray] = []
        for slices in map(draw.permutation, self.alike):
            batches += [slices[start : start + self.batch] for start in range(0, len(slices), self.batch)]
        return [batches[place] for place in draw.permutation(len(batches))]


class EpochSlices:
    """The batches of one epoch, or one process's part of each; where an epoch is not one pass, passes follow on.

    ``images``: k-space (n, C, H, W). ``columns`` (n, W): those to be sampled, drawn anew at every visit, before those
    that were never acquired are left out; ``padding`` says which. ``targets`` only where nothing is augmented.
    """

    def __init__(
        self, task: ReconstructionTask, slices: SliceBatches, steps: int, epoch: int, part: Part = ALONE
    ) -> None:
        self.task, self.part = task, part
        first, start = divmod(epoch * steps, len(slices))
        last = first + -(-(start + steps) // len(slices))
        every = [(visit, batch) for visit in range(first, last) for batch in slices.of(visit)]
        self.batches = every[start : start + steps]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> dict[str, Any]:
        visit, items = self.batches[number]
        share = self.part.share(len(items))
        batch = {"images": torch.zeros(0), "number": number, "first": share.start, "size": len(items)}
        return batch | self._read(visit, items[share].tolist()) if share.stop > share.start else batch

    def _read(self, visit: int, items: list[list[int]]) -> dict[str, Any]:
        plain = self.task.augment is None
        volumes = [self.task.volumes.volume(row) for row, _ in items]
        slices = [volume.read(index, target=plain) for volume, (_, index) in zip(volumes, items, strict=True)]
        seeds = [derived_seed(self.task.seed, "mask", visit, *item) for item in items]
        drawn = [self.task.sampling.draw(volumes[0].matrix[1], seed) for seed in seeds]
        batch = {
            "images": torch.from_numpy(np.stack([slice_.kspace for slice_ in slices])),
            "max_values": torch.tensor([volume.max_value for volume in volumes]),
            "columns": np.stack([one.columns for one in drawn]),
            "centre": torch.tensor([one.centre for one in drawn]),
            "padding": [volume.padding for volume in volumes],
            "crop": volumes[0].crop,
            "seeds": [derived_seed(self.task.seed, "augment", visit, *item) for item in items],
        }
        if plain:
            targets = [slice_.target for slice_ in slices if slice_.target is not None]
            batch["targets"] = torch.from_numpy(np.stack(targets))
        return batch


def check_volumes(network: ReconstructionNetwork, task: ReconstructionTask) -> None:
    """Raise :class:`UserError` that names the first volume that cannot be trained on, or validated with."""
    volumes = {int(row): task.volumes.volume(int(row)) for row in (*task.train, *task.validation)}
    if len(task.train) == 0:
        raise UserError("training: there is no volume to learn from; give at least one")
    for row in task.train.tolist():
        if not volumes[row].fully_sampled:
            raise UserError(
                f"{volumes[row].location}: is undersampled (a test file?), and training draws masks over full k-space; "
                "give fully sampled files"
            )
    needs_targets((volumes[row] for row in task.validation.tolist()), "validation")
    for volume in volumes.values():
        check_volume(network, volume)
        if not 0 < float(volume.max_value or 0) < math.inf:
            raise UserError(
                f"{volume.location}: the largest value of its images is {volume.max_value}; it must be a positive "
                "number, so leave this file out"
            )
    for width in sorted({volume.matrix[1] for volume in volumes.values() if volume.fully_sampled}):
        for choice in range(len(task.sampling.acceleration)):
            task.sampling.draw(width, 0, choice=choice)  # refuses what this width does not allow
