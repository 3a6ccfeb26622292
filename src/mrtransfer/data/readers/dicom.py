"""DICOM images, through pydicom."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder, pixel_array

from mrtransfer.common.errors import UserError
from mrtransfer.data.readers.location import Location

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def read(location: Location, file: Path) -> np.ndarray:
    """Pixels (H, W) or (H, W, 3): rescaled to float32 where the header asks for it, MONOCHROME1 inverted.

    ``#frame=k`` chooses a frame of a multi-frame file, by default the middle one. DICOM PS3.3, C.7.6.3 and C.11.1.
    """
    location.only("frame")
    dataset = open_dataset(file)
    frames = frame_count(dataset)
    frame = location.number("frame", frames // 2)
    if not 0 <= frame < frames:
        raise UserError(f"{location}: there is no frame {frame}; the file has {frames}, counted from 0")
    return decoded(dataset, file, frame)


def decoded(dataset: Dataset, file: Path, frame: int) -> np.ndarray:
    """Pixels of one frame, as :func:`read` gives them; raises :class:`UserError` where there are none to decode."""
    if not any(name in dataset for name in _PIXELS):
        kind = dataset.get("Modality", "")
        raise UserError(f"{file}: holds no pixels{f' (modality {kind})' if kind else ''}; give a DICOM image")
    _check_decoder(dataset, file)
    stored = pixel_array(dataset, index=frame)
    colours = dataset.get("PhotometricInterpretation", "MONOCHROME2")
    if colours == "PALETTE COLOR":
        return apply_color_lut(stored, dataset)
    if colours == "MONOCHROME1" and stored.dtype.kind in "iu":
        bits = int(dataset.BitsStored)
        stored = (-1 if stored.dtype.kind == "i" else 2**bits - 1) - stored
    elif colours == "MONOCHROME1":
        stored = stored.max() + stored.min() - stored
    return _rescaled(stored, dataset, frame)


def meta(location: Location, file: Path) -> dict[str, Any]:
    """Shape, pixel spacing, patient id, and manufacturer with model, where the header has them."""
    dataset = open_dataset(file, stop_before_pixels=True)
    frame = location.number("frame", frame_count(dataset) // 2)
    found: dict[str, Any] = {}
    if "Rows" in dataset and "Columns" in dataset:
        found["shape"] = (int(dataset.Rows), int(dataset.Columns))
    spacing = functional(dataset, frame, "PixelMeasuresSequence").get("PixelSpacing")
    if spacing and all(float(value) > 0 for value in spacing):
        found["spacing"] = (float(spacing[0]), float(spacing[1]))
    if str(dataset.get("PatientID", "")).strip():
        found["subject"] = str(dataset.PatientID).strip()
    names = (str(dataset.get(key, "")).strip() for key in ("Manufacturer", "ManufacturerModelName"))
    if scanner := " ".join(name for name in names if name):
        found["scanner"] = scanner
    return found


def open_dataset(file: Path, stop_before_pixels: bool = False) -> Dataset:
    """The file's attributes; raises :class:`UserError` for a file that is not DICOM."""
    try:
        return pydicom.dcmread(file, stop_before_pixels=stop_before_pixels)
    except InvalidDicomError as error:
        if file.stat().st_size == 0:
            raise
        raise UserError(f"{file}: is not a DICOM file (its DICM mark is missing); replace or remove it") from error


def frame_count(dataset: Dataset) -> int:
    """How many images the file holds."""
    return int(dataset.get("NumberOfFrames", 1) or 1)


def _check_decoder(dataset: Dataset, file: Path) -> None:
    """Say which package decodes a compressed file, where none that is installed can."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed or syntax.is_deflated:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UserError(
            f"{file}: compressed as {syntax.name}, which cannot be decoded; store it uncompressed"
        ) from error
    if not decoder.is_available:
        raise UserError(
            f"{file}: compressed as {syntax.name}, for which no decoder is installed; "
            "install 'pylibjpeg[all]', or store the file uncompressed"
        )


def functional(dataset: Dataset, frame: int, sequence: str) -> Dataset:
    """Where an attribute of one frame stands: in the frame's or the shared functional group, or at the top."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in [*per_frame[frame : frame + 1], *shared[:1]]:
        if group.get(sequence):
            return group[sequence].value[0]
    return dataset


def _rescaled(stored: np.ndarray, dataset: Dataset, frame: int) -> np.ndarray:
    """Stored values to output values; whole numbers stay what they are where nothing is to be done."""
    source = functional(dataset, frame, "PixelValueTransformationSequence")
    slope, intercept = float(source.get("RescaleSlope", 1) or 1), float(source.get("RescaleIntercept", 0) or 0)
    if source is dataset and "ModalityLUTSequence" in dataset:
        return apply_modality_lut(stored, dataset)
    if (slope, intercept) == (1.0, 0.0):
        return stored
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
