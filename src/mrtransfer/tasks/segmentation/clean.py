"""Cleaning of predicted masks: components that are too small go, or all but the largest; chosen on validation cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.tasks.segmentation.extent import bounding_box, checked_spacing, common_box
from mrtransfer.tasks.segmentation.lesions import components
from mrtransfer.tasks.segmentation.metrics import Spacing
from mrtransfer.tasks.segmentation.outputs import own_classes

CANDIDATES_ML = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
LEAST_GAIN = 1e-4  # of the mean Dice; less is chance. Stray voxels cost little Dice, but much HD95


@dataclass(frozen=True)
class Rule:
    """What stays of one region: components of at least ``least_ml``, and only the ``largest`` one where that is set."""

    least_ml: float = 0.0
    largest: bool = False

    def keeps(self, sizes: np.ndarray, voxel_ml: float) -> np.ndarray:
        """Which components stay (n,), from their numbers of voxels (n,). Of equally large ones the first is largest."""
        kept = sizes * voxel_ml >= self.least_ml * (1 - 1e-9)  # a limit of exactly n voxels keeps n voxels
        if self.largest and len(sizes):
            kept &= np.arange(len(sizes)) == np.argmax(sizes)
        return kept


@dataclass(frozen=True)
class Cleaning:
    """A rule for some regions, (region, rule) in the order in which they are applied."""

    rules: tuple[tuple[str, Rule], ...]

    def apply(self, classes: np.ndarray, affine: np.ndarray, labels: MaskLabels) -> np.ndarray:
        """Cleaned class indices, a new array (X, Y, Z); ``affine`` (4, 4) gives the volume of a voxel in mm³.

        A removed voxel gets the class of the smallest region around the cleaned one (necrosis where a spot of enhancing
        tumour goes), or becomes background.
        """
        voxel_ml = abs(float(np.linalg.det(np.asarray(affine, dtype=float)[:3, :3]))) / 1000
        cleaned = np.array(classes)
        for region, rule in self.rules:
            if region not in labels.region_names:
                raise unknown_name("region to clean", region, labels.region_names)
            _clean_region(cleaned, labels.region_names.index(region), rule, voxel_ml, labels)
        return cleaned

    def to_json(self) -> dict[str, Any]:
        """The cleaning as JSON can write it."""
        return {"rules": [[name, {"least_ml": rule.least_ml, "largest": rule.largest}] for name, rule in self.rules]}

    @classmethod
    def from_json(cls, data: Any, where: str = "clean") -> Self | None:
        """A cleaning as :meth:`to_json` wrote it, None from None; :class:`UserError` for anything else."""
        if data is None:
            return None
        try:
            return cls(tuple((str(name), Rule(float(r["least_ml"]), bool(r["largest"]))) for name, r in data["rules"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where}: is not the description of a cleaning (rules of regions)") from error


def choose_cleaning(
    predicted: Sequence[np.ndarray],
    references: Sequence[np.ndarray],
    spacings: Sequence[Spacing],
    labels: MaskLabels,
    *,
    candidates_ml: Sequence[float] = CANDIDATES_ML,
) -> Cleaning | None:
    """The rules that raise the mean Dice of these (validation) cases, or None where nothing raises it enough.

    Regions are tried one after the other, those of most classes first, each on predictions that are already cleaned by
    the rules before. Rules are tried from the mildest to the strictest, and one is taken where its mean Dice over cases
    beats that of the best milder one by more than :data:`LEAST_GAIN`; a region empty in both masks has Dice 1.
    Arguments are those of :func:`~mrtransfer.tasks.segmentation.metrics.evaluate_subject`.
    """
    cases = [_compact(*case) for case in zip(predicted, references, spacings, strict=True)]
    order = sorted(range(len(labels.regions)), key=lambda region: -int(labels.membership[region].sum()))
    chosen: list[tuple[str, Rule]] = []
    for region in order:
        rule = _best_rule([_tables(case, labels.membership[region]) for case in cases], candidates_ml)
        if rule is not None:
            for classes, _, voxel_ml in cases:
                _clean_region(classes, region, rule, voxel_ml, labels)
            chosen.append((labels.region_names[region], rule))
    return Cleaning(tuple(chosen)) if chosen else None


def _compact(predicted: np.ndarray, reference: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray, float]:
    """(classes, reference, ml of a voxel) in the box that holds both: small, and the prediction may be changed."""
    box = common_box(predicted, reference) or (slice(0, 0),) * predicted.ndim
    voxel_ml = float(np.prod(checked_spacing(spacing, predicted.ndim))) / 1000
    return np.array(predicted[box]), np.array(reference[box]), voxel_ml


@dataclass(frozen=True, eq=False)
class _Table:
    """All that Dice after a rule depends on: each component's voxels, how many are right, the reference's voxels."""

    sizes: np.ndarray
    hits: np.ndarray
    reference: int
    voxel_ml: float

    def dice(self, rule: Rule) -> float:
        kept = rule.keeps(self.sizes, self.voxel_ml)
        total = int(self.sizes[kept].sum()) + self.reference
        return 2 * int(self.hits[kept].sum()) / total if total else 1.0


def _tables(case: tuple[np.ndarray, np.ndarray, float], member: np.ndarray) -> _Table:
    classes, reference, voxel_ml = case
    labelled, count = components(member[classes])
    there = member[reference]
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    hits = np.bincount(labelled[there], minlength=count + 1)[1:]
    return _Table(sizes, hits, int(np.count_nonzero(there)), voxel_ml)


def _best_rule(tables: Sequence[_Table], candidates_ml: Sequence[float]) -> Rule | None:
    """The best rule, tried from the mildest to the strictest; None where none gains enough over no rule."""
    if not tables:
        return None
    best, best_dice = None, float(np.mean([table.dice(Rule()) for table in tables]))
    for rule in (*(Rule(least_ml=limit) for limit in sorted(candidates_ml)), Rule(largest=True)):
        dice = float(np.mean([table.dice(rule) for table in tables]))
        if dice > best_dice + LEAST_GAIN:
            best, best_dice = rule, dice
    return best


def _clean_region(classes: np.ndarray, region: int, rule: Rule, voxel_ml: float, labels: MaskLabels) -> None:
    """Remove, in place, the components of one region that the rule does not keep."""
    member = labels.membership[region]
    box = bounding_box(member[classes])
    if box is None:
        return
    labelled, count = components(member[classes[box]])
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    gone = np.append(False, ~rule.keeps(sizes, voxel_ml))[labelled]
    classes[box][gone] = _class_around(region, labels)


def _class_around(region: int, labels: MaskLabels) -> int:
    """The own class of the smallest region that holds this one and more; 0, the background, where there is none."""
    member, painted = labels.membership, dict(own_classes(labels))
    around = [r for r in painted if (member[r] >= member[region]).all() and (member[r] & ~member[region]).any()]
    own = [r for r in around if not member[region][painted[r]]]
    return painted[min(own, key=lambda r: int(member[r].sum()))] if own else 0
