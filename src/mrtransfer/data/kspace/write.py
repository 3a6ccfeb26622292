"""Writing k-space as fastMRI publishes it, for tests and for your own acquisitions."""

from pathlib import Path

import h5py
import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import atomic_path
from mrtransfer.data.kspace.checks import sampled_columns
from mrtransfer.data.kspace.fastmri import HEADER, KSPACE, MASK, MULTI_COIL, SINGLE_COIL, fitting_crop
from mrtransfer.data.kspace.header import Header, Lengths
from mrtransfer.data.kspace.target import magnitude_target


def write_fastmri(
    path: str | Path,
    kspace: np.ndarray,
    *,
    targets: np.ndarray | None = None,
    crop: tuple[int, int] | None = None,
    mask: np.ndarray | None = None,
    padding: tuple[int, int] | None = None,
    acquisition: str = "",
    spacing: Lengths | None = None,
    subject: str = "",
    scanner: str = "",
    max_value: float | None = None,
) -> Path:
    """Write ``kspace``, complex (S, C, H, W) or (S, H, W) of a single coil, as a file that fastMRI's tools read.

    ``targets`` (S, h, w) are computed where they are not given: root sums of squares, of the central ``crop`` (h, w),
    by default the whole image. With ``mask`` bool (W,) the other columns are set to 0, and the file has the mask and no
    targets but given ones, as fastMRI's test files. ``padding``: the first acquired column and one past the last.
    ``spacing`` is in mm: between rows, columns and slices. ``max_value`` is by default the largest target. Raises
    :class:`UserError` that names ``path`` for arrays that do not fit together.
    """
    path = Path(path)
    _check(path, kspace, targets)
    slices, (height, width) = len(kspace), kspace.shape[-2:]
    size = targets.shape[-2:] if targets is not None else crop or (height, width)
    if crop is not None and (tuple(crop) != tuple(size) or fitting_crop(crop, (height, width)) != tuple(crop)):
        raise UserError(f"{path}: crop is {crop}, which is not the targets' size or does not fit {height} × {width}")
    columns = None if mask is None else sampled_columns(mask, width, str(path))
    if targets is None and columns is None:
        targets = np.stack([magnitude_target(_coils(kspace[index]), size) for index in range(slices)])
    header = Header(
        encoded=(height, width, 1),
        recon=(int(size[0]), int(size[1]), 1),
        encoded_fov=spacing and (height * spacing[0], width * spacing[1], spacing[2]),
        recon_fov=spacing and (size[0] * spacing[0], size[1] * spacing[1], spacing[2]),
        lines=_lines(path, padding, width),
        coils=kspace.shape[1] if kspace.ndim == 4 else 1,
        system=scanner,
        subject=subject,
    )
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        stored = file.create_dataset(KSPACE, kspace.shape, np.complex64)
        for index in range(slices):
            stored[index] = kspace[index] if columns is None else kspace[index] * columns
        file.create_dataset(HEADER, data=header.to_xml())
        file.attrs["acquisition"], file.attrs["patient_id"] = acquisition, subject
        if columns is not None:
            file.create_dataset(MASK, data=columns)
            file.attrs["acceleration"] = width / int(columns.sum())
        if targets is not None:
            _write_targets(file, targets, max_value)
    return path


def _write_targets(file: h5py.File, targets: np.ndarray, max_value: float | None) -> None:
    name = MULTI_COIL if file[KSPACE].ndim == 4 else SINGLE_COIL
    file.create_dataset(name, data=targets, dtype=np.float32)
    file.attrs["max"] = float(targets.max()) if max_value is None else max_value
    file.attrs["norm"] = float(np.linalg.norm(targets.astype(np.float64)))


def _check(path: Path, kspace: np.ndarray, targets: np.ndarray | None) -> None:
    if kspace.ndim not in (3, 4) or not np.iscomplexobj(kspace) or kspace.size == 0:
        raise UserError(f"{path}: k-space must be complex (slices, coils, rows, columns), not {kspace.shape}")
    if targets is not None and (targets.ndim != 3 or len(targets) != len(kspace)):
        raise UserError(f"{path}: targets have shape {targets.shape}; they need {len(kspace)} slices, as k-space")


def _lines(path: Path, padding: tuple[int, int] | None, width: int) -> tuple[int, int] | None:
    """The header's last and central line, by which readers find the padding."""
    if padding is None:
        return None
    first, end = padding
    if not 0 <= first <= width // 2 < end <= width:
        raise UserError(f"{path}: padding is {padding}; it must hold the centre, column {width // 2} of {width}")
    return end - first - 1, width // 2 - first


def _coils(kspace: np.ndarray) -> np.ndarray:
    """complex64 (C, H, W), a copy, of a slice (C, H, W) or (H, W)."""
    return np.array(kspace.reshape(-1, *kspace.shape[-2:]), dtype=np.complex64, order="C")
