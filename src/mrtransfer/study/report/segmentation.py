"""What the report of a segmentation study shows beside the statistics: subjects in pictures, curves, FROC, split."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrtransfer.data.volume.case import read_case
from mrtransfer.study.outcome import curves_of, load_kept, load_outcome
from mrtransfer.study.plan import Plan, Run
from mrtransfer.study.report.context import CasePicture, ReportContext, SubjectTable
from mrtransfer.study.report.froc import RATES
from mrtransfer.study.statistics.measures import Measures
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
    f"{TOLERANCE_MM:g} mm; a lesion is found where any voxel of it is.",
)


def build_context(workshop: "SegmentationWorkshop", plan: Plan) -> ReportContext:
    """Collect the pictures, curves and tables of a finished study."""
    pooled = pool(
        [load_outcome(workshop.folder, run) for run in plan.runs], workshop.target.labels, workshop.target.units
    )
    metric = workshop.recipe.metric
    scores = {arm: _per_subject(pooled, arm, metric, workshop.measures) for arm in pooled.arms}
    sign = workshop.measures.sign(metric)
    best = max(scores, key=lambda arm: sign * float(np.nanmean(scores[arm])))
    return ReportContext(
        measures=workshop.measures,
        curves=curves_of(plan, workshop),
        pictures=_pictures(workshop, plan, pooled, best, scores[best]),
        pictured_arm=best,
        subjects=_subject_table(workshop, pooled, scores),
        froc=_curves(arm_frocs(workshop, plan)),
        split=_split(workshop, plan),
        metric_notes=METRIC_NOTES,
    )


def _per_subject(pooled: Pool, arm: str, metric: str, measures: Measures) -> np.ndarray:
    """(n,) the metric of each test subject at the arm's largest budget, mean over seeds."""
    cell = (arm, pooled.budgets(arm)[-1])
    column = measures.names.index(metric)
    return np.mean([pooled.runs[cell][seed][:, column] for seed in pooled.seeds(cell)], axis=0)


def _curves(found: Sequence[ArmFroc]) -> dict[str, dict[str, np.ndarray]]:
    """Region to arm to the sensitivities at :data:`RATES`."""
    curves: dict[str, dict[str, np.ndarray]] = {}
    for one in found:
        curves.setdefault(one.region, {})[one.arm] = one.sensitivity(RATES)
    return curves


def _subject_names(workshop: "SegmentationWorkshop", rows: np.ndarray) -> list[str]:
    table = workshop.target.manifest.table.iloc[rows]
    return table["subject"].fillna(table["sample"]).tolist()


def _subject_table(workshop: "SegmentationWorkshop", pooled: Pool, scores: dict[str, np.ndarray]) -> SubjectTable:
    """Every test subject's score in every arm, the worst of the first arm first."""
    metric, measures = workshop.recipe.metric, workshop.measures
    first = next(iter(scores.values()))
    order = np.argsort(measures.sign(metric) * first, kind="stable")
    names = _subject_names(workshop, pooled.rows)
    rows = [(names[at], [measures.number(float(own[at]), metric) for own in scores.values()]) for at in order]
    unit = measures.units.get(metric, "")
    return SubjectTable(f"{measures.words[metric]}{f' ({unit})' if unit else ''}", list(scores), rows)


def _split(workshop: "SegmentationWorkshop", plan: Plan) -> list[dict[str, Any]]:
    """Subjects for training, validation and test in each fold, at the largest budget."""
    units = workshop.target.units
    found = {}
    for run in plan.runs:
        if run.budget == workshop.recipe.budgets[-1] and run.fold not in found:
            parts = {"training": run.drawn.train, "validation": run.drawn.validation, "test": run.test}
            found[run.fold] = {name: len(np.unique(units[rows])) for name, rows in parts.items()}
    return [{"fold": fold + 1, **counts} for fold, counts in sorted(found.items())]


def _pictures(
    workshop: "SegmentationWorkshop", plan: Plan, pooled: Pool, arm: str, scores: np.ndarray
) -> list[CasePicture]:
    """The best, the median and the worst subject of an arm, each in its case with most of the structure."""
    metric, measures = workshop.recipe.metric, workshop.measures
    order = np.argsort(-measures.sign(metric) * scores, kind="stable")
    order = order[np.isfinite(scores[order])]
    if not len(order):
        return []
    chosen = dict(zip(("best", "median", "worst"), (order[0], order[len(order) // 2], order[-1]), strict=True))
    pictures = []
    for name, at in chosen.items():
        run = _run_of(plan, workshop, arm, int(pooled.rows[at]))
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


def _run_of(plan: Plan, workshop: "SegmentationWorkshop", arm: str, row: int) -> Run:
    """The arm's run of the first seed and the largest budget that tested ``row``."""
    recipe = workshop.recipe
    return next(
        run
        for run in plan.runs
        if (run.arm, run.seed, run.budget) == (arm, recipe.seeds[0], recipe.budgets[-1]) and row in run.test
    )
