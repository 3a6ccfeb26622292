"""A user's own files of k-space."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets._common import ignored, is_hidden, visible_files
from mrtransfer.data.datasets._kspace import opened, row, without_targets
from mrtransfer.data.kspace import KspaceVolume
from mrtransfer.data.kspace.ismrmrd_raw import COUNTERS
from mrtransfer.data.kspace.open import SUFFIXES
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.readers.location import Location

EXPECTED = f"a file, folder or pattern of k-space ({', '.join(SUFFIXES)})"
_MAGIC = re.compile(r"[*?\[]")


@DATASETS.register("kspace")
def kspace(
    path: str | Path | None = None,
    *,
    image: bool = False,
    axes: str | None = None,
    choose: Mapping[str, int] | None = None,
    subject: str | None = None,
) -> Manifest:
    """Your own k-space: BART (.cfl), fastMRI's or ISMRMRD's HDF5, NumPy; a file, a folder or a pattern.

    One row a volume. ``image: true`` says that the files hold complex images and not k-space: it is simulated then, as
    one ideal coil would have measured it, and the manifest says so. ``axes`` names the axes of NumPy arrays (s slices,
    c coils, h rows, w columns, as in chw). ``choose`` says which image of raw acquisitions is meant, as
    ``{repetition: 0}``. ``subject`` is a regular expression on a file's name, whose first group is the subject; without
    it a file's header says who it is, or else it is a subject of its own.
    """
    root, files, others = _found(path)
    options = {"image": "true"} if image else {}
    if axes is not None:
        options["axes"] = axes
    for counter, number in (choose or {}).items():
        if counter not in COUNTERS:
            raise unknown_name("key of choose", counter, COUNTERS)
        options[counter] = str(number)
    locations = [str(Location(file.relative_to(root).as_posix(), options)) for file in files]
    volumes = opened(locations, root)
    table = pd.DataFrame([row(*pair) for pair in zip(locations, volumes, strict=True)])
    if subject is not None:
        table["subject"] = [_subject(file, subject) for file in files]
    _name_all(table)
    return Manifest.create(
        table, root, root.resolve().name, (), [*_notes(table, volumes), *ignored(others)], where=path
    )


def _found(path: str | Path | None) -> tuple[Path, list[Path], list[Path]]:
    """The folder that locations are relative to, the files of k-space, and the other files."""
    if path is None:
        raise UserError(f"dataset kspace needs a path: {EXPECTED}")
    whole = Path(path)
    if whole.is_file():
        return whole.parent, [_data(whole)], []
    if whole.is_dir():
        root, there = whole, visible_files(whole)
    else:
        fixed = next((i for i, part in enumerate(whole.parts) if _MAGIC.search(part)), None)
        if fixed is None:
            raise UserError(f"{whole}: no such file or folder; dataset kspace needs {EXPECTED}")
        root, pattern = Path(*whole.parts[:fixed]), "/".join(whole.parts[fixed:])
        there = sorted(file for file in root.glob(pattern) if file.is_file() and not is_hidden(file.name))
    files = [file for file in there if file.suffix.lower() in SUFFIXES]
    if not files:
        raise UserError(f"{whole}: {'; '.join(ignored(there)) or 'nothing is there'}; dataset kspace needs {EXPECTED}")
    return root, files, [file for file in there if file not in files and file.suffix.lower() != ".hdr"]


def _data(file: Path) -> Path:
    """The data of a BART pair whose header was named."""
    return file.with_suffix(".cfl") if file.suffix == ".hdr" else file


def _subject(file: Path, pattern: str) -> str:
    try:
        match = re.search(pattern, file.stem)
    except re.error as error:
        raise UserError(f"subject: {pattern!r} is not a regular expression ({error})") from error
    if match is None:
        raise UserError(f"{file}: its name does not match subject: {pattern!r}; widen the expression")
    return match[1] if match.re.groups else match[0]


def _name_all(table: pd.DataFrame) -> None:
    """Files that differ in their suffix alone are named with it."""
    twice = table["sample"].duplicated(keep=False)
    table.loc[twice, "sample"] = table.loc[twice, "image"].str.replace(r"#.*", "", regex=True)


def _notes(table: pd.DataFrame, volumes: Sequence[KspaceVolume]) -> list[str]:
    simulated = sum(volume.simulated for volume in volumes)
    if not simulated:
        return without_targets(table)
    note = (
        f"{simulated} of {len(volumes)} volumes are simulated, not measured: k-space is the Fourier transform of a "
        "complex image, as one ideal coil of uniform sensitivity would have measured it"
    )
    return [note, *without_targets(table)]
