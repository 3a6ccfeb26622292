"""The figshare brain tumour set 1512427 (Cheng et al. 2015): 3,064 T1 post-contrast slices of 233 patients."""

from pathlib import Path

import numpy as np
import pandas as pd

from mrtransfer.common.errors import UserError
from mrtransfer.common.progress import progress
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets._common import existing_folder, require_one_label_per_subject, visible_files
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.readers import reading
from mrtransfer.data.readers.matlab import read_fields

EXPECTED = "1.mat, 2.mat, … as published, in one folder or in the four unpacked archives"
CODES = {1: "meningioma", 2: "glioma", 3: "pituitary"}


@DATASETS.register("figshare")
def figshare(path: str | Path | None = None, *, one_label_per_subject: bool = True) -> Manifest:
    """Brain tumour slices with patient ids and masks (figshare 1512427): meningioma, glioma, pituitary.

    Each ``<number>.mat`` holds the struct ``cjdata`` (image, label 1–3, PID, tumorMask, tumorBorder); MATLAB 5 or 7.3.
    The published folds in ``cvind.mat`` become the column ``fold``. Cheng et al. 2015,
    doi:10.1371/journal.pone.0140381. Raises :class:`UserError` that names the first damaged file.
    """
    root = existing_folder("figshare", path, EXPECTED)
    files = [file for file in visible_files(root) if file.suffix == ".mat"]
    slices = sorted((file for file in files if file.stem.isdigit()), key=lambda file: int(file.stem))
    if not slices:
        raise UserError(f"{root}: no numbered .mat files found; expected are {EXPECTED}")
    rows = []
    with progress("reading figshare slices", len(slices)) as advance:
        for file in slices:
            label, patient = read_scalars(file)
            location = file.relative_to(root).as_posix()
            rows.append((file.stem, patient, label, location, f"{location}#field=tumorMask"))
            advance(1)
    table = pd.DataFrame(rows, columns=["sample", "subject", "label", "image", "mask"])
    notes = []
    folds = [file for file in files if file.stem == "cvind"]
    if folds:
        table["fold"] = _folds(folds[0], [int(file.stem) for file in slices])
        notes.append(f"published folds found in {folds[0].name}: {table['fold'].nunique()}")
    classes = [name for name in CODES.values() if name in set(table["label"])]
    if len(classes) < 2:
        raise UserError(f"{root}: only one class ({classes[0]}) among {len(slices)} slices; two or more are needed")
    masks = MaskLabels.binary()
    manifest = Manifest.create(table, root, "figshare", classes, notes, where=root, mask_labels=masks)
    return require_one_label_per_subject(manifest, root) if one_label_per_subject else manifest


def read_scalars(file: Path) -> tuple[str, str]:
    """Label and patient id of a slice."""
    with reading(file):
        code, patient = read_fields(file, ["label", "PID"])
    label = CODES.get(int(np.ravel(code)[0])) if np.size(code) == 1 else None
    if label is None:
        raise UserError(
            f"{file}: its label is {code!r}; it must be {', '.join(f'{k} ({v})' for k, v in CODES.items())}"
        )
    return label, str(patient if isinstance(patient, str) else np.ravel(patient)[0]).strip()


def _folds(file: Path, numbers: list[int]) -> list[int]:
    """The fold of each slice: entry n − 1 of ``cvind`` belongs to ``n.mat``."""
    with reading(file):
        values = np.ravel(read_fields(file, ["cvind"])[0]).astype(int)
    if max(numbers) > len(values):
        raise UserError(
            f"{file}: has {len(values)} entries, but there is a {max(numbers)}.mat; one entry per slice is needed"
        )
    return [int(values[number - 1]) for number in numbers]
