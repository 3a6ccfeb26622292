"""Where DICOM slices lie, and whether they make up a volume. Nothing that a header lacks is made up."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from mrtransfer.common.errors import UserError
from mrtransfer.data.readers.dicom import functional

# A step between slices may differ from the median step by this part of it, and by what rounded headers differ.
STEP_TOLERANCE = 0.02
ROUNDING = 0.01  # mm
_DIRECTION = 1e-3  # cosines of one series may differ by this
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's patient axes point to the left, to the back and to the head
# What may tell images at one position apart, as the header and as a reader calls it.
_DIFFERENCES = (
    ("TemporalPositionIdentifier", "time point"),
    ("AcquisitionNumber", "acquisition"),
    ("EchoNumbers", "echo"),
    ("EchoTime", "echo time"),
    ("DiffusionBValue", "b-value"),
    ("ImageType", "image type"),
    ("AcquisitionTime", "acquisition time"),
)


@dataclass(frozen=True, eq=False)
class Slice:
    """One image of a series, and where it lies: in DICOM's LPS coordinates, mm (DICOM PS3.3, C.7.6.2.1.1)."""

    file: Path
    frame: int
    header: Dataset
    position: np.ndarray
    """(3,), of the centre of the first pixel."""
    rows: np.ndarray
    """(3,) unit vector along which a row runs: towards higher column numbers."""
    columns: np.ndarray
    """(3,) unit vector along which a column runs: towards higher row numbers."""
    spacing: tuple[float, float]
    """Between rows, between columns."""
    shape: tuple[int, int]
    """(rows, columns)."""

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector out of the slice."""
        return np.cross(self.rows, self.columns)


def slice_of(file: Path, header: Dataset, frame: int) -> Slice:
    """The slice that a header describes; raises :class:`UserError` that names what is missing or impossible."""
    position = _numbers(functional(header, frame, "PlanePositionSequence"), "ImagePositionPatient", 3, file)
    cosines = _numbers(functional(header, frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6, file)
    between_rows, between_columns = _numbers(
        functional(header, frame, "PixelMeasuresSequence"), "PixelSpacing", 2, file
    )
    rows, columns = cosines[:3], cosines[3:]
    products = np.array([rows @ rows - 1, columns @ columns - 1, rows @ columns])
    if np.abs(products).max() > 10 * _DIRECTION:
        raise UserError(f"{file}: its ImageOrientationPatient is not two perpendicular directions of length 1")
    if min(between_rows, between_columns) <= 0:
        raise UserError(f"{file}: its PixelSpacing must be above 0 mm")
    shape = (int(header.Rows), int(header.Columns))
    return Slice(file, frame, header, position, rows, columns, (float(between_rows), float(between_columns)), shape)


def _numbers(dataset: Dataset, name: str, count: int, file: Path) -> np.ndarray:
    value: Any = dataset.get(name)
    if value is None or len(value) != count or not np.isfinite(found := np.array(value, dtype=np.float64)).all():
        raise UserError(f"{file}: has no {name}, without which nobody knows where its slice lies; export it again")
    return found


def in_order(slices: Sequence[Slice], where: str) -> list[Slice]:
    """The slices of one volume, by position along their normal.

    Raises :class:`UserError` that names ``where`` unless all are parallel, of one size, each at a position of its own,
    and evenly spaced: every step between neighbours within 2 % of the median step (and 0.01 mm, for rounding).
    """
    first = slices[0]
    for other in slices[1:]:
        _check_alike(first, other, where)
    if len(slices) < 2:
        raise UserError(f"{where}: holds one image, and a volume needs two or more; give the file itself as a slice")
    ordered = sorted(slices, key=lambda item: float(item.position @ first.normal))
    steps = np.diff([item.position for item in ordered], axis=0)
    gaps = steps @ first.normal
    if gaps.min() <= ROUNDING:
        raise _several_at_one_position(ordered, gaps, where)
    median = float(np.median(gaps))
    allowed = STEP_TOLERANCE * median + ROUNDING
    wrong = np.flatnonzero(np.abs(gaps - median) > allowed)
    if len(wrong):
        at = int(wrong[np.argmax(gaps[wrong])])
        times = gaps[at] / median
        missing = times > 1 and abs(times - round(times)) * median <= allowed
        kind = "slices are missing" if missing else "its slices are uneven"
        raise UserError(
            f"{where}: {kind}: {ordered[at].file.name} and {ordered[at + 1].file.name} are {gaps[at]:.2f} mm apart, "
            f"most of its {len(ordered)} slices {median:.2f} mm; export the whole series again"
        )
    sideways = steps - np.outer(gaps, first.normal)
    if np.abs(sideways - np.median(sideways, axis=0)).max() > allowed:
        raise UserError(
            f"{where}: its slices are shifted against each other in their own plane; export the series again"
        )
    return ordered


def volume_affine(ordered: Sequence[Slice]) -> np.ndarray:
    """(4, 4) from (column, row, slice) to RAS mm, of slices as :func:`in_order` gives them.

    The step between slices is taken from first and last position, never from SliceThickness.
    """
    first = ordered[0]
    step = (ordered[-1].position - first.position) / (len(ordered) - 1)
    return _affine(first.rows * first.spacing[1], first.columns * first.spacing[0], step, first.position)


def slice_affine(item: Slice) -> np.ndarray:
    """(4, 4) from (row, column, 0) to RAS mm. As thick as SliceThickness says, or else 1 mm."""
    measured = functional(item.header, item.frame, "PixelMeasuresSequence")
    thickness = float(measured.get("SliceThickness") or 0) or 1.0
    down, along = item.columns * item.spacing[0], item.rows * item.spacing[1]
    return _affine(down, along, np.cross(item.columns, item.rows) * thickness, item.position)


def _affine(x: np.ndarray, y: np.ndarray, z: np.ndarray, origin: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3] = np.column_stack([x, y, z, origin])
    return _TO_RAS @ affine


def _check_alike(first: Slice, other: Slice, where: str) -> None:
    if other.shape != first.shape:
        sizes = " and ".join(f"{rows} × {columns}" for rows, columns in (first.shape, other.shape))
        problem = f"images of different sizes ({sizes} pixels)"
    elif np.abs(np.concatenate([other.rows - first.rows, other.columns - first.columns])).max() > _DIRECTION:
        problem = "images of different orientation, as a localiser does"
    elif not np.allclose(other.spacing, first.spacing, rtol=_DIRECTION):
        problem = "images of different PixelSpacing"
    else:
        return
    raise UserError(
        f"{where}: holds {problem}, for example {first.file.name} and {other.file.name}; a volume needs parallel "
        "slices of one size"
    )


def _several_at_one_position(ordered: Sequence[Slice], gaps: np.ndarray, where: str) -> UserError:
    at = int(np.argmin(gaps))
    pair = (ordered[at].header, ordered[at + 1].header)
    differing = [words for name, words in _DIFFERENCES if pair[0].get(name) != pair[1].get(name)]
    hint = f", which differ in {differing[0]}" if differing else ""
    same = int((gaps <= ROUNDING).sum())
    return UserError(
        f"{where}: {same + 1 if same == len(gaps) else 'several'} images lie at one position, for example "
        f"{ordered[at].file.name} and {ordered[at + 1].file.name}{hint}; export one image per position as a series"
    )
