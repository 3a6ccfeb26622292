"""Class folders: the commonest layout of public classification sets."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets._common import (
    SPLIT_NAMES,
    existing_folder,
    ignored,
    is_image,
    require_one_label_per_subject,
    stem,
    visible_files,
    visible_folders,
)
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.readers import SUFFIXES, read_image_meta, suffix
from mrtransfer.data.schema import SPLITS

EXPECTED = "one subfolder of images per class"


@DATASETS.register("folder")
def folder(
    path: str | Path | None = None, *, subject: str | None = None, one_label_per_subject: bool = False
) -> Manifest:
    """Class folders, also below Training/Testing (train, validation, test), which become the published split.

    Labels are the folders' names. ``subject`` is a regular expression on the file's name without suffix whose first
    group is the subject (``'(\\w+)_\\d+'``); without it, subjects are known from DICOM headers only. ``x_mask.png``
    beside ``x.png`` is its mask. Raises :class:`UserError` for fewer than two classes, saying what was found instead.
    """
    root = _with_classes(existing_folder("folder", path, EXPECTED))
    classes = _class_folders(root)
    rows, others = [], []
    for class_folder, split in classes:
        files = visible_files(class_folder)
        images = [file for file in files if is_image(file)]
        others += [file for file in files if not is_image(file)]
        rows += _rows(images, root, class_folder.name, split)
    found = sorted({row["label"] for row in rows})
    if len(found) < 2:
        raise UserError(f"{root}: {_what_is_there(root, found)}; needed is {EXPECTED}, with two classes or more")
    table = pd.DataFrame(rows)
    if subject is not None:
        table["subject"] = _subjects(table["image"], subject)
    masks = MaskLabels.binary("foreground") if "mask" in table else None
    manifest = Manifest.create(
        table, root, root.name, found, _notes(table, root, others), where=root, mask_labels=masks
    )
    return require_one_label_per_subject(manifest, root) if one_label_per_subject else manifest


def _with_classes(folder: Path) -> Path:
    """``folder``, or what lies in it where all it holds is one single folder (an unpacked archive)."""
    children = visible_folders(folder)
    while len(children) == 1 and not any(is_image(child) for child in folder.iterdir()):
        if children[0].name.lower() in SPLIT_NAMES or any(is_image(child) for child in children[0].iterdir()):
            break
        folder, children = children[0], visible_folders(children[0])
    return folder


def _class_folders(root: Path) -> list[tuple[Path, str | None]]:
    """Every class folder, with the published split it belongs to."""
    children = visible_folders(root)
    published = [child for child in children if child.name.lower() in SPLIT_NAMES]
    if published:
        return [(inner, SPLIT_NAMES[child.name.lower()]) for child in published for inner in visible_folders(child)]
    _refuse_parent(root, children)
    return [(child, None) for child in children]


def _refuse_parent(root: Path, children: list[Path]) -> None:
    """Taking datasets, or sites, for classes would be a silent mistake: say that the classes lie one level down."""
    for child in children:
        splits = [inner.name for inner in visible_folders(child) if inner.name.lower() in SPLIT_NAMES]
        if splits:
            raise UserError(f"{root}: its folder {child.name} holds {' and '.join(splits)}; give {child} instead")
    inner = [frozenset(grandchild.name for grandchild in visible_folders(child)) for child in children]
    if len(children) > 1 and len(inner[0]) > 1 and len(set(inner)) == 1:
        names = ", ".join(child.name for child in children)
        raise UserError(
            f"{root}: its folders ({names}) all hold the same folders ({', '.join(sorted(inner[0]))}), "
            f"so the classes lie one level down; give one of them, for example {children[0]}"
        )


def _rows(images: list[Path], root: Path, label: str, split: str | None) -> list[dict[str, Any]]:
    by_stem = {file.with_name(stem(file)): file for file in images}
    masks = {
        name.with_name(name.name.removesuffix("_mask")): file
        for name, file in by_stem.items()
        if name.name.endswith("_mask") and name.with_name(name.name.removesuffix("_mask")) in by_stem
    }
    rows = []
    for file in images:
        if file in masks.values():
            continue
        location = file.relative_to(root).as_posix()
        row: dict[str, Any] = {"sample": location, "image": location, "label": label, "split": split}
        if mask := masks.get(file.with_name(stem(file))):
            row["mask"] = mask.relative_to(root).as_posix()
        rows.append(row | _from_header(location, root))
    return rows


def _from_header(location: str, root: Path) -> dict[str, Any]:
    """Subject, spacing and scanner, from formats whose headers have them."""
    if SUFFIXES[suffix(location)] not in ("dicom", "nifti"):
        return {}
    try:
        header = read_image_meta(location, root)
    except UserError:
        return {}  # opening the store names all unreadable files at once
    row: dict[str, Any] = {key: header[key] for key in ("subject", "scanner") if key in header}
    if "spacing" in header:
        row["spacing_y"], row["spacing_x"] = header["spacing"]
    return row


def _subjects(locations: pd.Series, pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"subject: {pattern!r} is not a regular expression ({error})") from error
    subjects = []
    for location in locations:
        match = compiled.search(stem(Path(location)))
        if match is None:
            raise UserError(f"{location}: its name does not match subject: {pattern!r}; widen the expression")
        subjects.append(match[1] if compiled.groups else match[0])
    return subjects


def _notes(table: pd.DataFrame, root: Path, others: list[Path]) -> list[str]:
    notes = []
    splits = table["split"].value_counts()
    if len(splits):
        counted = ", ".join(f"{splits[split]} {split}" for split in SPLITS if split in splits)
        notes.append(f"published split found: {counted}")
        strangers = [f.name for f in visible_folders(root) if f.name.lower() not in SPLIT_NAMES]
        if strangers:
            notes.append(f"beside the split's folders, ignored: {', '.join(strangers)}")
    volumes = sum(suffix(location) in (".nii", ".nii.gz") for location in table["image"])
    if volumes:
        notes.append(f"{volumes} NIfTI volumes: the middle slice of each stands for it; list other slices in a table")
    return notes + ignored(others)


def _what_is_there(root: Path, found: list[str]) -> str:
    if found:
        return f"only one class ({found[0]}) has images"
    if any(is_image(child) for child in root.iterdir()):
        return "the images lie in the folder itself, so that their classes are not known"
    names = [child.name for child in visible_folders(root)][:5]
    if names:
        return f"no images found in its folders {', '.join(names)}"
    return f"no images found ({'; '.join(ignored(visible_files(root))) or 'the folder is empty'})"
