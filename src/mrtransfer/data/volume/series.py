"""DICOM series as volumes: a folder with a file per slice, or one file with many frames."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from mrtransfer.common.errors import UserError
from mrtransfer.data.readers import SUFFIXES, has_dicom_mark, reading, suffix
from mrtransfer.data.readers.dicom import decoded, frame_count, open_dataset
from mrtransfer.data.readers.location import Location
from mrtransfer.data.volume.geometry import Slice, in_order, slice_affine, slice_of, volume_affine
from mrtransfer.data.volume.volume import Volume

_NAMED = 4  # series that an error names; the others are counted


def read_series(location: Location, folder: Path) -> Volume:
    """The volume (columns, rows, slices) of one DICOM series in ``folder``; ``#series=<UID>`` chooses among several.

    Slices are sorted by position along their normal, rescaled to output values (then float32), and placed by the
    headers alone: see :func:`~mrtransfer.data.volume.geometry.in_order` for what is refused. Files that are not DICOM,
    and those without an image such as DICOMDIR and reports, are passed over.
    """
    location.only("series")
    series = _images_by_series(folder)
    if not series:
        inside = [child.name for child in sorted(folder.iterdir()) if child.is_dir()]
        hint = (
            f"its folders are {', '.join(inside[:_NAMED])}: give one of them" if inside else "give the series' folder"
        )
        raise UserError(f"{folder}: holds no DICOM images; {hint}")
    wanted = location.options.get("series")
    if wanted is None and len(series) > 1:
        raise UserError(
            f"{folder}: holds {len(series)} series where one is needed; choose one with #series=UID: {_listed(series)}"
        )
    if wanted is not None and wanted not in series:
        raise UserError(f"{location}: the folder holds no such series; it has {_listed(series)}")
    images = series[wanted] if wanted is not None else next(iter(series.values()))
    return _volume(images, str(location))


def read_frames(location: Location, file: Path) -> Volume | None:
    """The volume (columns, rows, frames) of a multi-frame file, placed by its functional groups; None for one image."""
    header = open_dataset(file, stop_before_pixels=True)
    if "frame" in location.options or frame_count(header) < 2:
        return None
    location.only("frame")
    return _volume([(file, header)], str(location))


def single_affine(location: Location, file: Path) -> np.ndarray | None:
    """(4, 4) from (row, column, 0) to RAS mm of a single image; None where its header does not say where it lies."""
    header = open_dataset(file, stop_before_pixels=True)
    try:
        return slice_affine(slice_of(file, header, location.number("frame", 0)))
    except UserError:
        return None


def _images_by_series(folder: Path) -> dict[str, list[tuple[Path, Dataset]]]:
    """Files with images and their headers, by SeriesInstanceUID, in the order of names."""
    found: dict[str, list[tuple[Path, Dataset]]] = {}
    with reading(folder):
        files = sorted(folder.iterdir())
    for file in files:
        if file.name.startswith(".") or not file.is_file():
            continue
        if file.stat().st_size == 0:
            raise UserError(f"{file}: the file is empty (0 bytes); copy it again, or remove it")
        if SUFFIXES.get(suffix(file)) != "dicom" and not has_dicom_mark(file):
            continue
        with reading(file):
            header = open_dataset(file, stop_before_pixels=True)
        if "Rows" in header and "Columns" in header:
            found.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((file, header))
    return found


def _listed(series: dict[str, list[tuple[Path, Dataset]]]) -> str:
    named = []
    for uid, images in list(series.items())[:_NAMED]:
        description = str(images[0][1].get("SeriesDescription", "")).strip() or "no description"
        named.append(f"{uid or 'no UID'} ({description}, {len(images)} files)")
    return ", ".join(named) + (f", … ({len(series)} in all)" if len(series) > _NAMED else "")


def _volume(images: Sequence[tuple[Path, Dataset]], where: str) -> Volume:
    slices = []
    for file, header in images:
        with reading(file):
            _check_image(file, header)
            slices += [slice_of(file, header, frame) for frame in range(frame_count(header))]
    ordered = in_order(slices, where)
    return Volume(_stacked(ordered).transpose(2, 1, 0), volume_affine(ordered))


def _check_image(file: Path, header: Dataset) -> None:
    if header.get("SOPClassUID") == SegmentationStorage:
        raise UserError(f"{file}: is a DICOM segmentation; convert it to NIfTI to use it as a mask")
    if "MOSAIC" in (header.get("ImageType") or []):
        raise UserError(f"{file}: is a mosaic, with all slices in one picture; convert it to NIfTI (dcm2niix does)")
    if int(header.get("SamplesPerPixel", 1)) != 1 or header.get("PhotometricInterpretation") == "PALETTE COLOR":
        raise UserError(f"{file}: is a colour image; a volume needs grey slices")


def _stacked(ordered: Sequence[Slice]) -> np.ndarray:
    """(slices, rows, columns); each slice with its own rescale slope and intercept, as some scanners write them."""
    planes: list[np.ndarray] = []
    opened: tuple[Path, Dataset] | None = None
    for item in ordered:
        with reading(item.file):
            if opened is None or opened[0] != item.file:
                opened = (item.file, open_dataset(item.file))
            planes.append(decoded(opened[1], item.file, item.frame))
    stacked = np.stack(planes)
    return stacked.astype(np.float32, copy=False) if stacked.dtype.kind == "f" else stacked
