"""From what a user types to the images that are meant: files, folders, patterns, volumes."""

from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path

import nibabel as nib

from mrtransfer.common.errors import UserError
from mrtransfer.data.readers import SUFFIXES, read_image_meta, suffix
from mrtransfer.data.readers.location import Location, is_phantom

PATTERN = "*?["
NIFTI = (".nii", ".nii.gz")


def find_images(names: Iterable[str | Path]) -> list[str]:
    """Locations of all images that ``names`` mean, each once, in the order given.

    A folder stands for all images below it, a pattern (``scans/*.png``) for what it matches, a NIfTI volume for all its
    slices along axis 2; ``volume.nii.gz#axis=0&index=70`` is one slice. Raises :class:`UserError` for a name that
    leads to no image.
    """
    return list(dict.fromkeys(location for name in names for location in _expanded(str(name))))


def _expanded(name: str) -> Iterator[str]:
    if is_phantom(name) or Location.parse(name).options:
        yield name
    elif Path(name).is_dir():
        yield from _below(Path(name))
    elif not Path(name).exists() and any(sign in name for sign in PATTERN):
        matched = sorted(glob(name, recursive=True))
        if not matched:
            raise UserError(f"{name}: no file matches this pattern")
        for match in matched:
            yield from _expanded(match)
    else:
        yield from _slices(name)


def _below(folder: Path) -> Iterator[str]:
    """All images below ``folder``: files with a known suffix and, as scanners write them, DICOM files without one."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if suffix(path) in SUFFIXES or (not path.suffix and _is_readable(path))]
    if not images:
        known = ", ".join(SUFFIXES)
        raise UserError(f"{folder}: no image in this folder or below; known: {known}")
    for path in images:
        yield from _slices(str(path))


def _is_readable(path: Path) -> bool:
    try:
        return "shape" in read_image_meta(str(path), Path.cwd())
    except UserError:
        return False


def _slices(name: str) -> Iterator[str]:
    if suffix(name) not in NIFTI:
        yield name
        return
    read_image_meta(name, Path.cwd())  # a damaged or missing file is named here
    volume = nib.load(name)
    for index in range(volume.shape[2]):  # type: ignore[attr-defined]
        yield f"{name}#axis=2&index={index}"
