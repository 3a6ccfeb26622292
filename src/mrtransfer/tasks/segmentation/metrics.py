"""Segmentation metrics of one case or one subject, for every scored region and as their mean.

A region is a set of classes (:class:`~mrtransfer.data.mask_labels.MaskLabels`). Everything is computed on the grid that
the masks have, which should be the original one. Counts of voxels and lesions are sums and surface distances are lists,
so the cases of one subject are pooled before any ratio is taken: a subject with many slices counts once, and a slice
with a few tumour voxels does not weigh as much as one with thousands. A mask of a single slice is treated as 2-D.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.tasks.segmentation.extent import checked_spacing, common_box, diagonal_mm
from mrtransfer.tasks.segmentation.lesions import LesionCounts, count_lesions
from mrtransfer.tasks.segmentation.surface import hd95, surface_dice, surface_distances

Spacing = Sequence[float] | np.ndarray
Case = tuple[np.ndarray, np.ndarray, Spacing]
"""Predicted and reference classes (X, Y, Z), and mm per axis."""

SEGMENTATION_METRICS = (
    "dice",
    "iou",
    "precision",
    "sensitivity",
    "specificity",
    "accuracy",
    "hd95",
    "nsd",
    "lesion_f1",
    "lesion_precision",
    "lesion_sensitivity",
)
HIGHER_IS_BETTER = {name: name != "hd95" for name in SEGMENTATION_METRICS}
RANGES = {name: (0.0, float("inf") if name == "hd95" else 1.0) for name in SEGMENTATION_METRICS}
WORDS = {
    "dice": "Dice",
    "iou": "mean IoU",
    "precision": "precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "voxel accuracy",
    "hd95": "95 % Hausdorff distance",
    "nsd": "normalised surface Dice",
    "lesion_f1": "lesion-wise F1",
    "lesion_precision": "lesion-wise precision",
    "lesion_sensitivity": "lesion-wise sensitivity",
}
TOLERANCE_MM = 1.0  # of the normalised surface Dice
EMPTY_RULE = (
    "Where a region is empty in both the reference and the prediction, its overlap and detection scores are 1 and HD95 "
    "is 0 mm; where it is empty in only one of them, Dice, IoU, precision, sensitivity, surface Dice and lesion-wise "
    "scores are 0 and HD95 is the diagonal of the image in mm (the rule of BraTS)."
)


@dataclass(frozen=True, eq=False)
class RegionScore:
    """What the metrics of one region are made of; the scores of several cases add up."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int
    to_reference: np.ndarray
    """Distance in mm of every predicted surface voxel to the reference's surface."""
    to_predicted: np.ndarray
    """The same from the reference to the prediction."""
    lesions: LesionCounts

    def __add__(self, other: "RegionScore") -> "RegionScore":
        return RegionScore(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
            self.true_negative + other.true_negative,
            np.concatenate([self.to_reference, other.to_reference]),
            np.concatenate([self.to_predicted, other.to_predicted]),
            self.lesions + other.lesions,
        )


def evaluate_case(
    predicted: np.ndarray,
    reference: np.ndarray,
    spacing: Spacing,
    labels: MaskLabels,
    *,
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[str, float]:
    """Every metric of one case; never NaN (:data:`EMPTY_RULE`).

    Args:
        predicted, reference: class indices (X, Y, Z).
        spacing: mm per axis; where an image has none, 1 per axis gives distances in voxels.
        labels: classes and regions.
        tolerance_mm: what the normalised surface Dice forgives.

    Returns:
        ``"dice"`` and the others of :data:`SEGMENTATION_METRICS`, each the mean over regions with equal weight, and
        ``"<region>/dice"`` … for each region. Accuracy is that of the region against the rest.
    """
    scores = score_case(predicted, reference, spacing, labels)
    return metrics_of(scores, labels, tolerance_mm=tolerance_mm)


def evaluate_subject(
    predicted: Sequence[np.ndarray],
    references: Sequence[np.ndarray],
    spacings: Sequence[Spacing],
    labels: MaskLabels,
    *,
    stack: bool = False,
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[str, float]:
    """The metrics of one subject, as :func:`evaluate_case`, from all its cases: volumes, or slices of Z = 1.

    Voxel counts, lesion counts and surface distances are pooled over the cases. ``stack`` puts slices of one shape on
    top of each other first, in the order given and with their spacing along Z, so that distances and lesions are those
    of the volume: right only where they are neighbours in one series. Overlap metrics are the same either way.
    """
    cases = list(zip(predicted, references, spacings, strict=True))
    if not cases:
        raise UserError("segmentation metrics: there is no case to evaluate; at least one is needed")
    if stack:
        cases = [_stacked(cases)]
    return metrics_of(add_scores(score_case(*case, labels) for case in cases), labels, tolerance_mm=tolerance_mm)


def score_case(
    predicted: np.ndarray, reference: np.ndarray, spacing: Spacing, labels: MaskLabels
) -> tuple[RegionScore, ...]:
    """What the metrics of each region are made of, for one case; arguments as of :func:`evaluate_case`."""
    predicted, reference = np.asarray(predicted), np.asarray(reference)
    _check(predicted, reference, labels)
    steps = checked_spacing(spacing, 3)
    far = diagonal_mm(predicted.shape, steps)
    box = common_box(predicted, reference, margin=1) or (slice(0, 0),) * 3
    own, truth = predicted[box], reference[box]
    table = _confusion(own, truth, len(labels.names))
    table[0, 0] += predicted.size - table.sum()  # all that lies outside the box
    return tuple(_score_region(table, member, own, truth, steps, far) for member in labels.membership)


def add_scores(cases: Iterable[tuple[RegionScore, ...]]) -> tuple[RegionScore, ...]:
    """The regions' scores of several cases, pooled."""
    return tuple(reduce(add, region) for region in zip(*cases, strict=True))


def metrics_of(
    scores: Sequence[RegionScore], labels: MaskLabels, *, tolerance_mm: float = TOLERANCE_MM
) -> dict[str, float]:
    """The metrics that :func:`evaluate_case` returns, from the scores of all regions."""
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise UserError(f"tolerance_mm: is {tolerance_mm}; it must be 0 or more")
    regions = [_of_region(score, tolerance_mm) for score in scores]
    found = {name: float(np.mean([values[name] for values in regions])) for name in SEGMENTATION_METRICS}
    for region, values in zip(labels.region_names, regions, strict=True):
        found |= {f"{region}/{name}": value for name, value in values.items()}
    return found


def _stacked(slices: Sequence[Case]) -> Case:
    """Slices (X, Y, 1) of one shape and spacing as one volume."""
    shapes = sorted({np.shape(predicted) for predicted, _, _ in slices})
    spacings = {tuple(np.asarray(spacing, dtype=float).tolist()) for _, _, spacing in slices}
    if len(shapes) != 1 or len(spacings) != 1 or shapes[0][2:] != (1,):
        raise UserError(
            f"slices of one subject: shapes {', '.join(map(str, shapes))} with {len(spacings)} different spacings "
            "cannot be stacked; right are slices (X, Y, 1) of one shape and spacing"
        )
    predicted, references, _ = zip(*slices, strict=True)
    return np.concatenate(predicted, axis=2), np.concatenate(references, axis=2), slices[0][2]


def _check(predicted: np.ndarray, reference: np.ndarray, labels: MaskLabels) -> None:
    if predicted.shape != reference.shape or predicted.ndim != 3 or predicted.size == 0:
        raise UserError(
            f"masks to compare: shapes {predicted.shape} and {reference.shape} do not fit; right are equal (X, Y, Z)"
        )
    for name, mask in (("prediction", predicted), ("reference", reference)):
        if mask.dtype.kind not in "biu":
            raise UserError(f"{name}: holds {mask.dtype} values; class indices must be whole numbers")
        if mask.max() >= len(labels.names) or mask.min() < 0:
            raise UserError(
                f"{name}: holds class indices {mask.min()} … {mask.max()}; known are 0 … {len(labels.names) - 1}"
            )


def _confusion(predicted: np.ndarray, reference: np.ndarray, classes: int) -> np.ndarray:
    """Counts (C, C): row = true class, column = predicted class."""
    cells = reference.astype(np.intp) * classes + predicted
    return np.bincount(cells.ravel(), minlength=classes * classes).reshape(classes, classes)


def _score_region(
    table: np.ndarray, member: np.ndarray, own: np.ndarray, truth: np.ndarray, spacing: np.ndarray, far: float
) -> RegionScore:
    """One region, the classes of which are marked in ``member`` (K,)."""
    there, hits, found = table[member].sum(), table[member][:, member].sum(), table[:, member].sum()
    predicted, reference = member[own], member[truth]
    to_reference, to_predicted = surface_distances(predicted, reference, spacing, missing=far)
    return RegionScore(
        true_positive=int(hits),
        false_positive=int(found - hits),
        false_negative=int(there - hits),
        true_negative=int(table.sum() - found - there + hits),
        to_reference=to_reference,
        to_predicted=to_predicted,
        lesions=count_lesions(predicted, reference),
    )


def _of_region(score: RegionScore, tolerance_mm: float) -> dict[str, float]:
    hit, rest = score.true_positive, score.true_negative
    false, missed = score.false_positive, score.false_negative
    lesions = score.lesions
    lesion_precision = _ratio(lesions.true, lesions.true + lesions.false, lesions.missed)
    lesion_sensitivity = _ratio(lesions.found, lesions.found + lesions.missed, lesions.false)
    return {
        "dice": _ratio(2 * hit, 2 * hit + false + missed),
        "iou": _ratio(hit, hit + false + missed),
        "precision": _ratio(hit, hit + false, missed),
        "sensitivity": _ratio(hit, hit + missed, false),
        "specificity": _ratio(rest, rest + false),
        "accuracy": (hit + rest) / (hit + rest + false + missed),
        "hd95": hd95(score.to_reference, score.to_predicted),
        "nsd": surface_dice(score.to_reference, score.to_predicted, tolerance_mm),
        "lesion_f1": _harmonic(lesion_precision, lesion_sensitivity),
        "lesion_precision": lesion_precision,
        "lesion_sensitivity": lesion_sensitivity,
    }


def _ratio(part: int, whole: int, otherwise: int = 0) -> float:
    """``part / whole``; for 0 / 0 it is 1 where there is nothing wrong (``otherwise`` is 0), and 0 where there is."""
    return part / whole if whole else float(otherwise == 0)


def _harmonic(first: float, second: float) -> float:
    return 2 * first * second / (first + second) if first + second else 0.0
