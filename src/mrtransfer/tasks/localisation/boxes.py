"""Boxes and centres: from a heat map, and from the lesions of a mask. Coordinates are voxel indices along each axis."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.tasks.segmentation.extent import bounding_box
from mrtransfer.tasks.segmentation.lesions import components

SHARE = 0.2
"""Of the maximum: what is above belongs to the object (Zhou et al. 2016, Learning deep features, section 3.2)."""


@dataclass(frozen=True)
class Box:
    """A box from voxel ``first`` to voxel ``last`` along each axis, both inside."""

    first: tuple[int, ...]
    last: tuple[int, ...]

    @property
    def centre(self) -> tuple[float, ...]:
        """Its middle."""
        return tuple((low + high) / 2 for low, high in zip(self.first, self.last, strict=True))

    @property
    def size(self) -> int:
        """How many voxels it holds."""
        return int(np.prod([high - low + 1 for low, high in zip(self.first, self.last, strict=True)]))

    def overlap(self, other: "Box") -> float:
        """Intersection over union with another box, 0 … 1."""
        sides = [
            min(a, b) - max(c, d) + 1 for a, b, c, d in zip(self.last, other.last, self.first, other.first, strict=True)
        ]
        shared = int(np.prod(sides)) if min(sides) > 0 else 0
        return shared / (self.size + other.size - shared)

    def to_json(self) -> dict[str, Any]:
        """The box and its centre as JSON can write them."""
        return {"first": list(self.first), "last": list(self.last), "centre": list(self.centre)}


@dataclass(frozen=True)
class Finding:
    """One object: its ``box``, and its ``centre``, the centre of mass (of the heat, where it comes from a heat map)."""

    box: Box
    centre: tuple[float, ...]


def find_in_heat(heat: np.ndarray, *, share: float = SHARE) -> Finding | None:
    """The object in a heat map of any number of axes; None where no value is above 0.

    It is the largest connected component (all neighbours, diagonal ones too) of what reaches ``share`` of the maximum;
    of equally large ones, the one with most heat.
    """
    if not 0 < share <= 1:
        raise UserError(f"share: is {share}; it must be above 0 and at most 1")
    _check_heat(heat)
    highest = float(heat.max())
    if highest <= 0:
        return None
    labelled, count = components(heat >= share * highest)
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    heats = np.bincount(labelled.ravel(), heat.ravel().astype(float), minlength=count + 1)[1:]
    best = max(range(count), key=lambda index: (sizes[index], heats[index]))
    return _finding(labelled == best + 1, heat)


def find_in_mask(mask: np.ndarray) -> list[Finding]:
    """Every lesion of a mask (connected components of its non-zero voxels), the largest first."""
    labelled, count = components(mask != 0)
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    return [_finding(labelled == index + 1, np.ones(mask.shape)) for index in np.argsort(-sizes, kind="stable")]


def _finding(object_: np.ndarray, weights: np.ndarray) -> Finding:
    box = bounding_box(object_)
    assert box is not None, "an object has voxels"
    places = np.argwhere(object_)
    centre = np.average(places, axis=0, weights=weights[object_].astype(float))
    return Finding(
        Box(tuple(part.start for part in box), tuple(part.stop - 1 for part in box)),
        tuple(float(value) for value in centre),
    )


def _check_heat(heat: np.ndarray) -> None:
    if heat.size == 0 or not np.isfinite(heat).all() or heat.min() < 0:
        raise UserError("heat map: it must hold finite values of 0 or more; Grad-CAM gives such values")
