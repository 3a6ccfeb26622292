"""What defines a volume of the phantom, and the location that says it.

``phantom:volume=1&anatomy=brain&subject=3&lesion=glioma&contrast=flair&spacing=3x3x3&size=64x72x44``
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.data.phantom.acquisition import SCANNERS
from mrtransfer.data.phantom.anatomy import Labels
from mrtransfer.data.phantom.contrast import CONTRASTS
from mrtransfer.data.phantom.grid import Floats, Grid
from mrtransfer.data.phantom.knee import LESIONS as KNEE_LESIONS
from mrtransfer.data.phantom.knee import knee_labels
from mrtransfer.data.phantom.render import SCHEME, head_labels, location_options
from mrtransfer.data.phantom.tumours import CLASSES as BRAIN_LESIONS

MASK = "mask"


@dataclass(frozen=True)
class Anatomy:
    """A part of the body: the lesions it may have, the box (mm) that shows it, and its tissues on any grid.

    ``draw(seed, subject, lesion, grid)`` gives labels without the tumour, labels with it, and the grain.
    """

    lesions: tuple[str, ...]
    extent: tuple[float, float, float]
    centre: tuple[float, float, float]
    draw: Callable[[int, int, str, Grid], tuple[Labels, Labels, Floats]]


ANATOMIES: Mapping[str, Anatomy] = MappingProxyType(
    {
        "brain": Anatomy(BRAIN_LESIONS, (192.0, 216.0, 132.0), (0.0, -1.0, 17.0), head_labels),
        "knee": Anatomy(KNEE_LESIONS, (156.0, 168.0, 132.0), (0.0, 0.0, 0.0), knee_labels),
    }
)


@dataclass(frozen=True)
class VolumeScan:
    """What defines one volume of the phantom; ``size`` is in voxels and ``spacing`` in mm, both along x, y and z."""

    anatomy: str = "brain"
    seed: int = 0
    subject: int = 0
    lesion: str = "no_tumour"
    contrast: str = "t1ce"
    scanner: str = "a"
    spacing: tuple[float, float, float] = (3.0, 3.0, 3.0)
    size: tuple[int, int, int] = (64, 72, 44)
    extracted: bool = False  # 0 outside the brain, as after brain extraction

    def __post_init__(self) -> None:
        """Refuse what no phantom has."""
        if self.anatomy not in ANATOMIES:
            raise UserError(f"phantom: {unknown_name('anatomy', self.anatomy, ANATOMIES)}")
        for kind, name, known in (
            ("lesion", self.lesion, ANATOMIES[self.anatomy].lesions),
            ("contrast", self.contrast, (*CONTRASTS, MASK)),
            ("scanner", self.scanner, SCANNERS),
        ):
            if name not in known:
                raise UserError(f"phantom: {unknown_name(kind, name, known)}")
        if not all(0.5 <= step <= 20 for step in self.spacing):
            raise UserError(f"phantom: spacing is {_times(self.spacing)}; it must be between 0.5 and 20 mm")
        if not all(4 <= n <= 512 for n in self.size):
            raise UserError(f"phantom: size is {_times(self.size)}; it must be between 4 and 512 voxels")
        if self.seed < 0 or self.subject < 0:
            raise UserError(f"phantom: seed {self.seed}, subject {self.subject}; both must be 0 or more")
        if self.extracted and self.anatomy != "brain":
            raise UserError(f"phantom: anatomy {self.anatomy} has no brain to extract; leave extracted out")

    @property
    def location(self) -> str:
        """The location that :func:`parse_volume` reads back."""
        return f"{SCHEME}volume=1&" + "&".join(
            f"{field.name}={_text(getattr(self, field.name))}" for field in fields(self)
        )

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) voxel indices to mm (RAS): axes point to the patient's right, front and head."""
        # The phantom's x grows towards the image's right, which is the patient's left.
        middle = np.array(ANATOMIES[self.anatomy].centre) * (-1, 1, 1)
        affine = np.diag([*self.spacing, 1.0])
        affine[:3, 3] = middle - (np.array(self.size) - 1) / 2 * self.spacing
        return affine


def is_volume(location: str) -> bool:
    """Whether a phantom's location is a volume, not a slice."""
    return dict(location_options(location)).get("volume", "0") != "0"


def parse_volume(location: str) -> VolumeScan:
    """The volume that a location names; whatever it leaves out has :class:`VolumeScan`'s default."""
    options = dict(location_options(location))
    options.pop("volume", None)
    defaults = {field.name: field.default for field in fields(VolumeScan)}
    values: dict[str, Any] = {}
    for key, value in options.items():
        if key not in defaults:
            raise UserError(f"{location}: {unknown_name('key', key, [*defaults, 'volume'])}")
        values[key] = _typed(location, key, value, defaults[key])
    return VolumeScan(**values)


def _text(value: object) -> str:
    return _times(value) if isinstance(value, tuple) else str(int(value) if isinstance(value, bool) else value)


def _times(values: tuple[float, ...]) -> str:
    return "x".join(f"{value:g}" for value in values)


def _typed(location: str, key: str, value: str, default: Any) -> Any:
    try:
        if isinstance(default, tuple):
            parts = tuple(type(default[0])(part) for part in value.split("x"))
            if len(parts) != 3:
                raise ValueError
            return parts
        return bool(int(value)) if isinstance(default, bool) else type(default)(value)
    except ValueError as error:
        right = "three numbers such as 3x3x3" if isinstance(default, tuple) else "a whole number"
        raise UserError(f"{location}: {key}={value} is not {right}") from error
