"""Layouts of volumes: a phantom's heads or knees as NIfTI files, in the folder structures of published sets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import write_json
from mrtransfer.common.progress import progress
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.phantom.volume import LABELS, render_volume
from mrtransfer.data.phantom.volume_scan import is_volume, parse_volume
from mrtransfer.data.volume.write import write_volume

_NAMES_2023 = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w"}
_ENHANCING = LABELS.names.index("enhancing")
Voxels = NDArray[Any]
Affine = NDArray[np.float64]


def write_brats(manifest: Manifest, directory: Path, *, year: int = 2020) -> None:
    """BraTS, in the axes of the published files (left, back, head).

    Of 2020: ``<subject>/<subject>_flair.nii.gz`` … ``_seg.nii.gz``, enhancing tumour 4. Of 2023:
    ``BraTS-GLI-00003-000/BraTS-GLI-00003-000-t2f.nii.gz`` … by the subject's number, enhancing tumour 3.
    """
    if year not in (2020, 2023):
        raise UserError(f"layout brats: year is {year}; it must be 2020 or 2023, whose names differ")
    for name, subject, images, mask, affine in _cases(manifest, "brats"):
        if unknown := [channel for channel in images if channel not in _NAMES_2023]:
            raise UserError(f"layout brats: has no {unknown[0]}; build the manifest with {', '.join(_NAMES_2023)}")
        case = name if year == 2020 else f"BraTS-GLI-{subject:05d}-000"
        joint = "_" if year == 2020 else "-"
        seg = np.where(mask == _ENHANCING, 4, mask).astype(np.uint8) if year == 2020 else mask
        for channel, data in [*images.items(), ("seg", seg)]:
            part = channel if year == 2020 else _NAMES_2023.get(channel, channel)
            _write(directory / case / f"{case}{joint}{part}.nii.gz", *_to_left_and_back(data, affine))


def write_decathlon(manifest: Manifest, directory: Path, *, description: bool = True) -> None:
    """The Decathlon: ``imagesTr`` (4-D where there are several channels), ``labelsTr`` and ``dataset.json``."""
    names = []
    for name, _, images, mask, affine in _cases(manifest, "decathlon"):
        stacked = np.stack(list(images.values()), axis=-1)
        _write(directory / "imagesTr" / f"{name}.nii.gz", stacked if len(images) > 1 else stacked[..., 0], affine)
        _write(directory / "labelsTr" / f"{name}.nii.gz", mask, affine)
        names.append(name)
    if description:
        content = {
            "name": manifest.name,
            "modality": {str(number): channel for number, channel in enumerate(_contrasts(manifest))},
            "labels": {str(value): name for value, name in enumerate(LABELS.names)},
            "numTraining": len(names),
            "numTest": 0,
            "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
            "test": [],
        }
        write_json(directory / "dataset.json", content)


def write_volumes(manifest: Manifest, directory: Path) -> None:
    """A user's folders: ``<subject>/<contrast>.nii.gz`` and ``<subject>/mask.nii.gz``."""
    for name, _, images, mask, affine in _cases(manifest, "volumes"):
        for part, data in [*images.items(), ("mask", mask)]:
            _write(directory / name / f"{part}.nii.gz", data, affine)


def _contrasts(manifest: Manifest) -> list[str]:
    return [parse_volume(location).contrast for location in manifest.locations(0)]


def _cases(manifest: Manifest, layout: str) -> Iterator[tuple[str, int, dict[str, Voxels], Voxels, Affine]]:
    """Name, subject's number, images by contrast, class map and affine of every row."""
    if not is_volume(manifest.locations(0)[0]):
        raise UserError(f"layout {layout}: holds volumes; build the manifest with task='segmentation'")
    contrasts = _contrasts(manifest)
    with progress("writing volumes", len(manifest)) as advance:
        for row in range(len(manifest)):
            read = [render_volume(location)[0] for location in manifest.locations(row)]
            location = str(manifest.table["mask"].iloc[row])
            mask, affine = render_volume(location)
            name, subject = str(manifest.table["sample"].iloc[row]), parse_volume(location).subject
            yield name, subject, dict(zip(contrasts, read, strict=True)), mask, affine
            advance(1)


def _to_left_and_back(data: Voxels, affine: Affine) -> tuple[Voxels, Affine]:
    """The same voxels with the first two axes pointing to the patient's left and back."""
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    turn[:2, 3] = np.array(data.shape[:2]) - 1
    return data[::-1, ::-1], affine @ turn


def _write(path: Path, data: Voxels, affine: Affine) -> None:
    write_volume(path, np.ascontiguousarray(data), affine)
