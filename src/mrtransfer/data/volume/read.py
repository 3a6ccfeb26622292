"""From a location to a volume, whatever holds it: NIfTI, a DICOM series, a picture, the phantom."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.readers import SUFFIXES, has_dicom_mark, read_image, read_image_meta, reading, suffix
from mrtransfer.data.readers.location import Location, is_phantom
from mrtransfer.data.volume.nifti import read_nifti
from mrtransfer.data.volume.series import read_frames, read_series, single_affine
from mrtransfer.data.volume.volume import Volume


@dataclass(frozen=True, eq=False)
class Planes:
    """What a location holds: one volume, or the colours of a picture."""

    data: np.ndarray
    """(C, X, Y, Z) in the file's own type; C is 1, or 3 for a colour picture."""
    affine: np.ndarray
    placed: bool
    """Whether the file says where it lies; a picture does not, and its affine is its pixel size at most."""


def read_volume(location: str, root: str | Path) -> Volume:
    """The volume at ``location``, in the file's own type; a relative path is relative to ``root``.

    * NIfTI: (X, Y, Z); ``#volume=k`` chooses one of a file that holds several; ``#axis=2&index=70`` is one slice
    * a folder of DICOM files: (columns, rows, slices) of its one series, or of ``#series=<UID>``; a multi-frame file
    * a picture, MATLAB file or single DICOM image: (rows, columns, 1), placed where the header says
    * ``phantom:…``: (rows, columns, 1), or with ``volume=1`` a rendered volume

    Raises :class:`UserError` that names the file where it is missing, damaged, or no single volume.
    """
    planes = read_planes(location, root)
    if (planes.data[1:] != planes.data[:1]).any():
        raise UserError(f"{location}: is a colour image; one grey image is needed here")
    return Volume(planes.data[0], planes.affine)


def read_planes(location: str, root: str | Path) -> Planes:
    """What :func:`read_volume` reads, with the colours of a picture as channels."""
    if is_phantom(location):
        return _phantom(location, root)
    parsed = Location.parse(location)
    file = parsed.file(Path(root))
    if file.is_dir():
        volume: Volume | None = read_series(parsed, file)
    else:
        with reading(file):
            volume = _volume(parsed, file)
    if volume is not None:
        return Planes(volume.data[None], volume.affine, placed=True)
    return _picture(location, parsed, file, Path(root))


def _volume(parsed: Location, file: Path) -> Volume | None:
    """The volume in a file; None where it holds a single image."""
    kind = SUFFIXES.get(suffix(file))
    if kind == "nifti" and not {"axis", "index"} & set(parsed.options):
        return read_nifti(parsed, file)
    if kind == "dicom" or (kind is None and has_dicom_mark(file)):
        return read_frames(parsed, file)
    return None


def _picture(location: str, parsed: Location, file: Path, root: Path) -> Planes:
    image = read_image(location, root)
    kind = SUFFIXES.get(suffix(file), "dicom")
    if image.ndim == 3 and not (kind == "raster" and image.shape[2] == 3):
        raise UserError(
            f"{location}: holds an array of {' × '.join(map(str, image.shape))}, of which nobody knows the geometry; "
            "give a grey image, or store the volume as NIfTI"
        )
    data = image[None, ..., None] if image.ndim == 2 else np.moveaxis(image, -1, 0)[..., None]
    affine = single_affine(parsed, file) if kind == "dicom" else None
    if affine is not None:
        return Planes(data, affine, placed=True)
    rows, columns = read_image_meta(location, root).get("spacing", (1.0, 1.0))
    return Planes(data, np.diag([rows, columns, 1.0, 1.0]), placed=False)


def is_phantom_volume(location: str) -> bool:
    """Whether the location is a rendered volume and not a slice."""
    if not is_phantom(location):
        return False
    from mrtransfer.data.phantom.volume_scan import is_volume

    return is_volume(location)


def _phantom(location: str, root: str | Path) -> Planes:
    if is_phantom_volume(location):
        from mrtransfer.data.phantom.volume import render_volume

        data, affine = render_volume(location)
        return Planes(data[None], affine, placed=True)
    from mrtransfer.data.phantom.render import parse

    pixel = parse(location).grid.pixel
    return Planes(read_image(location, root)[None, ..., None], np.diag([pixel, pixel, 1.0, 1.0]), placed=False)
