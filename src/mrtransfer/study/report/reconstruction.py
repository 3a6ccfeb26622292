"""What the report of a reconstruction study shows beside the statistics: slices in pictures, curves, the split."""

from typing import TYPE_CHECKING

import numpy as np

from mrtransfer.common.files import read_json
from mrtransfer.models.reconstruction import build_reconstruction_network
from mrtransfer.physics.masks import Sampling, restrict
from mrtransfer.study.outcome import curves_of, load_kept, load_outcome
from mrtransfer.study.plan import Plan
from mrtransfer.study.report.context import ReportContext, SlicePicture
from mrtransfer.study.report.subjects import best_of, per_row, placed, run_of, split_counts, subject_table
from mrtransfer.study.report.together import Curves
from mrtransfer.study.statistics.pool import Pool, pool
from mrtransfer.study.tasks.whole_volumes import hardest, kept_rows, kept_slice, middle_slice, rebuilt
from mrtransfer.tasks.reconstruction.pictures import slice_picture
from mrtransfer.training.precision import FLOAT32

if TYPE_CHECKING:
    from mrtransfer.study.tasks.reconstruction import ReconstructionWorkshop

ZERO_FILLED = "zero_filled"
LABELLED_RULE = "A labelled volume is one that is fully sampled, so that there is a target to learn from."
METRIC_RULE = (
    "SSIM is the mean over a volume's slices, with the volume's maximum as data range and a uniform window of 7 × 7 "
    "pixels; PSNR and NMSE are those of the whole volume. All are of magnitudes within the volume's crop, as fastMRI "
    "computes them."
)


def build_context(workshop: "ReconstructionWorkshop", plan: Plan) -> ReportContext:
    """Collect the pictures, curves and tables of a finished study."""
    recipe, measures, target = workshop.recipe, workshop.measures, workshop.target
    pooled = pool([load_outcome(workshop.folder, run) for run in plan.runs], target.labels, target.units)
    scores = {arm: per_row(pooled, arm, recipe.metric, measures) for arm in pooled.arms}
    best = best_of(scores, recipe.metric, measures)
    names = target.manifest.table["sample"].iloc[pooled.rows].tolist()
    sources, starting = _sources(workshop, plan)
    return ReportContext(
        measures=measures,
        curves=curves_of(plan, workshop),
        together=True,
        source_curves=sources,
        source_arms=starting,
        slices=_pictures(workshop, plan, pooled, scores[best]),
        pictured_arm=best,
        subjects=subject_table(names, scores, recipe.metric, measures, unit="volume"),
        parts_heading="By acceleration",
        split=split_counts(recipe, plan, target.units),
        metric_notes=(METRIC_RULE, _mask_rule(recipe.sampling), LABELLED_RULE),
    )


def _mask_rule(sampling: Sampling) -> str:
    """How volumes are undersampled, in words."""
    each = [
        f"{acceleration:g}-fold with {100 * fraction:g} % of the lines at the centre"
        for acceleration, fraction in zip(sampling.acceleration, sampling.centre_fraction, strict=True)
    ]
    mean = " A score without an acceleration is the mean over them." if len(each) > 1 else ""
    return (
        f"k-space is undersampled retrospectively by masks of kind {sampling.mask.replace('_', ' ')}, "
        f"{', '.join(each)}; a test volume's are seeded by its name, so they are the same for every arm, seed and "
        f"budget.{mean} In training every visit of a slice has a new mask."
    )


def _sources(workshop: "ReconstructionWorkshop", plan: Plan) -> tuple[Curves, dict[str, list[str]]]:
    """The epochs of every source training that is there, under the first arm that starts from it; and all that do."""
    curves: Curves = {}
    starting: dict[str, list[str]] = {}
    for source in plan.sources:
        arms = list(dict.fromkeys(run.arm for run in plan.runs if run.source and run.source.key == source.key))
        path = workshop.source_folder(source) / "model.json"
        if path.is_file():  # nobody needs it any more
            curves.setdefault(arms[0], []).append(read_json(path)["record"]["curves"])
            starting[arms[0]] = arms
    return curves, starting


def _pictures(workshop: "ReconstructionWorkshop", plan: Plan, pooled: Pool, scores: np.ndarray) -> list[SlicePicture]:
    """The best, the median and the worst volume of the best arm, of those that runs kept a slice of."""
    recipe, measures = workshop.recipe, workshop.measures
    kept = np.concatenate([kept_rows(fold.test) for fold in plan.folds])
    places = placed(np.where(np.isin(pooled.rows, kept), scores, np.nan), recipe.metric, measures)
    return [
        SlicePicture(
            _drawn(workshop, int(pooled.rows[at]), _kept(workshop, plan, int(pooled.rows[at]))),
            place,
            str(workshop.target.manifest.table["sample"].iloc[pooled.rows[at]]),
            f"{measures.words[recipe.metric]} {measures.score(float(scores[at]), recipe.metric)}",
        )
        for place, at in places.items()
    ]


def _kept(workshop: "ReconstructionWorkshop", plan: Plan, row: int) -> dict[str, np.ndarray]:
    """What each arm made of a volume's middle slice, in units of the volume's maximum; zero-filled is shown anyway."""
    found, name = {}, kept_slice(row)
    for arm, spec in workshop.recipe.arms.items():
        run = run_of(workshop.recipe, plan, arm, row)
        kept = {} if spec.network.name == ZERO_FILLED else load_kept(workshop.folder, run.key, name)
        if name in kept:
            found[arm] = kept[name]
    return found


def _drawn(workshop: "ReconstructionWorkshop", row: int, kept: dict[str, np.ndarray]) -> np.ndarray:
    volume = workshop.target.store.volume(row)
    middle, largest = middle_slice(volume), np.float32(volume.max_value or 1.0)
    mask = workshop.target.masks(row, workshop.recipe.sampling)[hardest(workshop)]
    reference = middle.read(0).target
    assert reference is not None  # a study's volumes are fully sampled
    zero_filled = rebuilt(build_reconstruction_network(ZERO_FILLED), middle, mask, FLOAT32, "cpu")[0]
    return slice_picture(
        reference,
        zero_filled,
        {name: image.astype(np.float32) * largest for name, image in kept.items()},
        max_value=float(largest),
        columns=restrict(mask.columns, volume.padding),
        acceleration=mask.acceleration,
        spacing=volume.spacing[:2] if volume.spacing else (1.0, 1.0),
    )
