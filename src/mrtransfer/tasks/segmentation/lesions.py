"""Lesions one by one: connected components, how many were found, and the list that a radiologist would read.

A lesion is a connected component with 26 neighbours (8 in a single slice). It is found where any predicted voxel lies
in it, and a predicted component is false where it overlaps no lesion: the rule of ISLES 2022 (Hernandez Petzsche et al.
2022).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.tasks.segmentation.extent import bounding_box, common_box


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The connected components of a boolean mask: int32 labels 1 … n of its shape (0 outside), and n."""
    return ndimage.label(mask, np.ones((3,) * mask.ndim, dtype=bool))


@dataclass(frozen=True)
class LesionCounts:
    """How many lesions were ``found`` or ``missed``, and how many predicted components are ``true`` or ``false``."""

    found: int
    missed: int
    true: int
    false: int

    def __add__(self, other: "LesionCounts") -> "LesionCounts":
        return LesionCounts(
            self.found + other.found, self.missed + other.missed, self.true + other.true, self.false + other.false
        )


def count_lesions(predicted: np.ndarray, reference: np.ndarray) -> LesionCounts:
    """Match the components of two boolean masks of one shape: any overlap is a match."""
    box = common_box(predicted, reference)
    if box is None:
        return LesionCounts(0, 0, 0, 0)
    (own, n_own), (lesions, n_lesions) = components(predicted[box]), components(reference[box])
    both = (own > 0) & (lesions > 0)
    found, true = len(np.unique(lesions[both])), len(np.unique(own[both]))
    return LesionCounts(found, n_lesions - found, true, n_own - true)


def mean_over(values: np.ndarray, labelled: np.ndarray, count: int) -> np.ndarray:
    """Mean of ``values`` over each component 1 … ``count`` of ``labelled``, an array of the same shape: (count,)."""
    return np.asarray(ndimage.mean(values, labelled, np.arange(1, count + 1)), dtype=float).reshape(count)


@dataclass(frozen=True)
class Lesion:
    """One component of one region.

    ``centre_mm``: centre of mass in patient coordinates, mm, right–anterior–superior. ``first`` and ``last``: the
    corner voxels of its bounding box, both inside. ``confidence``: mean probability over its voxels, None where no
    probabilities were given.
    """

    region: str
    volume_ml: float
    centre_mm: tuple[float, float, float]
    confidence: float | None
    first: tuple[int, int, int]
    last: tuple[int, int, int]
    voxels: int

    def to_json(self) -> dict[str, Any]:
        """The lesion as JSON can write it."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def list_lesions(
    classes: np.ndarray, affine: np.ndarray, labels: MaskLabels, probabilities: np.ndarray | None = None
) -> list[Lesion]:
    """Every lesion of every region, by region and from the largest to the smallest.

    Args:
        classes: class indices (X, Y, Z).
        affine: (4, 4), from voxel indices to patient coordinates in mm (RAS).
        labels: the classes and regions.
        probabilities: of each region, (R, X, Y, Z); see :func:`mrtransfer.tasks.segmentation.outputs.region_maps`.
    """
    found: list[Lesion] = []
    box = bounding_box(classes)
    if box is None:
        return found
    origin = np.array([part.start for part in box])
    volume_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    for number, region in enumerate(labels.region_names):
        labelled, count = components(labels.membership[number][classes[box]])
        confidence = None if probabilities is None else mean_over(probabilities[number][box], labelled, count)
        sizes = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
        corners = ndimage.find_objects(labelled)
        for index in np.argsort(-sizes, kind="stable"):
            inside = np.argwhere(labelled[corners[index]] == index + 1)
            start = origin + [part.start for part in corners[index]]
            centre = affine[:3, :3] @ (start + inside.mean(0)) + affine[:3, 3]
            found.append(
                Lesion(
                    region=region,
                    volume_ml=float(sizes[index]) * volume_ml,
                    centre_mm=_three(centre.tolist()),
                    confidence=None if confidence is None else float(confidence[index]),
                    first=_three(start.tolist()),
                    last=_three((start + inside.max(0)).tolist()),
                    voxels=int(sizes[index]),
                )
            )
    return found


def _three(values: list[Any]) -> tuple[Any, Any, Any]:
    first, second, third = values
    return first, second, third
