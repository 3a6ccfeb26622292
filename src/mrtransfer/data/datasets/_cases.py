"""What the datasets of volumes share: cases made of several files, and masks whose values nobody has named."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.progress import progress
from mrtransfer.data.datasets._common import visible_files
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.readers import suffix
from mrtransfer.data.threads import in_threads
from mrtransfer.data.volume import read_volume

Classes = Mapping[str, int | Sequence[int]]
Regions = Mapping[str, Sequence[str]]
_MISSING = ("refuse", "exclude")
_MOST_CLASSES = 64  # more values than that are no classes


def nifti_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """All NIfTI files below ``folder``, and the other files."""
    files = visible_files(folder)
    volumes = [file for file in files if suffix(file) in (".nii", ".nii.gz")]
    return volumes, [file for file in files if suffix(file) not in (".nii", ".nii.gz")]


def only_one(parts: dict[str, Path], part: str, file: Path, case: str) -> None:
    """Keep ``file`` as the ``part`` of a case; raises :class:`UserError` that names both where it has one already."""
    if part in parts:
        raise UserError(f"{file}: {case} has two files for {part}, the other is {parts[part]}; keep one of them")
    parts[part] = file


def complete(
    cases: Mapping[str, Mapping[str, Path]], needed: Sequence[str], missing: str, where: Path
) -> tuple[list[str], list[str]]:
    """The names of the cases that have a file for everything ``needed``, and notes on those that have not.

    With ``missing: refuse`` the first of those is a :class:`UserError`; with ``exclude`` they are left out by name.
    """
    if missing not in _MISSING:
        raise unknown_name("value of missing", missing, _MISSING)
    lacks = {name: [part for part in needed if part not in parts] for name, parts in cases.items()}
    short = {name: ", ".join(parts) for name, parts in lacks.items() if parts}
    if short and (missing == "refuse" or len(short) == len(cases)):
        name, parts = next(iter(short.items()))
        others = f" ({len(short)} of {len(cases)} cases lack something)" if len(short) > 1 else ""
        remedy = "" if len(short) == len(cases) else ", or leave such cases out with missing: exclude"
        raise UserError(f"{where}: {name} has no {parts}{others}; add the files, choose other channels{remedy}")
    notes = [f"left out: {'; '.join(f'{name} has no {parts}' for name, parts in short.items())}"] if short else []
    return [name for name in cases if name not in short], notes


def found_labels(masks: Iterable[str], root: Path, regions: Regions | None = None) -> tuple[MaskLabels, str]:
    """Labels for the values that are in the masks, and a note on them: all masks are read for it.

    One value is ``foreground``; several are ``label_1``, ``label_2``, … by value. Raises :class:`UserError` that names
    a mask with values that cannot be classes, and where all masks are empty.
    """

    def values(mask: str) -> np.ndarray:
        held = np.unique(read_volume(mask, root).data)
        wrong = held[~np.isfinite(held) | (held < 0) | (held != np.rint(held))]
        if len(wrong) or len(held) > _MOST_CLASSES:
            what = f"holds {wrong[0]:g}" if len(wrong) else f"holds {len(held)} different values"
            raise UserError(f"{mask}: {what}; a mask's classes must be few whole numbers from 0")
        return held

    listed, union = list(masks), {0}
    with progress("reading masks", len(listed)) as advance:
        for held in in_threads(values, listed):
            union.update(int(value) for value in held)
            advance(1)
    numbers = sorted(union - {0})
    if not numbers:
        raise UserError(f"{root}: all {len(listed)} masks are empty, so their classes are not known; name them")
    names = ["foreground"] if len(numbers) == 1 else [f"label_{number}" for number in numbers]
    said = ", ".join(f"{name}: {number}" for name, number in zip(names, numbers, strict=True))
    labels = MaskLabels.create(dict(zip(names, numbers, strict=True)), regions)
    return labels, f"classes found in the masks: {{{said}}}; the option classes gives them names"
