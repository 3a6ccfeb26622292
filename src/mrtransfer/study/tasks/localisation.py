"""The localisation half of a classification study: where do its networks see what a test image shows?

Asked of every run at the largest budget, of every test image whose mask is not empty: Grad-CAM of the image's true
class at the network's last stage, against the mask resized as the image was. It is the true class that is explained,
as in the pointing game (Zhang et al. 2018, IJCV 126:1084, section 4.2): the question is where a network finds the
evidence for what is there, which has an answer also where the network prefers another class.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.augment.prepare import to_input
from mrtransfer.common.errors import UserError
from mrtransfer.common.plain import plain
from mrtransfer.data.masks import PreparedMasks
from mrtransfer.models.network import Backbone
from mrtransfer.study.execute import job_of
from mrtransfer.study.outcome import load_kept
from mrtransfer.study.plan import Plan, Run
from mrtransfer.study.statistics import Outcome, analyse, table_measures
from mrtransfer.study.statistics.measures import SHARE
from mrtransfer.tasks.localisation.boxes import Box, find_in_mask
from mrtransfer.tasks.localisation.gradcam import grad_cams, heat_maps
from mrtransfer.tasks.localisation.scores import LOCALISATION_METRICS, NO_MASK_RULE, WORDS, score_heat
from mrtransfer.training.batches import batch_bounds, gather, input_settings
from mrtransfer.training.precision import choose_device, placed

if TYPE_CHECKING:
    from mrtransfer.study.tasks.classification import ClassificationWorkshop

MAIN = "pointing"
MEASURES = table_measures(
    LOCALISATION_METRICS,
    higher_is_better=dict.fromkeys(LOCALISATION_METRICS, True),
    ranges=dict.fromkeys(LOCALISATION_METRICS, (0.0, 1.0)),
    words=WORDS,
    units=dict.fromkeys(LOCALISATION_METRICS, SHARE),
)
RULE = (
    "Grad-CAM of the true class at the last stage of the network, one score per test image, averaged within each "
    f"independent unit of the test set. {NO_MASK_RULE}"
)
_BATCH = 32

# What a run keeps: rows and scores of its images and the grid of the network's maps, or why it cannot be asked; of the
# first seed also Grad-CAMs, for pictures, and whose they are.
ROWS, SCORES, GRID, REFUSED = "where_rows", "where_scores", "where_grid", "where_refused"
CAM_ROWS, CAMS = "where_cam_rows", "where_cams"
MOST_CAMS = 1000


def look(
    workshop: "ClassificationWorkshop", runs: Sequence[Run], network: Backbone, heads: Sequence[nn.Sequential]
) -> list[dict[str, np.ndarray]]:
    """Where each of ``runs``, of one arm on one network, sees what is there: the arrays to keep.

    The network runs once over a fold's test images, for all heads. Its batches depend on the fold alone, so that an
    interrupted study ends with the same bytes. A network without maps is no reason to fail: that is noted.
    """
    kept: list[dict[str, np.ndarray]] = [{} for _ in runs]
    asked = [number for number, run in enumerate(runs) if workshop.asks(run.budget)]
    folds = sorted(asked, key=lambda number: runs[number].fold)
    for _, same in groupby(folds, key=lambda number: runs[number].fold):
        numbers = list(same)
        own = [runs[number] for number in numbers]
        try:
            seen = _seen(workshop, own, network, [heads[number] for number in numbers])
        except UserError as reason:
            seen = [{REFUSED: np.array(str(reason))} for _ in own]
        for number, arrays in zip(numbers, seen, strict=True):
            kept[number] = arrays
    return kept


def _seen(
    workshop: "ClassificationWorkshop", runs: Sequence[Run], network: Backbone, heads: Sequence[nn.Sequential]
) -> list[dict[str, np.ndarray]]:
    """:func:`look` for the runs of one fold."""
    masks = workshop.masks
    assert masks is not None
    rows = _to_find(masks, runs[0].test)
    shown = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_CAMS)).astype(int))]
    scores: list[list[list[float]]] = [[] for _ in runs]
    cams: list[list[np.ndarray]] = [[] for _ in runs]
    grid: tuple[int, ...] = ()
    for own, found in _cams(workshop, runs[0], network, heads, rows):
        grid = tuple(found.shape[2:])
        for number, of_head in enumerate(found):
            heats = heat_maps(of_head, (masks.size, masks.size)).numpy()
            scores[number] += [_scores(heat, masks.mask(row)) for heat, row in zip(heats, own, strict=True)]
            if runs[number].seed == workshop.recipe.seeds[0] or not runs[number].spec.method.learns:
                highest = of_head.amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
                cams[number].append((of_head / highest).half().numpy()[np.isin(own, shown)])
    return [
        {ROWS: rows, SCORES: np.array(scores[number]).reshape(len(rows), len(LOCALISATION_METRICS))}
        | ({GRID: np.array(grid)} if grid else {})
        | ({CAM_ROWS: shown, CAMS: np.concatenate(cams[number])} if cams[number] else {})
        for number in range(len(runs))
    ]


def _cams(
    workshop: "ClassificationWorkshop", run: Run, network: Backbone, heads: Sequence[nn.Sequential], rows: np.ndarray
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Batches of ``rows`` and the Grad-CAMs of their true classes, float32 (heads, n, *places) on the CPU."""
    labels, seen = workshop.target.labels, input_settings(workshop.input_of(run.spec))
    images = workshop.seen(job_of(run, workshop), workshop.target).images
    precision, device = workshop.precision(run.spec), choose_device(workshop.device)
    with placed(precision, device, network, *heads):
        for start, end in batch_bounds(len(rows), _BATCH):
            own = rows[start:end]
            inputs = precision.lay_out(to_input(gather(images, own).to(device), **seen))
            with precision.autocast(device):
                found = grad_cams(network, heads, inputs, torch.from_numpy(labels[own]).to(device)).cpu()
            if found[0, 0].numel() == 1:
                raise UserError(
                    f"Grad-CAM: {network.name} ends in a single place for images of {inputs.shape[-1]} pixels, which "
                    "points nowhere; larger images, or a network cut earlier, have more"
                )
            yield own, found


def _scores(heat: np.ndarray, mask: np.ndarray) -> list[float]:
    found = score_heat(heat, mask)
    assert found is not None, "only images with a mask are asked"
    return [found[name] for name in LOCALISATION_METRICS]


def _uninformed(mask: np.ndarray) -> list[float]:
    """The scores of a map that knows nothing: its maximum at the centre, its box and its heat all over the image."""
    size = len(mask)
    centre = slice((size - 1) // 2, size // 2 + 1)
    whole = Box((0, 0), (size - 1, size - 1))
    overlap = max(whole.overlap(lesion.box) for lesion in find_in_mask(mask))
    return [float(mask[centre, centre].any()), overlap, float(mask.mean())]


def _to_find(masks: PreparedMasks, rows: np.ndarray) -> np.ndarray:
    """Those of ``rows`` that show something to point at."""
    return rows[masks.filled[rows]]


def localisation(workshop: "ClassificationWorkshop", plan: Plan) -> dict[str, Any] | None:
    """The study's localisation in numbers, ready for JSON; None where no test image has a mask.

    Arms at the largest budget and their paired differences, as for the study's own metrics, but without verdict: the
    recipe's margin is that of another metric.
    """
    masks, recipe, target = workshop.masks, workshop.recipe, workshop.target
    if masks is None:
        return None
    rows = _to_find(masks, np.unique(np.concatenate([fold.test for fold in plan.folds])))
    if not len(rows):
        return None
    outcomes, grids, refused = answers(workshop, plan)
    found: dict[str, Any] = {"design": {}, "arms": [], "comparisons": [], "notes": []}
    if outcomes:
        found = analyse(
            outcomes,
            target.labels,
            target.units,
            measures=MEASURES,
            main=MAIN,
            margin=recipe.margin,
            compare=[pair for pair in recipe.comparisons if not refused.keys() & set(pair)],
            resamples=recipe.resamples,
            unit=workshop.unit,
        )
    unjudged = ("primary", "verdict", "reason")
    return {
        "rule": RULE,
        "design": {key: value for key, value in found["design"].items() if key != "margin"} | {"samples": len(rows)},
        "arms": found["arms"],
        "comparisons": [{k: v for k, v in entry.items() if k not in unjudged} for entry in found["comparisons"]],
        "grids": grids,
        "uninformed": plain(_mean_over_units(rows, [_uninformed(masks.mask(row)) for row in rows], target.units)),
        "notes": [*found["notes"], *(f"{arm} was not asked where it looks. {why}." for arm, why in refused.items())],
    }


def answers(
    workshop: "ClassificationWorkshop", plan: Plan
) -> tuple[list[Outcome], dict[str, list[int]], dict[str, str]]:
    """What the runs kept: scores per unit, each arm's grid of maps, and the arms without maps with the reason."""
    asked = [(run, load_kept(workshop.folder, run.key)) for run in plan.runs if workshop.asks(run.budget)]
    refused = {run.arm: str(kept[REFUSED]) for run, kept in asked if REFUSED in kept}
    answered = [(run, kept) for run, kept in asked if run.arm not in refused]
    grids = {run.arm: kept[GRID].tolist() for run, kept in answered if GRID in kept}
    return [_outcome(run, kept, workshop.target.units) for run, kept in answered], grids, refused


def _outcome(run: Run, kept: dict[str, np.ndarray], units: np.ndarray) -> Outcome:
    """One row of scores per unit, the means over its images, in the place of the first of them."""
    first, table = _per_unit(kept[ROWS], kept[SCORES], units)
    return Outcome(run.arm, run.budget, run.seed, run.fold, first, table, run.labelled)


def _per_unit(rows: np.ndarray, table: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of every unit, and the means (U, M) over its rows of ``table`` (n, M)."""
    _, first, place, counts = np.unique(units[rows], return_index=True, return_inverse=True, return_counts=True)
    sums = np.zeros((len(first), table.shape[1]))
    np.add.at(sums, place.reshape(-1), table)
    return rows[first], sums / counts[:, None]


def _mean_over_units(rows: np.ndarray, table: Sequence[Sequence[float]], units: np.ndarray) -> dict[str, float]:
    means = _per_unit(rows, np.array(table), units)[1].mean(axis=0)
    return dict(zip(LOCALISATION_METRICS, means.tolist(), strict=True))
