"""Readers: from a location to pixels, one file per format.

A reader is a module with ``read(location, file)`` → array (H, W) or (H, W, C) in the file's own values, and
``meta(location, file)`` → what the header says without decoding the pixels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.readers.location import Location, is_phantom

SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"), "raster"),
    **dict.fromkeys((".dcm", ".dicom", ".ima"), "dicom"),
    **dict.fromkeys((".nii", ".nii.gz"), "nifti"),
    ".mat": "matlab",
}
_LOSSY = (".jpg", ".jpeg")


def suffix(path: str | Path) -> str:
    """The suffix in lower case, of which ``.nii.gz`` is one."""
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def read_image(location: str, root: str | Path) -> np.ndarray:
    """The image at ``location``, (H, W) or (H, W, C), in the file's own type: uint8, uint16, int16, float32, …

    A relative path is relative to ``root``. Rescale slopes are applied (then float32), alpha and palettes resolved.
    Raises :class:`UserError` that names the file where it is missing, damaged or not what its name says.
    """
    if is_phantom(location):
        from mrtransfer.data.phantom.render import render

        return render(location)
    reader, parsed, file = _reader(location, Path(root))
    with reading(file):
        image = reader.read(parsed, file)
    if image.ndim not in (2, 3) or image.size == 0:
        raise UserError(f"{location}: its pixels have shape {image.shape}; an image (rows, columns) is needed")
    return image


def read_mask(location: str, root: str | Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The mask at ``location`` as bool (H, W): True where any channel is above 0 (in a JPEG, above half of white).

    With ``shape``, the shape of the image it belongs to, a mask of another size raises :class:`UserError`.
    """
    if is_phantom(location):
        from mrtransfer.data.phantom.render import render_mask

        mask = render_mask(location)
    else:
        values = read_image(location, root)
        mask = np.asarray(values > (127 if suffix(Location.parse(location).path) in _LOSSY else 0))
        if mask.ndim == 3:
            mask = np.asarray(mask.any(axis=-1))
    if shape is not None and mask.shape != tuple(shape[:2]):
        given, needed = " × ".join(map(str, mask.shape)), " × ".join(map(str, shape[:2]))
        raise UserError(f"{location}: the mask has {given} pixels and its image {needed}; both must have the same size")
    return mask


def read_image_meta(location: str, root: str | Path) -> dict[str, Any]:
    """What the header says, without decoding pixels; a key is absent where the file does not say.

    ``shape`` (H, W) · ``spacing`` (between rows, between columns; mm) · ``subject`` · ``scanner``.
    """
    if is_phantom(location):
        return {}
    reader, parsed, file = _reader(location, Path(root))
    with reading(file):
        found: dict[str, Any] = reader.meta(parsed, file)
    return found


def _reader(location: str, root: Path) -> tuple[ModuleType, Location, Path]:
    parsed = Location.parse(location)
    file = parsed.file(root)
    name = SUFFIXES.get(suffix(parsed.path))
    if name is None and has_dicom_mark(file):  # scanners often export DICOM files without a suffix
        name = "dicom"
    if name is None:
        known = ", ".join(SUFFIXES)
        raise UserError(f"{file}: {'unknown kind of image' if file.exists() else 'no such file'}; known: {known}")
    return import_module(f"{__name__}.{name}"), parsed, file


def has_dicom_mark(file: Path) -> bool:
    """Whether the file starts as DICOM files do, whatever its name."""
    try:
        with open(file, "rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """One sentence that names ``file`` for whatever a decoder throws at damaged bytes, which is any exception."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file") from error
    except PermissionError as error:
        raise UserError(f"{file}: no permission to read it") from error
    except Exception as error:
        if file.is_dir():
            raise UserError(f"{file}: is a folder, not an image") from error
        if file.is_file() and file.stat().st_size == 0:
            raise UserError(f"{file}: the file is empty (0 bytes); copy it again") from error
        said = " ".join(str(error).replace(f"{str(file)!r}", "the file").split()).rstrip(".") or type(error).__name__
        raise UserError(f"{file}: damaged, or not {_kind(file)} at all ({said}); replace or remove it") from error


def _kind(file: Path) -> str:
    kinds = {"raster": f"a {suffix(file)[1:].upper()} image", "nifti": "a NIfTI file", "matlab": "a MATLAB file"}
    return kinds.get(SUFFIXES.get(suffix(file), ""), "a DICOM file")
