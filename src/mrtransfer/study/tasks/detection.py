"""Lesion detection in a segmentation study: FROC of every arm with its most labels, from what the runs kept."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrtransfer.common.plain import plain
from mrtransfer.study.outcome import load_kept
from mrtransfer.study.plan import Plan, Run
from mrtransfer.study.recipe import Budget
from mrtransfer.study.tasks.whole_cases import FALSE_POSITIVES, LESIONS, kept_detections
from mrtransfer.tasks.segmentation.froc import FROC_RATES, FROC_RULE, Detections, Froc, froc

if TYPE_CHECKING:
    from mrtransfer.study.tasks.segmentation import SegmentationWorkshop

RULE = f"{FROC_RULE} Each seed has one curve over the test subjects of all folds; what is shown is their mean."


@dataclass(frozen=True, eq=False)
class ArmFroc:
    """How well an arm detects the lesions of a region."""

    arm: str
    region: str
    budget: Budget
    labelled: int
    lesions: int
    """Of all test subjects together."""
    curves: Mapping[int, Froc]
    """Seed to curve."""

    def sensitivity(self, rates: Sequence[float]) -> np.ndarray:
        """The share of lesions found at each rate of false positives per subject, mean over seeds."""
        return np.mean([curve.at(rates) for curve in self.curves.values()], axis=0)

    def to_json(self) -> dict[str, Any]:
        """The curve at :data:`FROC_RATES`, and the score of each seed and their mean."""
        scores = [curve.score for curve in self.curves.values()]
        return {
            "arm": self.arm,
            "region": self.region,
            "budget": self.budget,
            "labelled": self.labelled,
            "lesions": self.lesions,
            "seeds": list(self.curves),
            "sensitivity": self.sensitivity(FROC_RATES).tolist(),
            "score": float(np.mean(scores)),
            "per_seed": scores,
        }


def detection(workshop: "SegmentationWorkshop", plan: Plan) -> dict[str, Any] | None:
    """FROC in numbers, ready for JSON; None where there is nothing to find, or nothing was kept of it."""
    found = arm_frocs(workshop, plan)
    if not found:
        return None
    silent = [arm for arm in workshop.recipe.arms if arm not in {one.arm for one in found}]
    return {
        "rule": RULE,
        "rates": list(FROC_RATES),
        "arms": plain([one.to_json() for one in found]),
        "notes": [f"No FROC of {arm}: an earlier version ran it, which kept no lesions." for arm in silent],
    }


def arm_frocs(workshop: "SegmentationWorkshop", plan: Plan) -> list[ArmFroc]:
    """Of every arm at the largest budget, and every region that some test subject has.

    Arms whose runs are those of an earlier version, which kept no lesions, are left out.
    """
    recipe, found = workshop.recipe, []
    for arm in recipe.arms:
        runs = [run for run in plan.runs if (run.arm, run.budget) == (arm, recipe.budgets[-1])]
        kept = {run.key: load_kept(workshop.folder, run.key, LESIONS, FALSE_POSITIVES) for run in runs}
        if not all(kept.values()):
            continue
        labelled = round(float(np.mean([run.labelled for run in runs])))
        for number, region in enumerate(workshop.target.mask_labels.region_names):
            subjects = {
                seed: _subjects([run for run in runs if run.seed == seed], kept, workshop.target.units, number)
                for seed in recipe.seeds
            }
            lesions = sum(len(one.lesions) for one in subjects[recipe.seeds[0]])
            if lesions:
                curves = {seed: froc(listed) for seed, listed in subjects.items()}
                found.append(ArmFroc(arm, region, recipe.budgets[-1], labelled, lesions, curves))
    return found


def _subjects(
    runs: Iterable[Run], kept: Mapping[str, Mapping[str, np.ndarray]], units: np.ndarray, region: int
) -> list[Detections]:
    """What the folds of one arm and seed detected of a region, subject by subject."""
    return [one for run in runs for one in kept_detections(kept[run.key], run.test, units, region)]
