"""The built-in phantom as a dataset: rendered when read, nothing to download."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets._phantom_kspace import default_contrasts, kspace_volumes
from mrtransfer.data.datasets._phantom_volumes import number, subject_name, volumes
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.phantom.acquisition import SCANNERS
from mrtransfer.data.phantom.contrast import CONTRASTS
from mrtransfer.data.phantom.head import head
from mrtransfer.data.phantom.kspace_scan import KSPACE_CONTRASTS
from mrtransfer.data.phantom.randomness import Stream, generator
from mrtransfer.data.phantom.render import Scan, mask_of
from mrtransfer.data.phantom.render import spacing as spacing_of
from mrtransfer.data.phantom.tumours import CLASSES, lesion
from mrtransfer.data.phantom.volume_scan import ANATOMIES

TASKS = ("types", "detection", "segmentation", "reconstruction")
DETECTION_CLASSES = ("no_tumour", "tumour")
_TUMOURS = tuple(kind for kind in CLASSES if kind != "no_tumour")
_BRAIN_HEIGHTS = (-42.0, 68.0)  # mm, the slices of a whole scan
_SHOWN = 0.4  # slices of task 'types' lie within this part of the tumour's height


@DATASETS.register("phantom")
def phantom(
    path: str | Path | None = None,
    *,
    subjects: int = 60,
    slices: int | None = None,
    contrast: str | Sequence[str] | None = None,
    scanner: str | Sequence[str] = "a",
    task: str = "types",
    lesions: Sequence[str] | None = None,
    anatomy: str = "brain",
    size: int | Sequence[int] | None = None,
    spacing: float | Sequence[float] | None = None,
    extracted: bool | None = None,
    coils: int | None = None,
    matrix: int | Sequence[int] | None = None,
    plane: str | None = None,
    oversampled: bool | None = None,
    seed: int = 0,
    first_subject: int = 0,
) -> Manifest:
    """Rendered brain slices, volumes with tumours or k-space, by the signal equations of MR; needs no files.

    Task ``types``: every subject has one of ``lesions`` (by default glioma, meningioma, pituitary, no_tumour; as many
    subjects of each), all ``slices`` show it, and it is the label. Task ``detection``: every subject has a tumour (by
    default a glioma), ``slices`` cover the whole brain, and the label says whether a slice shows tumour.

    Task ``segmentation``: one volume a subject (or, with ``slices``, as many slices of the brain, each with a mask).
    ``anatomy`` is brain (by default with gliomas) or knee (with bone sarcomas). The masks' classes are necrosis (with
    the core that does not enhance, as in BraTS), oedema and enhancing. ``spacing`` is in mm, one number or [x, y, z],
    by default 3; ``size`` in voxels, likewise, by default what shows the whole anatomy. ``extracted`` sets all outside
    the brain to 0, which is the default for brains, as in BraTS.

    Task ``reconstruction``: fully sampled k-space, one volume of 8 ``slices`` a subject, of ``anatomy`` brain or knee.
    ``coils`` are by default 8; ``matrix`` is the size of k-space, one number or [rows, columns], by default 128;
    ``oversampled``: its rows cover twice the image, as in fastMRI's files. ``plane`` of a knee is coronal (the
    default), axial or sagittal. The contrast ``pdfs`` is pd with fat suppressed; a list of contrasts is dealt out over
    the subjects, by default all that fastMRI has of the anatomy; so are ``lesions``, by default all of the anatomy's.

    ``contrast`` is t1, t1ce (the default), t2, flair or pd; a list makes one channel of each. ``scanner`` is a, b or c;
    a list is dealt out over the subjects. Subjects are numbered from ``first_subject``: cohorts of one ``seed`` whose
    numbers do not overlap are different people, and the same number is the same head in every contrast and on every
    scanner. The ``size`` of slices is in pixels over 236 mm, by default 128; they have 4 ``slices`` by default.
    """
    if path is not None:
        raise UserError(f"phantom: path is {str(path)!r}, but the phantom reads no files; leave path out")
    if task not in TASKS:
        raise UserError(f"phantom: {unknown_name('task', task, TASKS)}")
    if anatomy not in ANATOMIES:
        raise UserError(f"phantom: {unknown_name('anatomy', anatomy, ANATOMIES)}")
    for name, value, least in (
        ("subjects", subjects, 1),
        ("slices", slices, 1),
        ("first_subject", first_subject, 0),
        ("seed", seed, 0),
    ):
        if value is not None and value < least:
            raise UserError(f"phantom: {name} is {value}; it must be {least} or more")
    kspace = {"coils": coils, "matrix": matrix, "plane": plane, "oversampled": oversampled}
    pixels = {"size": size, "spacing": spacing, "extracted": extracted}
    _refuse_options(task, pixels if task == "reconstruction" else kspace)
    contrasts, scanners = _contrasts(task, anatomy, contrast), _names("scanner", scanner, tuple(SCANNERS))
    wanted = _lesions(task, anatomy, lesions)
    chosen = [
        (subject, lesion_of(seed, subject, wanted), scanners[subject % len(scanners)])
        for subject in range(first_subject, first_subject + subjects)
    ]
    if task == "reconstruction":
        return kspace_volumes(chosen, contrasts, scanners, seed, anatomy, slices, kspace)
    alone = contrast is None or isinstance(contrast, str)
    if task == "segmentation" and slices is None:
        return volumes(chosen, contrasts, alone, seed, anatomy, spacing, size, extracted)
    if anatomy != "brain" or spacing is not None or extracted is not None:
        key = "anatomy" if anatomy != "brain" else "spacing" if spacing is not None else "extracted"
        raise UserError(f"phantom: {key} is for volumes, which are of task: segmentation, without slices")
    side, count = number("size", 128 if size is None else size), 4 if slices is None else slices
    rows: list[dict[str, Any]] = []
    for subject, kind, machine in chosen:
        for index, z in enumerate(_heights(seed, subject, kind if task == "types" else None, count)):
            scan = Scan(seed, subject, kind, z, contrasts[0], machine, side)
            rows.append(_row(scan, index, contrasts, alone, task))
    classes = wanted if task == "types" else DETECTION_CLASSES
    notes = (f"Rendered, not scanned: {subjects} phantom subjects, slices of each: {count}.",)
    return Manifest.create(pd.DataFrame(rows), Path(), "phantom", classes, notes, mask_labels=MaskLabels.binary())


def _refuse_options(task: str, given: Mapping[str, object]) -> None:
    for key, value in given.items():
        if value is not None:
            other = "all tasks but reconstruction" if task == "reconstruction" else "task: reconstruction"
            raise UserError(f"phantom: {key} is for {other}, and task is {task}; leave it out")


def _contrasts(task: str, anatomy: str, contrast: str | Sequence[str] | None) -> tuple[str, ...]:
    if task == "reconstruction":
        return _names("contrast", default_contrasts(anatomy) if contrast is None else contrast, KSPACE_CONTRASTS)
    return _names("contrast", "t1ce" if contrast is None else contrast, CONTRASTS)


def _lesions(task: str, anatomy: str, lesions: Sequence[str] | None) -> tuple[str, ...]:
    """The lesions that subjects may have, by default those that the task is about."""
    possible = {"types": CLASSES, "detection": _TUMOURS}.get(task, ANATOMIES[anatomy].lesions)
    default = {"types": CLASSES, "reconstruction": possible}.get(task, ANATOMIES[anatomy].lesions[:1])
    wanted = _names("lesion", lesions or default, possible)
    if task == "types" and len(wanted) < 2:
        raise UserError(f"phantom: lesions names only {wanted[0]}; classifying types needs two or more")
    return wanted


def lesion_of(seed: int, subject: int, kinds: Sequence[str]) -> str:
    """The class of a subject: each run of ``len(kinds)`` subjects has every class once, in random order."""
    block, place = divmod(subject, len(kinds))
    return kinds[int(generator(seed, Stream.CLASS, block).permutation(len(kinds))[place])]


def _names(what: str, value: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if not names:
        raise UserError(f"phantom: {what} is empty; give one or more of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise UserError(f"phantom: {unknown_name(what, str(name), known)}")
    if len(set(names)) < len(names):
        raise UserError(f"phantom: {what} names {', '.join(names)}; each may be there once")
    return names


def _heights(seed: int, subject: int, kind: str | None, slices: int) -> list[float]:
    """Slice positions (mm) from foot to head, through the tumour, or through the whole brain where ``kind`` is None.

    A subject without tumour is cut where some tumour would have been: a slice's height must not give its class away.
    """
    draw = generator(seed, Stream.SLICES, subject)
    if kind is None:
        return _spread(draw, *_BRAIN_HEIGHTS, slices)
    decoy = str(draw.choice(_TUMOURS))
    shown = lesion(seed, subject, decoy if kind == "no_tumour" else kind)
    assert shown is not None
    low, high = shown.heights(head(seed, subject))
    middle, half = (low + high) / 2, _SHOWN * (high - low) / 2
    return _spread(draw, middle - half, middle + half, slices)


def _spread(draw: np.random.Generator, low: float, high: float, n: int) -> list[float]:
    """One position in each of n equal parts, to a hundredth of a millimetre, as a location writes it."""
    return [round(float(low + (high - low) * (i + draw.uniform()) / n), 2) for i in range(n)]


def _row(scan: Scan, index: int, contrasts: tuple[str, ...], alone: bool, task: str) -> dict[str, Any]:
    name = subject_name("brain", scan.seed, scan.subject)
    tumour = scan.lesion != "no_tumour" and (task == "types" or bool(mask_of(scan).any()))
    masked = tumour or task == "segmentation"
    row: dict[str, Any] = {
        "sample": f"{name}-{index:02d}",
        "subject": name,
        "label": scan.lesion if task == "types" else DETECTION_CLASSES[tumour],
        "mask": scan.location if masked else pd.NA,
        "spacing_x": spacing_of(scan.size),
        "spacing_y": spacing_of(scan.size),
        "scanner": scan.scanner,
        "slice": index,
        "z": scan.z,
    }
    for contrast in contrasts:
        row["image" if alone else f"image:{contrast}"] = Scan(**{**vars(scan), "contrast": contrast}).location
    return row
