"""What the report of a segmentation study shows beside the statistics: subjects in pictures, curves, FROC, split."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrtransfer.data.volume.case import read_case
from mrtransfer.study.outcome import curves_of, load_kept, load_outcome
from mrtransfer.study.plan import Plan
from mrtransfer.study.report.context import CasePicture, ReportContext
from mrtransfer.study.report.froc import RATES
from mrtransfer.study.report.subjects import best_of, per_row, placed, run_of, split_counts, subject_table
from mrtransfer.study.statistics.pool import Pool, pool
from mrtransfer.study.tasks.detection import ArmFroc, arm_frocs
from mrtransfer.study.tasks.whole_cases import kept_mask
from mrtransfer.tasks.segmentation.metrics import EMPTY_RULE, TOLERANCE_MM
from mrtransfer.tasks.segmentation.pictures import PREDICTED, REFERENCE, case_picture

if TYPE_CHECKING:
    from mrtransfer.study.tasks.segmentation import SegmentationWorkshop

METRIC_NOTES = (
    EMPTY_RULE,
    "Scores are those of whole subjects on the original grid: voxels, surfaces and lesions of a subject's cases are "
    "pooled before any ratio is taken, and subjects count alike. A score without a region is the mean over regions.",
    f"HD95 is the larger of the two directed 95th percentiles of surface distances; the surface Dice forgives "
    f"{TOLERANCE_MM:g} mm; a lesion is found where any predicted voxel lies in it.",
)


def build_context(workshop: "SegmentationWorkshop", plan: Plan) -> ReportContext:
    """Collect the pictures, curves and tables of a finished study."""
    pooled = pool(
        [load_outcome(workshop.folder, run) for run in plan.runs], workshop.target.labels, workshop.target.units
    )
    recipe, measures = workshop.recipe, workshop.measures
    scores = {arm: per_row(pooled, arm, recipe.metric, measures) for arm in pooled.arms}
    best = best_of(scores, recipe.metric, measures)
    return ReportContext(
        measures=measures,
        curves=curves_of(plan, workshop),
        pictures=_pictures(workshop, plan, pooled, best, scores[best]),
        pictured_arm=best,
        subjects=subject_table(_subject_names(workshop, pooled.rows), scores, recipe.metric, measures),
        froc=_curves(arm_frocs(workshop, plan)),
        split=split_counts(recipe, plan, workshop.target.units),
        metric_notes=METRIC_NOTES,
    )


def _curves(found: Sequence[ArmFroc]) -> dict[str, dict[str, np.ndarray]]:
    """Region to arm to the sensitivities at :data:`RATES`."""
    curves: dict[str, dict[str, np.ndarray]] = {}
    for one in found:
        curves.setdefault(one.region, {})[one.arm] = one.sensitivity(RATES)
    return curves


def _subject_names(workshop: "SegmentationWorkshop", rows: np.ndarray) -> list[str]:
    table = workshop.target.manifest.table.iloc[rows]
    return table["subject"].fillna(table["sample"]).tolist()


def _pictures(
    workshop: "SegmentationWorkshop", plan: Plan, pooled: Pool, arm: str, scores: np.ndarray
) -> list[CasePicture]:
    """The best, the median and the worst subject of an arm, each in its case with most of the structure."""
    metric, measures = workshop.recipe.metric, workshop.measures
    pictures = []
    for name, at in placed(scores, metric, measures).items():
        run = run_of(workshop.recipe, plan, arm, int(pooled.rows[at]))
        kept = load_kept(workshop.folder, run.key)
        own = [row for row in run.test.tolist() if workshop.target.units[row] == workshop.target.units[pooled.rows[at]]]
        row = max(own, key=lambda one: int((workshop.target.reference(one) > 0).sum()))
        case = read_case(workshop.target.manifest, row)
        assert case.mask is not None
        image = case_picture(case.image, case.affine, {REFERENCE: case.mask, PREDICTED: kept_mask(kept, row)})
        sample = workshop.target.manifest.table["sample"].iloc[row]
        value = (
            f"{measures.words[metric]} {measures.number(float(scores[at]), metric)} {measures.units.get(metric, '')}"
        )
        pictures.append(CasePicture(image, name, str(sample), value, case.channels, flat=case.image.shape[3] == 1))
    return pictures
