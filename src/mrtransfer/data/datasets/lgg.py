"""Low-grade glioma slices with masks (TCGA-LGG, the Kaggle set ``mateuszbuda/lgg-mri-segmentation``)."""

import re
from pathlib import Path

import pandas as pd

from mrtransfer.common.errors import UserError
from mrtransfer.common.progress import progress
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets._common import existing_folder, ignored, is_image, stem, visible_files, visible_folders
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.readers import read_image_meta, read_mask
from mrtransfer.data.threads import in_threads

EXPECTED = "kaggle_3m/<subject>/<subject>_<slice>.tif and ..._mask.tif (or .png)"
CLASSES = ("no_tumour", "tumour")


@DATASETS.register("lgg")
def lgg(path: str | Path | None = None) -> Manifest:
    """Low-grade glioma slices with masks (Kaggle lgg-mri-segmentation): tumour where the mask is not empty.

    A file holds three channels: pre-contrast, FLAIR and post-contrast; the whole set is 3,929 slices of 110 patients.
    ``path`` is the folder of the subjects' folders or up to two above it. Columns of ``data.csv`` are joined where it
    is present; ``slice`` is the slice's number and ``site`` the hospital's TCGA code. Buda et al. 2019,
    doi:10.1016/j.compbiomed.2019.05.002. Raises :class:`UserError` that names an image without mask, or a mask of
    another size.
    """
    root = _subjects_folder(existing_folder("lgg", path, EXPECTED))
    files = [file for subject in visible_folders(root) for file in visible_files(subject)]
    images, others = [], [file for file in files if not is_image(file)]
    masks = {stem(file).removesuffix("_mask"): file for file in files if is_image(file) and _is_mask(file)}
    for file in files:
        if is_image(file) and not _is_mask(file):
            if stem(file) not in masks:
                raise UserError(f"{file}: has no mask; {stem(file)}_mask{file.suffix} should lie beside it")
            images.append(file)
    images.sort(key=lambda file: (file.parent.name, _slice_number(file), file.name))
    table = pd.DataFrame(
        {
            "sample": [f"{file.parent.name}/{stem(file)}" for file in images],
            "subject": [file.parent.name for file in images],
            "image": [file.relative_to(root).as_posix() for file in images],
            "mask": [masks[stem(file)].relative_to(root).as_posix() for file in images],
            "slice": [_slice_number(file) for file in images],
            "site": [_site(file.parent.name) for file in images],
        }
    )
    table["label"] = _labels(table, root)
    notes = ignored(others)
    for label in sorted(set(CLASSES) - set(table["label"])):
        notes.append(
            f"no slice is labelled {label}: {'every mask has' if label == CLASSES[0] else 'no mask has'} pixels"
        )
    table = _with_patients(table, root, notes)
    return Manifest.create(table, root, "lgg", CLASSES, notes, where=root, mask_labels=MaskLabels.binary())


def _is_mask(file: Path) -> bool:
    return stem(file).endswith("_mask")


def _subjects_folder(folder: Path) -> Path:
    # The published archive holds the same subjects twice, so that searching all folders would double every slice.
    for candidate in (folder, folder / "kaggle_3m", folder / "lgg-mri-segmentation" / "kaggle_3m"):
        if candidate.is_dir() and any(_is_mask(f) for s in visible_folders(candidate) for f in s.iterdir()):
            return candidate
    names = ", ".join(child.name for child in visible_folders(folder)[:5]) or "no folders"
    raise UserError(f"{folder}: no slices with masks found (it holds {names}); expected is {EXPECTED}")


def _labels(table: pd.DataFrame, root: Path) -> list[str]:
    """ "tumour" where the mask has pixels; all masks are read for it."""

    def label(files: tuple[str, str]) -> str:
        image, mask = files
        return CLASSES[int(read_mask(mask, root, read_image_meta(image, root)["shape"]).any())]

    labels = []
    with progress("reading masks", len(table)) as advance:
        for found in in_threads(label, zip(table["image"], table["mask"], strict=True)):
            labels.append(found)
            advance(1)
    return labels


def _slice_number(file: Path) -> int:
    digits = re.search(r"(\d+)$", stem(file))
    return int(digits[1]) if digits else -1


def _site(subject: str) -> str | None:
    code = re.match(r"TCGA_(\w\w)_", subject)
    return code[1] if code else None


def _with_patients(table: pd.DataFrame, root: Path, notes: list[str]) -> pd.DataFrame:
    """``table`` with the columns of ``data.csv``: patient ``TCGA_CS_4941`` is subject ``TCGA_CS_4941_19960909``."""
    file = root / "data.csv"
    if not file.is_file():
        return table
    try:
        patients = pd.read_csv(file)
    except (ValueError, OSError) as error:
        raise UserError(f"{file}: cannot be read as CSV: {' '.join(str(error).split())}") from error
    if "Patient" not in patients:
        raise UserError(f"{file}: the column 'Patient' is missing; it has: {', '.join(map(str, patients.columns))}")
    clash = set(patients.columns) & set(table.columns)
    patients = patients.rename(columns={name: f"patient_{name}" for name in clash}).drop_duplicates("Patient")
    keys = table["subject"].str.extract(r"^(TCGA_\w\w_[^_]+)", expand=False).fillna(table["subject"])
    joined = table.assign(Patient=keys).merge(patients, on="Patient", how="left").drop(columns="Patient")
    missing = sorted(set(keys) - set(patients["Patient"]))
    if missing:
        notes.append(
            f"{len(missing)} subjects are not in data.csv ({', '.join(missing[:3])}{', …' * (len(missing) > 3)})"
        )
    return joined
