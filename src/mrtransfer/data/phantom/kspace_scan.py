"""What defines a k-space volume of the phantom, where its slices lie, and the location that says it.

``phantom:kspace=1&anatomy=knee&subject=3&contrast=pd&coils=8&matrix=256x256&slices=12``
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.data.phantom.acquisition import SCANNERS
from mrtransfer.data.phantom.contrast import CONTRASTS
from mrtransfer.data.phantom.grid import Grid
from mrtransfer.data.phantom.head import head
from mrtransfer.data.phantom.randomness import Stream, generator
from mrtransfer.data.phantom.render import SCHEME, location_options
from mrtransfer.data.phantom.volume_scan import ANATOMIES

FAT_SUPPRESSED = "pdfs"
KSPACE_CONTRASTS = (*CONTRASTS, FAT_SUPPRESSED)


class Part(IntEnum):
    """What of a k-space volume a generator is for."""

    GEOMETRY = 0
    COILS = 1
    PHASE = 2
    TEXTURE = 3
    TIMING = 4
    NOISE = 5


@dataclass(frozen=True)
class Plane:
    """How an anatomy is cut: what rows and columns must show (mm), where slices lie and how thick they are (mm)."""

    extent: tuple[float, float]
    first: float
    last: float
    thick: float


# Position along z (axial, from foot to head), y (coronal, from back to front) or x (sagittal). The head has no neck to
# cut lengthwise.
PLANES: Mapping[str, Mapping[str, Plane]] = MappingProxyType(
    {
        "brain": MappingProxyType({"axial": Plane((198.0, 166.0), -14.0, 58.0, 4.0)}),
        "knee": MappingProxyType(
            {
                "coronal": Plane((140.0, 136.0), -32.0, 30.0, 3.0),
                "axial": Plane((136.0, 134.0), -42.0, 46.0, 3.0),
                "sagittal": Plane((144.0, 140.0), -36.0, 36.0, 3.0),
            }
        ),
    }
)


@dataclass(frozen=True)
class KspaceScan:
    """What defines one k-space volume of the phantom; ``matrix`` is (rows, columns) of k-space.

    Columns are phase encoding. Where ``oversampled``, rows (readout) cover twice the image's field of view, as in the
    files of fastMRI. ``plane`` is by default coronal for the knee and axial for the brain.
    """

    anatomy: str = "brain"
    seed: int = 0
    subject: int = 0
    lesion: str = "no_tumour"
    contrast: str = "t1"
    scanner: str = "a"
    plane: str = ""
    coils: int = 8
    matrix: tuple[int, int] = (128, 128)
    slices: int = 8
    oversampled: bool = False

    def __post_init__(self) -> None:
        """Fill in the plane, and refuse what no phantom has."""
        if self.anatomy not in ANATOMIES:
            raise UserError(f"phantom: {unknown_name('anatomy', self.anatomy, ANATOMIES)}")
        planes = PLANES[self.anatomy]
        if not self.plane:
            object.__setattr__(self, "plane", next(iter(planes)))
        for kind, name, known in (
            ("lesion", self.lesion, ANATOMIES[self.anatomy].lesions),
            ("contrast", self.contrast, KSPACE_CONTRASTS),
            ("scanner", self.scanner, SCANNERS),
            (f"plane of the {self.anatomy}", self.plane, planes),
        ):
            if name not in known:
                raise UserError(f"phantom: {unknown_name(kind, name, known)}")
        for key, value, low, high in (
            ("coils", self.coils, 1, 64),
            ("slices", self.slices, 1, 256),
            ("rows of matrix", self.matrix[0] // (2 if self.oversampled else 1), 32, 512),
            ("columns of matrix", self.matrix[1], 32, 512),
        ):
            if not low <= value <= high:
                raise UserError(f"phantom: {key}: {value}; must be between {low} and {high}")
        if self.oversampled and self.matrix[0] % 2:
            raise UserError(f"phantom: matrix has {self.matrix[0]} rows; oversampled twice, they must be even")
        if self.seed < 0 or self.subject < 0:
            raise UserError(f"phantom: seed {self.seed}, subject {self.subject}; both must be 0 or more")

    @property
    def location(self) -> str:
        """The location that :func:`parse_kspace` reads back."""
        return f"{SCHEME}kspace=1&" + "&".join(
            f"{field.name}={_text(getattr(self, field.name))}" for field in fields(self)
        )

    @property
    def crop(self) -> tuple[int, int]:
        """(rows, columns) of the image, whose pixels are square."""
        return self.matrix[0] // (2 if self.oversampled else 1), self.matrix[1]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance (mm) between rows, columns and slices; the field of view is set for each subject."""
        return self.pixel, self.pixel, self._distance

    @property
    def pixel(self) -> float:
        """Size of a pixel in mm: operators fit the field of view to the patient, with some room."""
        zoom = self.generator(Part.GEOMETRY).uniform(1.03, 1.2)
        if self.anatomy == "brain":
            zoom *= _head_length(self.seed, self.subject) / self._cut.extent[0]
        return round(float(zoom * max(mm / n for mm, n in zip(self._cut.extent, self.crop, strict=True))), 4)

    @property
    def thickness(self) -> float:
        """Of a slice, in mm; where slices are far apart there are gaps between them."""
        return min(self._cut.thick, self._distance)

    @property
    def positions(self) -> tuple[float, ...]:
        """Of the slices' middles, in mm."""
        start = self.generator(Part.GEOMETRY, 1).uniform(0.1, 0.9)
        return tuple(round(float(self._cut.first + (start + n) * self._distance), 3) for n in range(self.slices))

    @property
    def acquisition(self) -> str:
        """What fastMRI would call it: AXT1, AXT2, AXFLAIR, AXT1POST, CORPD_FBK, CORPDFS_FBK; else KN-AXPD_FBK, …"""
        plane = {"axial": "AX", "coronal": "COR", "sagittal": "SAG"}[self.plane]
        if self.anatomy == "knee" and plane != "COR":
            plane = f"KN-{plane}"
        contrast = "T1POST" if self.contrast == "t1ce" else self.contrast.upper()
        return plane + contrast + ("_FBK" if self.anatomy == "knee" else "")

    @property
    def _cut(self) -> Plane:
        return PLANES[self.anatomy][self.plane]

    @property
    def _distance(self) -> float:
        return round((self._cut.last - self._cut.first) / self.slices, 3)

    def grid(self, position: float, points: tuple[int, int, int]) -> Grid:
        """One slice on ``points`` (through it, along rows' axis, along columns' axis); its extent is the matrix's."""
        through, down, across = points
        step = self.thickness / through
        rows, columns = self.pixel * self.matrix[0] / down, self.pixel * self.matrix[1] / across
        if self.plane == "axial":
            return Grid.box((across, down, through), (columns, rows, step), (0, 0, position))
        if self.plane == "coronal":
            return Grid.box((across, through, down), (columns, step, rows), (0, position, 0))
        return Grid.box((through, across, down), (step, columns, rows), (position, 0, 0))

    def as_slices(self, drawn: np.ndarray) -> np.ndarray:
        """What was drawn on :meth:`grid` as (through, rows, columns): rows run from head to foot, or front to back."""
        if self.plane == "axial":
            return drawn
        return np.moveaxis(drawn, 1 if self.plane == "coronal" else 2, 0)[:, ::-1]

    def generator(self, part: Part, *keys: int) -> np.random.Generator:
        """For what differs between subjects and anatomies; ``keys`` are whole numbers from 0."""
        anatomy = list(ANATOMIES).index(self.anatomy)
        return generator(self.seed, Stream.KSPACE, int(part), self.subject, anatomy, *keys)


def _head_length(seed: int, subject: int) -> float:
    """From forehead to back, in mm."""
    body = head(seed, subject)
    return 2 * (body.axes[1] + body.skull + body.fat + 2)


def kspace_location(**values: Any) -> str:
    """The location of the k-space volume with :class:`KspaceScan`'s fields ``values``."""
    return KspaceScan(**values).location


def is_kspace(location: str) -> bool:
    """Whether a phantom's location is k-space, not an image."""
    return dict(location_options(location)).get("kspace", "0") != "0"


def parse_kspace(location: str) -> KspaceScan:
    """The k-space volume that a location names; whatever it leaves out has :class:`KspaceScan`'s default."""
    options = dict(location_options(location))
    options.pop("kspace", None)
    defaults = {field.name: field.default for field in fields(KspaceScan)}
    values: dict[str, Any] = {}
    for key, value in options.items():
        if key not in defaults:
            raise UserError(f"{location}: {unknown_name('key', key, [*defaults, 'kspace'])}")
        values[key] = _typed(location, key, value, defaults[key])
    return KspaceScan(**values)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(str(part) for part in value)
    return str(int(value) if isinstance(value, bool) else value)


def _typed(location: str, key: str, value: str, default: Any) -> Any:
    try:
        if isinstance(default, tuple):
            rows, columns = value.split("x")
            return int(rows), int(columns)
        return bool(int(value)) if isinstance(default, bool) else type(default)(value)
    except ValueError as error:
        right = "rows and columns such as 256x256" if isinstance(default, tuple) else "a whole number"
        raise UserError(f"{location}: {key}={value} is not {right}") from error
