"""Volumes from files that hold an array and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace.sampled import acquired, held_columns
from mrtransfer.data.kspace.target import simulated_kspace
from mrtransfer.data.kspace.volume import KspaceVolume

Reader = Callable[[int], np.ndarray]
"""Slice → complex (C, H, W)."""


@dataclass(frozen=True)
class _Measured:
    read: Reader

    def __call__(self, index: int, target: bool) -> tuple[np.ndarray, np.ndarray | None]:
        return self.read(index), None


@dataclass(frozen=True)
class _Simulated:
    read: Reader

    def __call__(self, index: int, target: bool) -> tuple[np.ndarray, np.ndarray | None]:
        return simulated_kspace(self.read(index)), None


def array_volume(file: Path, read: Reader, shape: tuple[int, ...], *, image: bool) -> KspaceVolume:
    """The volume of ``shape`` (S, C, H, W) whose slices ``read`` gives; with ``image`` they are images of one coil.

    Which columns were sampled is seen from the data: those of k-space that are not all zero.
    """
    slices, coils, height, width = shape
    if image and coils > 1:
        raise UserError(f"{file}: has {coils} coils, and image: true needs one combined complex image; combine them")
    columns, padding = (None, None) if image else acquired(held_columns(read, slices, str(file)))
    return KspaceVolume(
        location=str(file),
        name=file.name,
        slices=slices,
        coils=coils,
        matrix=(height, width),
        crop=(height, width),
        source=_Simulated(read) if image else _Measured(read),
        columns=columns,
        padding=padding,
        simulated=image,
    )
