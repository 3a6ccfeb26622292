"""The phantom's volumes as a table: one row a subject."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mrtransfer.common.errors import UserError
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.phantom.volume import LABELS
from mrtransfer.data.phantom.volume_scan import ANATOMIES, MASK, VolumeScan

_SPACING = 3.0  # mm


def subject_name(anatomy: str, seed: int, subject: int) -> str:
    """The subject's id; subjects of different seeds and anatomies are different people and get different ids."""
    part = "" if anatomy == "brain" else f"{anatomy}-"
    return f"phantom-{part}{subject:04d}" if seed == 0 else f"phantom-{part}s{seed}-{subject:04d}"


def volumes(
    chosen: Sequence[tuple[int, str, str]],
    contrasts: tuple[str, ...],
    alone: bool,
    seed: int,
    anatomy: str,
    spacing: float | Sequence[float] | None,
    size: int | Sequence[int] | None,
    extracted: bool | None,
) -> Manifest:
    """The table of ``chosen`` (subject, lesion, scanner); ``alone``: one contrast, whose column is ``image``."""
    step = _three("spacing", _SPACING if spacing is None else spacing, float)
    extent = ANATOMIES[anatomy].extent
    whole = [round(length / mm) for length, mm in zip(extent, step, strict=True)] if min(step) > 0 else (1, 1, 1)
    voxels = _three("size", whole if size is None else size, int)
    inside = anatomy == "brain" if extracted is None else extracted
    rows: list[dict[str, Any]] = []
    for subject, kind, scanner in chosen:
        scan = VolumeScan(anatomy, seed, subject, kind, contrasts[0], scanner, step, voxels, inside)
        name = subject_name(anatomy, seed, subject)
        row: dict[str, Any] = {
            "sample": name,
            "subject": name,
            "mask": replace(scan, contrast=MASK, scanner="a", extracted=False).location,
            "spacing_x": step[0],
            "spacing_y": step[1],
            "scanner": scanner,
            "spacing_z": step[2],
            "anatomy": anatomy,
            "lesion": kind,
        }
        for contrast in contrasts:
            row["image" if alone else f"image:{contrast}"] = replace(scan, contrast=contrast).location
        rows.append(row)
    notes = (f"Rendered, not scanned: {len(rows)} phantom volumes of the {anatomy}.",)
    return Manifest.create(pd.DataFrame(rows), Path(), "phantom", (), notes, mask_labels=LABELS)


def number(key: str, value: object) -> int:
    """A whole number; raises :class:`UserError` that names ``key`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"phantom: {key} is {value!r}; slices take one whole number of pixels")
    return value


def _three(key: str, value: object, kind: type) -> Any:
    """One number for all axes, or one for each of x, y and z."""
    given = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * 3
    if len(given) != 3 or any(isinstance(v, bool) or not isinstance(v, int | kind) for v in given):
        raise UserError(f"phantom: {key} is {value!r}; it must be one number or three, as [3, 3, 5] for x, y and z")
    return tuple(kind(v) for v in given)
