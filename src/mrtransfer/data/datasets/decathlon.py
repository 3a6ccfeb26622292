"""The Medical Segmentation Decathlon's layout: ``imagesTr``, ``labelsTr`` and ``dataset.json``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import pandas as pd

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.files import read_json
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets._cases import Classes, Regions, complete, found_labels, nifti_files, only_one
from mrtransfer.data.datasets._common import existing_folder, stem, visible_folders
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.readers import reading

EXPECTED = "imagesTr/<case>.nii.gz and labelsTr/<case>.nii.gz"


@DATASETS.register("decathlon")
def decathlon(
    path: str | Path | None = None,
    *,
    channels: Sequence[str] | str | None = None,
    classes: Classes | None = None,
    regions: Regions | None = None,
    missing: str = "refuse",
) -> Manifest:
    """Volumes in the Medical Segmentation Decathlon's layout: imagesTr and labelsTr, with or without dataset.json.

    ``path`` is the task's folder, or the one above it. The channels of 4-D images have the names that ``dataset.json``
    gives to modalities, in lower case, or else channel_0, channel_1, …; ``channels`` picks and orders them. ``classes``
    maps names to mask values, by default as ``dataset.json`` says, or else as found in the masks; ``regions`` are
    scored, {name: [classes]}. An image without mask is refused by name, or left out with ``missing: exclude``; test
    images have none and are ignored. Antonelli et al. 2022, doi:10.1038/s41467-022-30695-9.
    """
    root = _task_folder(existing_folder("decathlon", path, EXPECTED))
    described = read_json(root / "dataset.json") if (root / "dataset.json").is_file() else {}
    if not isinstance(described, dict):
        raise UserError(f"{root / 'dataset.json'}: must hold an object with modality and labels")
    cases: dict[str, dict[str, Path]] = {}
    images, masks = (nifti_files(root / name)[0] for name in ("imagesTr", "labelsTr"))
    for file in images:
        only_one(cases.setdefault(stem(file), {}), "image", file, stem(file))
    if not cases:
        raise UserError(f"{root}: imagesTr holds no NIfTI files; expected are {EXPECTED}")
    orphans = [file for file in masks if stem(file) not in cases]
    for file in masks:
        if stem(file) in cases:
            only_one(cases[stem(file)], "mask", file, stem(file))
    names, notes = complete(cases, ["image", "mask"], missing, root)
    if orphans:
        notes.append(f"{len(orphans)} masks without image ignored ({orphans[0].name}{', …' * (len(orphans) > 1)})")
    if unlabelled := _test_images(root):
        notes.append(f"{unlabelled} images of imagesTs ignored, which have no masks")
    table = pd.DataFrame({"sample": names, "subject": names})
    columns = _image_columns([cases[name]["image"] for name in names], root, described, channels)
    table = table.assign(**columns, mask=[cases[name]["mask"].relative_to(root).as_posix() for name in names])
    if classes is None:
        classes = _classes(described, root)
    if classes is None:
        labels, note = found_labels(table["mask"], root, regions)
        notes.append(note)
    else:
        labels = MaskLabels.create(classes, regions)
    return Manifest.create(table, root, str(root.resolve().name), (), notes, where=root, mask_labels=labels)


def _task_folder(folder: Path) -> Path:
    """``folder``, or the only one in it that holds images and masks."""
    found = [f for f in (folder, *visible_folders(folder)) if (f / "imagesTr").is_dir() and (f / "labelsTr").is_dir()]
    if len(found) == 1 or folder in found:
        return found[0]
    if found:
        raise UserError(f"{folder}: holds {len(found)} tasks; give one of them, for example {found[0]}")
    names = ", ".join(child.name for child in visible_folders(folder)[:5]) or "no folders"
    raise UserError(f"{folder}: no imagesTr and labelsTr found (it holds {names}); expected are {EXPECTED}")


def _test_images(root: Path) -> int:
    return len(nifti_files(root / "imagesTs")[0]) if (root / "imagesTs").is_dir() else 0


def _image_columns(
    files: list[Path], root: Path, described: dict[str, Any], channels: Sequence[str] | str | None
) -> dict[str, list[str]]:
    """The columns of images: one, or one per volume of 4-D files."""
    locations = [file.relative_to(root).as_posix() for file in files]
    counts = [_volumes(file) for file in files]
    for file, count in zip(files, counts, strict=True):
        if count != counts[0]:
            has, other = (f"{n} channels" if n else "three axes" for n in (count, counts[0]))
            raise UserError(f"{file}: has {has}, but {files[0].name} has {other}; all images must be alike")
    if not counts[0]:
        if channels is not None:
            raise UserError(f"decathlon: channels picks volumes of 4-D images, but {files[0]} is 3-D; leave it out")
        return {"image": locations}
    names = _channel_names(described, counts[0], root)
    wanted = [channels] if isinstance(channels, str) else names if channels is None else list(channels)
    columns = {}
    for channel in wanted:
        if str(channel).lower() not in names:
            raise UserError(f"{root}: {unknown_name('channel', str(channel), names)}")
        number = names.index(str(channel).lower())
        columns[f"image:{names[number]}"] = [f"{location}#volume={number}" for location in locations]
    return columns


def _volumes(file: Path) -> int:
    """How many volumes a 4-D image holds; 0 where it is 3-D."""
    with reading(file):
        shape = nib.load(file).shape  # type: ignore[attr-defined]
    if len(shape) not in (3, 4):
        raise UserError(f"{file}: has {len(shape)} axes; an image has three, or four with its channels")
    return shape[3] if len(shape) == 4 else 0


def _channel_names(described: dict[str, Any], count: int, root: Path) -> list[str]:
    given = described.get("modality", described.get("channel_names"))
    if given is None:
        return [f"channel_{number}" for number in range(count)]
    try:
        names = [str(given[key]).lower() for key in sorted(given, key=int)]
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f'{root / "dataset.json"}: modality must be as {{"0": "FLAIR", "1": "T1w"}}') from error
    if len(names) != count or len(set(names)) < count:
        raise UserError(
            f"{root / 'dataset.json'}: modality names {', '.join(names)}, but the images have {count} channels; "
            "each needs a name of its own"
        )
    return names


def _classes(described: dict[str, Any], root: Path) -> dict[str, int] | None:
    """Names and values of the classes; the published files map values to names, newer ones names to values."""
    given = described.get("labels")
    if given is None:
        return None
    try:
        if all(str(key).isdigit() for key in given):
            named = {str(name): int(value) for value, name in given.items()}
        else:
            named = {str(name): int(value) for name, value in given.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f'{root / "dataset.json"}: labels must be as {{"0": "background", "1": "tumour"}}') from error
    return {name: value for name, value in named.items() if value != 0}
