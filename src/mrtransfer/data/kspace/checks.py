"""What makes k-space unusable, each told as one sentence that names the file."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from mrtransfer.common.errors import UserError

if TYPE_CHECKING:
    from mrtransfer.data.kspace.volume import KspaceVolume


def check_slice(kspace: np.ndarray, target: np.ndarray | None, where: str, shape: tuple[int, int, int]) -> None:
    """Raise :class:`UserError` for k-space that is not of ``shape`` (C, H, W), or values that are not finite.

    ``where`` is what the error calls the slice: its file and number.
    """
    if kspace.shape != shape:
        raise UserError(f"{where} has shape {_times(kspace.shape)}, and the file's header says {_times(shape)}")
    for what, values in (("k-space", kspace.view(np.float32)), ("its target", target)):
        with np.errstate(over="ignore", invalid="ignore"):
            if values is None or np.isfinite(values.sum(dtype=np.float32)):  # one cheap pass over the slice
                continue
        wrong = int(np.count_nonzero(~np.isfinite(values)))  # a sum of large values may be infinite
        if wrong:
            raise UserError(f"{where}: {what} holds {wrong} NaN or infinite values; export it again, or leave it out")


def sampled_columns(mask: np.ndarray, width: int, where: str) -> np.ndarray:
    """bool (W,): a stored ``mask`` of any shape with W values. Raises :class:`UserError` for one of another width."""
    columns = np.asarray(mask).ravel()
    if columns.size != width:
        raise UserError(f"{where}: its mask has {columns.size} columns and its k-space {width}; both must agree")
    if not np.isin(columns, (0, 1)).all() or not columns.any():
        raise UserError(f"{where}: its mask must hold a 1 for each sampled column and 0 for the others, and some 1")
    return columns.astype(bool)


def needs_targets(volumes: Iterable["KspaceVolume"], use: str = "training") -> None:
    """Raise :class:`UserError` that names the first of ``volumes`` without targets, which ``use`` needs."""
    for volume in volumes:
        if not volume.has_targets:
            raise UserError(
                f"{volume.location}: is undersampled and holds no reconstructed images (a test file?); {use} needs "
                "targets, so give fully sampled files"
            )


def needs_coils(volumes: Iterable["KspaceVolume"], many: bool) -> None:
    """Raise :class:`UserError` that names the first of ``volumes`` of one coil where ``many`` are meant, or of many."""
    for volume in volumes:
        if many and volume.coils == 1:
            raise UserError(
                f"{volume.location}: has one coil, and multi-coil k-space is needed; give files of several coils, or "
                "choose coils: single"
            )
        if not many and volume.coils > 1:
            raise UserError(
                f"{volume.location}: has {volume.coils} coils, and single-coil k-space is needed; give files of one "
                "coil, or choose coils: multi"
            )


def check_same_matrix(volumes: Iterable["KspaceVolume"]) -> None:
    """Raise :class:`UserError` that names two of ``volumes`` whose slices cannot be in one batch."""
    first: KspaceVolume | None = None
    for volume in volumes:
        first = first or volume
        if (volume.coils, volume.matrix) != (first.coils, first.matrix):
            said = [f"{v.location} has {_times(v.matrix)} samples of {v.coils} coils" for v in (first, volume)]
            raise UserError(f"{said[0]} and {said[1]}; slices in one batch must agree, so use a batch of 1")


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
