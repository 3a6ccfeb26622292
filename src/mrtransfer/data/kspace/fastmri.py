"""Files as fastMRI publishes them: ``kspace``, its reconstruction, and an ISMRMRD header, in HDF5.

Zbontar et al., fastMRI: an open dataset and benchmarks for accelerated MRI, arXiv 1811.08839.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace.checks import sampled_columns
from mrtransfer.data.kspace.files import hdf5, text_of
from mrtransfer.data.kspace.header import Header
from mrtransfer.data.kspace.sampled import Sampled, held_columns
from mrtransfer.data.kspace.volume import KspaceVolume

KSPACE, MASK, HEADER = "kspace", "mask", "ismrmrd_header"
MULTI_COIL, SINGLE_COIL = "reconstruction_rss", "reconstruction_esc"


@dataclass(frozen=True)
class _Slices:
    """Reads one slice, opening the file for it."""

    file: Path
    target: str | None

    def __call__(self, index: int, target: bool) -> tuple[np.ndarray, np.ndarray | None]:
        with hdf5(self.file) as opened:
            kspace = opened[KSPACE][index]
            image = opened[self.target][index] if target and self.target else None
        return kspace.reshape(-1, *kspace.shape[-2:]), image


def open_fastmri(file: Path) -> KspaceVolume:
    """The volume in ``file``: k-space (S, C, H, W), or (S, H, W) of one coil.

    What counts as sampled: the columns of ``mask``, or all that the header's encoding limits say were acquired; where
    the header speaks of an acceleration and there is no mask, the columns that hold data. The crop is the target's
    size, or else the header's reconstruction matrix, or else the whole image. Raises :class:`UserError` that names
    ``file`` where it is damaged, lacks k-space, or its parts do not fit together.
    """
    with hdf5(file) as opened:
        shape = _kspace_shape(opened, file)
        header = Header.parse(opened[HEADER][()], str(file)) if HEADER in opened else None
        target = _target(opened, shape, file)
        size = opened[target].shape[-2:] if target else header.recon[:2] if header else shape[-2:]
        mask = sampled_columns(opened[MASK][()], shape[-1], str(file)) if MASK in opened else None
        said = {name: text_of(opened.attrs.get(name, "")) for name in ("acquisition", "patient_id")}
        largest = float(opened.attrs["max"]) if target and "max" in opened.attrs else None
    source = _Slices(file, target)
    matrix = (int(shape[-2]), int(shape[-1]))
    padding = header.padding(matrix[1]) if header else None
    if header is not None and mask is None and header.acceleration > 1:
        mask = held_columns(lambda index: source(index, False)[0], shape[0], str(file))
    columns, padding = _sampled(mask, padding)
    return KspaceVolume(
        location=str(file),
        name=file.name,
        slices=int(shape[0]),
        coils=int(shape[1]) if len(shape) == 4 else 1,
        matrix=matrix,
        crop=fitting_crop((int(size[0]), int(size[1])), matrix),
        source=source,
        columns=columns,
        padding=padding,
        acquisition=said["acquisition"],
        subject=said["patient_id"] or (header.subject if header else ""),
        scanner=header.system if header else "",
        spacing=header.spacing(matrix) if header else None,
        stored_targets=target is not None,
        stored_max=largest,
    )


def fitting_crop(crop: tuple[int, int], matrix: tuple[int, int]) -> tuple[int, int]:
    """``crop`` (h, w), made to fit ``matrix`` (H, W).

    Where k-space is narrower than the crop, both sides become its width, as fastMRI scores such files (some of its
    FLAIR volumes are 203 columns wide).
    """
    height, width = crop
    if width > matrix[1]:
        height, width = min(height, matrix[1]), matrix[1]
    return min(height, matrix[0]), width


def _sampled(mask: np.ndarray | None, padding: tuple[int, int] | None) -> Sampled:
    """What a stored mask and the header say together; a mask that leaves out nothing that was acquired is none."""
    if mask is None:
        return None, padding
    first, end = padding or (0, len(mask))
    return (None if mask[first:end].all() else mask), padding


def _kspace_shape(opened: h5py.File, file: Path) -> tuple[int, ...]:
    if KSPACE not in opened or not isinstance(opened[KSPACE], h5py.Dataset):
        there = ", ".join(sorted(opened)[:6]) or "nothing"
        raise UserError(f"{file}: holds no dataset 'kspace' (it holds {there}); fastMRI files have one")
    kspace = opened[KSPACE]
    if kspace.ndim not in (3, 4) or not np.issubdtype(kspace.dtype, np.complexfloating) or 0 in kspace.shape:
        said = f"{kspace.dtype} of shape {' × '.join(map(str, kspace.shape))}"
        raise UserError(f"{file}: 'kspace' is {said}; it must be complex (slices, coils, rows, columns), without empty")
    return tuple(map(int, kspace.shape))


def _target(opened: h5py.File, shape: tuple[int, ...], file: Path) -> str | None:
    """The name of the reconstruction that belongs to k-space of ``shape``; None where the file holds none."""
    name = MULTI_COIL if len(shape) == 4 else SINGLE_COIL
    if name not in opened:
        return None
    images = opened[name].shape
    if len(images) != 3 or images[0] != shape[0] or 0 in images:
        raise UserError(
            f"{file}: {name} has shape {' × '.join(map(str, images))}; it needs {shape[0]} slices as k-space"
        )
    return name
