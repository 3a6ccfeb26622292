"""Whole volumes through a reconstruction: slice after slice, each read while the one before it is worked on."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace import KspaceVolume
from mrtransfer.models.reconstruction import ReconstructionNetwork
from mrtransfer.physics.masks import SampledColumns, Sampling, apply_mask, restrict, seed_of
from mrtransfer.tasks.reconstruction.crop import center_crop
from mrtransfer.training.batches import Prefetched
from mrtransfer.training.precision import FLOAT32, Precision, choose_device, placed

ColumnsOf = Callable[[int], SampledColumns]
"""Which columns of a slice are to be kept."""


def reconstruct_volume(
    network: ReconstructionNetwork,
    volume: KspaceVolume,
    *,
    columns_of: ColumnsOf | None = None,
    precision: Precision = FLOAT32,
    device: str = "auto",
    batch: int = 1,
    advance: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Magnitudes (S, h, w) float32 of all slices of ``volume``, cropped as the volume says.

    ``columns_of(slice)``: the columns of a fully sampled volume that are kept, by default all that were acquired. A
    volume that was undersampled when it was measured keeps its own. ``batch``: slices that are computed together.
    ``advance`` is called with the number of slices after each of these. The network ends in evaluation mode, on the
    CPU.

    Raises :class:`UserError` that names the volume where the network cannot take it (one coil where it needs several,
    a matrix that is too small), and where a slice cannot be read or holds NaN.
    """
    device = choose_device(device)
    network.eval()
    images = np.empty((volume.slices, *volume.crop), dtype=np.float32)
    done = 0
    with torch.no_grad(), placed(precision, device, network):
        for found, _ in reconstructed(
            network, volume, columns_of=columns_of, precision=precision, device=device, batch=batch
        ):
            images[done : done + len(found)] = found.cpu().numpy()
            done += len(found)
            if advance:
                advance(len(found))
    return images


def reconstructed(
    network: ReconstructionNetwork,
    volume: KspaceVolume,
    *,
    columns_of: ColumnsOf | None,
    precision: Precision,
    device: str | torch.device,
    batch: int = 1,
    targets: bool = False,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Magnitudes (n, h, w) float32 of the next ``batch`` slices, and with ``targets`` what they should be.

    The network is on ``device``, in the layout of ``precision``; whether gradients are kept is up to the caller.
    """
    check_volume(network, volume)
    for part in Prefetched(_Slices(volume, columns_of, batch, targets)):
        kspace, columns, centre = (part[name].to(device) for name in ("kspace", "columns", "centre"))
        with precision.autocast(device):
            images = network(apply_mask(kspace, columns), columns, centre)
        wanted = part["targets"].to(device) if targets else None
        yield center_crop(images.float(), volume.crop), wanted


def columns_by_name(sampling: Sampling, volume: KspaceVolume, choice: int | None = None) -> SampledColumns:
    """The columns by which ``volume`` is scored: the same for all its slices, and fixed by its file's name.

    ``choice``: which of the accelerations; by default the name decides that too. As fastMRI does for validation.
    """
    return sampling.draw(volume.matrix[1], seed_of(volume.name), choice=choice)


def check_volume(network: ReconstructionNetwork, volume: KspaceVolume) -> None:
    """Raise :class:`UserError` that names ``volume`` where ``network`` cannot take it."""
    try:
        network.check(volume.coils, volume.matrix)
    except UserError as problem:
        raise UserError(f"{volume.location}: {problem}") from problem


class _Slices:
    """The slices of a volume in order, ``batch`` by batch, with the columns that count as sampled."""

    def __init__(self, volume: KspaceVolume, columns_of: ColumnsOf | None, batch: int, targets: bool) -> None:
        self.volume, self.columns_of, self.batch, self.targets = volume, columns_of, batch, targets

    def __len__(self) -> int:
        return -(-self.volume.slices // self.batch)

    def __getitem__(self, number: int) -> dict[str, Any]:
        first = number * self.batch
        indices = range(first, min(first + self.batch, self.volume.slices))
        read = [self.volume.read(index, target=self.targets) for index in indices]
        columns, centres = zip(*map(self._sampled, indices), strict=True)
        batch = {
            "kspace": torch.from_numpy(np.stack([slice_.kspace for slice_ in read])),
            "columns": torch.from_numpy(np.stack(columns)),
            "centre": torch.tensor(centres),
        }
        if self.targets:
            batch["targets"] = torch.from_numpy(
                np.stack([slice_.target for slice_ in read if slice_.target is not None])
            )
        return batch

    def _sampled(self, index: int) -> tuple[np.ndarray, int]:
        """Columns (W,) of a slice, and how many low frequencies they hold; 0: to be found."""
        volume = self.volume
        centre = 0
        if volume.columns is not None:
            columns = volume.columns
        elif self.columns_of is None:
            columns = np.ones(volume.matrix[1], dtype=bool)
        else:
            drawn = self.columns_of(index)
            columns, centre = drawn.columns, drawn.centre
        return restrict(columns, volume.padding), centre
