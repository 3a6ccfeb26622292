"""BraTS, the brain tumour segmentation challenge: gliomas in four contrasts, with masks of the tumours' parts."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets._cases import complete, nifti_files, only_one
from mrtransfer.data.datasets._common import existing_folder, ignored, stem
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels

EXPECTED = "a folder per case with BraTS20_Training_001_flair.nii.gz … _seg.nii.gz, or BraTS-GLI-00000-000-t2f.nii.gz …"
CHANNELS = ("flair", "t1", "t1ce", "t2")
REGIONS = {
    "whole tumour": ["necrosis", "oedema", "enhancing"],
    "tumour core": ["necrosis", "enhancing"],
    "enhancing tumour": ["enhancing"],
}
_SEGMENTATION = "seg"
_UNTIL_2021 = re.compile(r"(?P<case>.+)_(?P<part>flair|t1|t1ce|t2|seg)", re.IGNORECASE)
_SINCE_2023 = re.compile(r"(?P<case>(?P<subject>BraTS-\w+-\d+)-\d+)-(?P<part>t1n|t1c|t2w|t2f|seg)", re.IGNORECASE)
_NEW_NAMES = {"t2f": "flair", "t1n": "t1", "t1c": "t1ce", "t2w": "t2"}


@DATASETS.register("brats")
def brats(
    path: str | Path | None = None,
    *,
    channels: Sequence[str] | str = CHANNELS,
    missing: str = "refuse",
    enhancing: int | None = None,
) -> Manifest:
    """Gliomas in FLAIR, T1, T1 post-contrast and T2 with masks (BraTS 2018 to 2023): necrosis, oedema, enhancing.

    ``channels`` picks and orders flair, t1, t1ce and t2. Up to 2021, cases are ``<case>_flair.nii[.gz]`` (HGG and LGG
    folders become the column ``grade``) and enhancing tumour is 4 in the masks; since 2023 they are
    ``BraTS-GLI-00000-000-t2f.nii.gz`` (the last number is the time point, all of one subject) and it is 3;
    ``enhancing`` says so where files were changed. Regions are whole tumour, tumour core and enhancing tumour.

    A case that lacks a channel or its mask is refused by name, or left out with ``missing: exclude``. Published
    validation cases, and sets without any mask, have none. Bakas et al. 2018, arXiv:1811.02629; Baid et al. 2021,
    arXiv:2107.02314.
    """
    root = existing_folder("brats", path, EXPECTED)
    wanted = _channels(channels)
    volumes, others = nifti_files(root)
    cases, subjects, strangers = _cases(volumes)
    if not cases:
        held = ", ".join(file.name for file in volumes[:3]) or "no NIfTI files"
        raise UserError(
            f"{root}: no BraTS cases found (it holds {held}); expected is {EXPECTED}; dataset volumes reads other names"
        )
    notes = ignored(others + strangers)
    masked = any(_SEGMENTATION in parts for parts in cases.values())
    unmasked = [name for name, parts in cases.items() if _SEGMENTATION not in parts and "validation" in name.lower()]
    if masked and unmasked:
        notes.append(f"{len(unmasked)} published validation cases without masks ignored")
        cases = {name: parts for name, parts in cases.items() if name not in unmasked}
    if not masked:
        notes.append("no case has a mask")
    names, left_out = complete(cases, [*wanted, _SEGMENTATION] if masked else wanted, missing, root)
    table = pd.DataFrame({"sample": names, "subject": [subjects[name] for name in names]})
    for channel in wanted:
        table[f"image:{channel}"] = [cases[name][channel].relative_to(root).as_posix() for name in names]
    if masked:
        table["mask"] = [cases[name][_SEGMENTATION].relative_to(root).as_posix() for name in names]
    grades = [_grade(cases[name][wanted[0]].relative_to(root)) for name in names]
    if any(grades):
        table["grade"] = grades
    labels = _labels(names, enhancing)
    return Manifest.create(table, root, "brats", (), notes + left_out, where=root, mask_labels=labels)


def _channels(channels: Sequence[str] | str) -> list[str]:
    wanted = [channels] if isinstance(channels, str) else list(channels)
    for channel in wanted:
        if channel not in CHANNELS:
            raise UserError(f"brats: {unknown_name('channel', str(channel), CHANNELS)}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise UserError(f"brats: channels is {wanted}; give one or more of {', '.join(CHANNELS)}, each once")
    return wanted


def _cases(volumes: list[Path]) -> tuple[dict[str, dict[str, Path]], dict[str, str], list[Path]]:
    """Case to its files by channel, case to subject, and the files that belong to no case."""
    cases: dict[str, dict[str, Path]] = {}
    subjects: dict[str, str] = {}
    strangers = []
    for file in volumes:
        name = stem(file)
        found = _SINCE_2023.fullmatch(name) or _UNTIL_2021.fullmatch(name)
        if found:
            case, part = found["case"], found["part"].lower()
            subjects[case] = found.groupdict().get("subject") or case
        elif name.lower().endswith("_segm"):  # the mask of BraTS20_Training_355 is W39_1998.09.19_Segm.nii
            case, part = file.parent.name, _SEGMENTATION
            subjects.setdefault(case, case)
        else:
            strangers.append(file)
            continue
        only_one(cases.setdefault(case, {}), _NEW_NAMES.get(part, part), file, case)
    return dict(sorted(cases.items())), subjects, strangers


def _grade(file: Path) -> str | None:
    """HGG or LGG, as the folders of 2018 and 2019 say."""
    return next((part.upper() for part in file.parts if part.upper() in ("HGG", "LGG")), None)


def _labels(names: list[str], enhancing: int | None) -> MaskLabels:
    new = [_SINCE_2023.fullmatch(f"{name}-seg") is not None for name in names]
    values = sorted({3 if is_new else 4 for is_new in new}, reverse=True) if enhancing is None else [enhancing]
    return MaskLabels.create({"necrosis": 1, "oedema": 2, "enhancing": values}, REGIONS)
