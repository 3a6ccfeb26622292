"""The fastMRI dataset: folders of HDF5 files with k-space."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets._common import SPLIT_NAMES, existing_folder, ignored, visible_files
from mrtransfer.data.datasets._kspace import anatomy_of, opened, row, without_targets
from mrtransfer.data.kspace import KspaceVolume, needs_coils
from mrtransfer.data.kspace.open import HDF5
from mrtransfer.data.manifest import Manifest

EXPECTED = "fastMRI's folders (multicoil_train, multicoil_val, …) or its .h5 files"
COILS = {"multi": "multicoil", "single": "singlecoil"}
ANATOMIES = ("brain", "knee")
_SPLITS = {**SPLIT_NAMES, "challenge": "test"}
_FOLDER = re.compile(r"(?:^|_)(multicoil|singlecoil)_(train|val|test|challenge)(?:$|_)")


@DATASETS.register("fastmri")
def fastmri(
    path: str | Path | None = None,
    *,
    coils: str = "multi",
    acquisition: str | Sequence[str] | None = None,
    anatomy: str | None = None,
    targets: bool = False,
) -> Manifest:
    """FastMRI knee or brain k-space: multicoil_train, multicoil_val, … or any folder of such .h5 files.

    One row a volume. ``coils`` is multi or single. ``acquisition`` keeps only those named, one or several of
    CORPD_FBK, CORPDFS_FBK (knee), AXT1, AXT1PRE, AXT1POST, AXT2, AXFLAIR (brain); ``anatomy`` only knee or brain.
    With ``targets: true`` undersampled volumes without reconstructed images (the test and challenge files) are left
    out. The published split is in the folders' names, the subject in the files (``patient_id``); a volume that does not
    say is a subject of its own. Your own files, written in the same layout, need not say any of it.
    """
    root = existing_folder("fastmri", path, EXPECTED)
    if coils not in COILS:
        raise unknown_name("value of coils", coils, COILS)
    if anatomy is not None and anatomy not in ANATOMIES:
        raise unknown_name("anatomy", anatomy, ANATOMIES)
    files = visible_files(root)
    found = [file for file in files if file.suffix.lower() in HDF5]
    of_kind = [file for file in found if _kind(file, root) in (None, COILS[coils])]
    if not of_kind:
        there = f"{len(found)} of other folders" if found else "; ".join(ignored(files)) or "it is empty"
        raise UserError(f"{root}: holds no {COILS[coils]} .h5 files ({there}); dataset fastmri needs {EXPECTED}")
    locations = [file.relative_to(root).as_posix() for file in of_kind]
    volumes = opened(locations, root)
    needs_coils(volumes, many=coils == "multi")
    table = pd.DataFrame([_row(*pair, root) for pair in zip(locations, volumes, strict=True)])
    table, notes = _chosen(table, root, acquisition, anatomy, targets)
    others = [file for file in files if file not in found]
    return Manifest.create(table, root, "fastmri", (), [*notes, *_counts(table), *ignored(others)], where=root)


def _parts(file: Path, root: Path) -> list[str]:
    """The names of the folders that ``file`` lies in, from ``root``'s own on, in lower case."""
    return [root.resolve().name.lower(), *(part.lower() for part in file.relative_to(root).parent.parts)]


def _kind(file: Path, root: Path) -> str | None:
    """multicoil or singlecoil, where a folder's name says so."""
    marks = [mark[1] for part in _parts(file, root) if (mark := _FOLDER.search(part))]
    return marks[-1] if marks else None


def _row(location: str, volume: KspaceVolume, root: Path) -> dict[str, Any]:
    parts = _parts(root / location, root)
    named = [mark[2] if (mark := _FOLDER.search(part)) else part for part in parts[1:]]
    splits = [_SPLITS[name] for name in named if name in _SPLITS]
    shown = anatomy_of(volume.acquisition) or next((a for a in ANATOMIES for part in parts if a in part), None)
    return {**row(location, volume), "split": splits[-1] if splits else None, "anatomy": shown}


def _chosen(
    table: pd.DataFrame, root: Path, acquisition: str | Sequence[str] | None, anatomy: str | None, targets: bool
) -> tuple[pd.DataFrame, list[str]]:
    """The rows that the options ask for, and notes on the others."""
    notes: list[str] = []
    if acquisition is not None:
        wanted = [acquisition] if isinstance(acquisition, str) else list(acquisition)
        known = sorted(table["acquisition"].dropna().unique())
        for name in wanted:
            if name not in known:
                raise UserError(f"{root}: {unknown_name('acquisition', name, known)}")
        table = _kept(table, table["acquisition"].isin(wanted), f"another acquisition than {', '.join(wanted)}", notes)
    if anatomy is not None:
        table = _kept(table, table["anatomy"] == anatomy, f"not known to show a {anatomy}", notes)
    if targets:
        table = _kept(table, table["target"], "undersampled, without reconstructed images", notes)
    if table.empty:
        raise UserError(f"{root}: no volume is left ({'; '.join(notes)}); choose other options")
    return table, notes


def _kept(table: pd.DataFrame, keep: pd.Series, why: str, notes: list[str]) -> pd.DataFrame:
    if not keep.all():
        notes.append(f"left out: {int((~keep).sum())} volumes ({why})")
    return table[keep]


def _counts(table: pd.DataFrame) -> list[str]:
    counts = Counter(table["acquisition"].dropna())
    named = ", ".join(f"{n} × {name}" for name, n in sorted(counts.items()))
    return [*([f"acquisitions: {named}"] if counts else []), *without_targets(table)]
