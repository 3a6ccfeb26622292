"""The phantom's k-space as a table: one volume a subject."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets._phantom_volumes import subject_name
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.phantom.kspace_scan import KspaceScan

_SLICES = 8
_CONTRASTS = {"brain": ("t1", "t1ce", "t2", "flair"), "knee": ("pd", "pdfs")}


def default_contrasts(anatomy: str) -> tuple[str, ...]:
    """What fastMRI has of ``anatomy``."""
    return _CONTRASTS[anatomy]


def kspace_volumes(
    chosen: Sequence[tuple[int, str, str]],
    contrasts: tuple[str, ...],
    scanners: tuple[str, ...],
    seed: int,
    anatomy: str,
    slices: int | None,
    options: Mapping[str, Any],
) -> Manifest:
    """The table of ``chosen`` (subject, lesion, scanner); None among ``options`` is :class:`KspaceScan`'s default."""
    given = {key: value for key, value in options.items() if value is not None}
    if "matrix" in given:
        given["matrix"] = _matrix(given["matrix"])
    given["slices"] = _whole("slices", _SLICES if slices is None else slices)
    if "coils" in given:
        _whole("coils", given["coils"])
    rows: list[dict[str, Any]] = []
    for subject, kind, scanner in chosen:
        # Scanners change with each subject, contrasts when all scanners have had one: no scanner has its own contrasts.
        contrast = contrasts[subject // len(scanners) % len(contrasts)]
        scan = KspaceScan(anatomy, seed, subject, kind, contrast, scanner, **given)
        name = subject_name(anatomy, seed, subject)
        rows.append(
            {
                "sample": name,
                "subject": name,
                "image": scan.location,
                "spacing_x": scan.spacing[1],
                "spacing_y": scan.spacing[0],
                "scanner": scanner,
                "spacing_z": scan.spacing[2],
                "acquisition": scan.acquisition,
                "anatomy": anatomy,
                "slices": scan.slices,
                "coils": scan.coils,
                "rows": scan.matrix[0],
                "columns": scan.matrix[1],
                "target": True,
                "contrast": contrast,
                "lesion": kind,
            }
        )
    notes = (f"Rendered, not scanned: {len(rows)} phantom volumes of the {anatomy}'s k-space.",)
    return Manifest.create(pd.DataFrame(rows), Path(), "phantom", (), notes)


def _matrix(value: object) -> tuple[int, int]:
    """One number for both, or rows and columns."""
    both: list[Any] = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * 2
    if len(both) != 2 or any(isinstance(n, bool) or not isinstance(n, int) for n in both):
        raise UserError(f"phantom: matrix is {value!r}; it must be one number or two, as [256, 192] rows and columns")
    return both[0], both[1]


def _whole(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"phantom: {key} is {value!r}; it must be a whole number")
    return value
