"""FROC: how many lesions are found, and how many false alarms that costs, as the confidence asked for falls.

Lesions and predicted components match by the rule of :mod:`mrtransfer.tasks.segmentation.lesions`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.tasks.segmentation.extent import common_box
from mrtransfer.tasks.segmentation.lesions import components, mean_over
from mrtransfer.tasks.segmentation.outputs import region_maps

FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives a subject; Setio et al. 2017 (LUNA16)
FROC_RULE = (
    "A lesion is a connected component of the reference (26 neighbours; 8 in a single slice). The confidence of a "
    "predicted component is the mean probability of the region over its voxels, and only components at or above a "
    "threshold count. Sensitivity is the share of all lesions that such a component touches; a false positive is one "
    "that touches none, and is counted per subject, subjects without lesions included. The components are those of the "
    "masks that all other scores belong to, so at the lowest threshold the curve ends; between its points it is linear "
    "and beyond its end constant. The FROC score is the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false "
    "positives per subject, as in LUNA16 (Setio et al. 2017)."
)


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
    confidence = mean_over(probability[box], own, n_own)
    both = (own > 0) & (lesions > 0)
    scores, touching = np.full(n_lesions, -np.inf), np.zeros(n_own, dtype=bool)
    np.maximum.at(scores, lesions[both] - 1, confidence[own[both] - 1])
    touching[own[both] - 1] = True
    return Detections(scores, confidence[~touching])


def detect_regions(
    predicted: np.ndarray, probabilities: np.ndarray, reference: np.ndarray, loss: str, labels: MaskLabels
) -> tuple[Detections, ...]:
    """:func:`detect` for every region of a case.

    Args:
        predicted, reference: class indices (X, Y, Z).
        probabilities: of the network's outputs, (K, X, Y, Z), where it was trained with ``loss``.
        loss: says what the outputs mean; see :mod:`mrtransfer.tasks.segmentation.outputs`.
        labels: classes and regions.
    """
    box = common_box(predicted, reference) or (slice(0, 0),) * 3
    maps = region_maps(probabilities[(slice(None), *box)], loss, labels)
    return tuple(
        detect(member[predicted[box]], own, member[reference[box]])
        for member, own in zip(labels.membership, maps, strict=True)
    )


@dataclass(frozen=True, eq=False)
class Froc:
    """The free-response ROC curve: one point per confidence, from (0, 0) on."""

    false_positives: np.ndarray
    """Mean number per subject."""
    sensitivity: np.ndarray
    """Share of all lesions; NaN where no subject has a lesion, for then there is nothing to find."""

    def at(self, rates: Sequence[float]) -> np.ndarray:
        """Sensitivity at each of ``rates``: linear between two points of the curve, beyond the last one constant."""
        return np.interp(rates, self.false_positives, self.sensitivity)  # of several points at one rate, the highest

    @property
    def score(self) -> float:
        """Mean sensitivity at :data:`FROC_RATES`."""
        return float(self.at(FROC_RATES).mean())


def froc(subjects: Iterable[Detections]) -> Froc:
    """Sensitivity against false positives per subject as the confidence threshold falls.

    As in the evaluations of LUNA16 (Setio et al. 2017) and CAMELYON16 (Ehteshami Bejnordi et al. 2017). Subjects
    without lesions count among those over which false positives are shared. Raises :class:`UserError` for no subject at
    all.
    """
    listed = list(subjects)
    if not listed:
        raise UserError("FROC: there is no subject to evaluate; at least one is needed")
    hits = np.concatenate([subject.lesions for subject in listed])
    false = np.concatenate([subject.false for subject in listed])
    thresholds = np.unique(np.concatenate([hits[np.isfinite(hits)], false]))[::-1]
    found = np.append(0, _reached(hits, thresholds))
    return Froc(
        np.append(0, _reached(false, thresholds)) / len(listed),
        found / len(hits) if len(hits) else np.full(len(found), np.nan),
    )


def _reached(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many scores lie at or above each threshold."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")
