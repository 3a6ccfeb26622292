"""The localisation half of a classification study: where do its networks see what a test image shows?

Asked of every run at the largest budget, of every test image whose mask is not empty: Grad-CAM of the image's true
class at the network's last stage, against the mask resized as the image was. It is the true class that is explained,
as in the pointing game (Zhang et al. 2018, IJCV 126:1084, section 4.2): the question is where a network finds the
evidence for what is there, which has an answer also where the network prefers another class.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.augment.prepare import to_input
from mrtransfer.common.errors import UserError
from mrtransfer.data.masks import PreparedMasks
from mrtransfer.models.network import Backbone
from mrtransfer.study.outcome import load_kept
from mrtransfer.study.plan import Plan, Run
from mrtransfer.study.statistics import Outcome, analyse, table_measures
from mrtransfer.study.statistics.analysis import plain
from mrtransfer.study.statistics.measures import SHARE
from mrtransfer.tasks.localisation.boxes import Box, find_in_mask
from mrtransfer.tasks.localisation.gradcam import grad_cams, heat_maps
from mrtransfer.tasks.localisation.scores import LOCALISATION_METRICS, NO_MASK_RULE, WORDS, score_heat
from mrtransfer.training.batches import batch_bounds, gather
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
KEPT = 1000
"""Grad-CAMs kept of a run for pictures, at the most; scores are kept of all images."""
_BATCH = 32

# Arrays that a run keeps: rows and scores of its images; of the first seed, Grad-CAMs and whose they are.
ROWS, SCORES, GRID, CAM_ROWS, CAMS = "where_rows", "where_scores", "where_grid", "where_cam_rows", "where_cams"
REFUSED = "where_refused"
"""Or the reason why the network cannot be asked."""


def look(
    workshop: "ClassificationWorkshop", runs: Sequence[Run], network: Backbone, heads: Sequence[nn.Sequential]
) -> list[dict[str, Any]]:
    """What each of ``runs``, of one arm on one network, sees where: the arrays to keep.

    The network runs once over the test images of a fold for all heads. Its batches depend on the fold alone, so that an
    interrupted study ends with the same bytes.
    """
    kept: list[dict[str, Any]] = [{} for _ in runs]
    masks = workshop.masks
    asked = [number for number, run in enumerate(runs) if run.budget == workshop.recipe.budgets[-1]]
    if masks is None:
        return kept
    for _, of_fold in groupby(sorted(asked, key=lambda number: runs[number].fold), lambda number: runs[number].fold):
        same = list(of_fold)
        rows = _pointed_at(masks, runs[same[0]].test)
        try:
            cams = _cams(workshop, runs[same[0]], network, [heads[number] for number in same], rows)
        except UserError as refused:
            kept = [kept[number] | ({REFUSED: np.array(str(refused))} if number in same else {}) for number in ...]
    return kept
