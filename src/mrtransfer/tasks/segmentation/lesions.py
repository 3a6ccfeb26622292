"""Lesions one by one: connected components, how many were found, FROC, and the list that a radiologist would read.

A lesion is a connected component with 26 neighbours (8 in a single slice). It is found where any predicted voxel lies
in it, and a predicted component is false where it overlaps no lesion: the rule of ISLES 2022 (Hernandez Petzsche et al.
2022).
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from mrtransfer.common.errors import UserError
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.tasks.segmentation.extent import bounding_box, common_box

FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives a subject; Setio et al. 2017 (LUNA16)


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


@dataclass(frozen=True, eq=False)
class Detections:
    """What FROC needs of one subject.

    ``lesions``: for each lesion the highest confidence of a component that overlaps it, −inf where none does.
    ``false``: the confidences of the components that overlap no lesion.
    """

    lesions: np.ndarray
    false: np.ndarray


def detect(predicted: np.ndarray, probability: np.ndarray, reference: np.ndarray) -> Detections:
    """Match the components of ``predicted`` to the lesions of ``reference`` (both bool, one shape).

    A component's confidence is the mean of ``probability`` (float, the same shape) over its voxels.
    """
    box = common_box(predicted, reference)
    if box is None:
        return Detections(np.zeros(0), np.zeros(0))
    (own, n_own), (lesions, n_lesions) = components(predicted[box]), components(reference[box])
    confidence = _means(probability[box], own, n_own)
    both = (own > 0) & (lesions > 0)
    scores, touching = np.full(n_lesions, -np.inf), np.zeros(n_own, dtype=bool)
    np.maximum.at(scores, lesions[both] - 1, confidence[own[both] - 1])
    touching[own[both] - 1] = True
    return Detections(scores, confidence[~touching])


@dataclass(frozen=True, eq=False)
class Froc:
    """The free-response ROC curve and its values at fixed rates.

    ``false_positives`` (mean number a subject) and ``sensitivity`` (share of all lesions) are the curve, from (0, 0) on
    with one point per confidence. ``at`` is the sensitivity at given rates and ``mean`` their mean; both are None where
    no subject has a lesion, for then there is nothing to find.
    """

    false_positives: np.ndarray
    sensitivity: np.ndarray
    at: dict[float, float | None]
    mean: float | None


def froc(subjects: Iterable[Detections], rates: Sequence[float] = FROC_RATES) -> Froc:
    """Sensitivity against false positives per subject as the confidence threshold falls.

    Between two points of the curve it is linear, beyond the last one constant, as in the evaluations of LUNA16 (Setio
    et al. 2017) and CAMELYON16 (Ehteshami Bejnordi et al. 2017). Subjects without lesions count among those over which
    false positives are shared. Raises :class:`UserError` for no subject at all.
    """
    listed = list(subjects)
    if not listed:
        raise UserError("FROC: there is no subject to evaluate; at least one is needed")
    hits = np.concatenate([subject.lesions for subject in listed])
    false = np.concatenate([subject.false for subject in listed])
    thresholds = np.unique(np.concatenate([hits[np.isfinite(hits)], false]))[::-1]
    per_subject = np.append(0, _reached(false, thresholds)) / len(listed)
    if len(hits) == 0:
        return Froc(per_subject, np.zeros(len(per_subject)), {float(rate): None for rate in rates}, None)
    sensitivity = np.append(0, _reached(hits, thresholds)) / len(hits)
    found = np.interp(rates, per_subject, sensitivity)  # of several points at one rate it takes the highest
    at: dict[float, float | None] = {float(rate): float(s) for rate, s in zip(rates, found, strict=True)}
    return Froc(per_subject, sensitivity, at, float(found.mean()))


def _reached(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many scores lie at or above each threshold."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")


def _means(values: np.ndarray, labelled: np.ndarray, count: int) -> np.ndarray:
    """Mean of ``values`` over each component (count,)."""
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
        confidence = None if probabilities is None else _means(probabilities[number][box], labelled, count)
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
