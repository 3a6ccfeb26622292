"""How well a heat map points at the lesions: pointing game, box IoU, share of heat inside.

* Pointing game (Zhang et al. 2018, IJCV 126:1084): a hit where the map's maximum lies in the mask or within a tolerance
  of it, measured between voxel centres.
* Box IoU: the box of the heat map (:func:`~mrtransfer.tasks.localisation.boxes.find_in_heat`) against the boxes of the
  lesions, the best of them.
* Share of heat inside, the energy-based pointing game (Wang et al. 2020, Score-CAM), with the mask in place of its box.

An image without mask, or whose mask is empty, has nothing to point at: it has no scores and no part in the means. A
heat map that is 0 everywhere points nowhere and has 0 in all of them.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from mrtransfer.common.errors import UserError
from mrtransfer.tasks.localisation.boxes import SHARE, find_in_heat, find_in_mask
from mrtransfer.tasks.segmentation.extent import checked_spacing

LOCALISATION_METRICS = ("pointing", "box_iou", "heat_inside")
WORDS = {
    "pointing": "pointing game",
    "box_iou": "IoU of the boxes",
    "heat_inside": "share of heat inside the mask",
}
NO_MASK_RULE = (
    "Images without mask, or with an empty one, have nothing to point at and are left out of the localisation scores."
)


def score_heat(
    heat: np.ndarray,
    mask: np.ndarray | None,
    *,
    tolerance: float = 0.0,
    share: float = SHARE,
    spacing: Sequence[float] | None = None,
) -> dict[str, float] | None:
    """Each of :data:`LOCALISATION_METRICS`, 0 … 1, for one image; None without a mask or with an empty one.

    Args:
        heat: values of 0 or more, any number of axes.
        mask: of the same shape, non-zero in lesions.
        tolerance: of the pointing game, in voxels, or in mm where ``spacing`` (mm per axis) is given.
        share: of the maximum, above which the heat map's box lies.
        spacing: mm per axis.
    """
    if tolerance < 0:
        raise UserError(f"tolerance: is {tolerance}; it must be 0 or more")
    if mask is None or not mask.any():
        return None
    if mask.shape != heat.shape:
        raise UserError(f"heat map: its shape {heat.shape} and that of the mask, {mask.shape}, differ")
    found = find_in_heat(heat, share=share)
    if found is None:
        return dict.fromkeys(LOCALISATION_METRICS, 0.0)
    inside = mask != 0
    return {
        "pointing": float(_points_at(heat, inside, tolerance, spacing)),
        "box_iou": max(found.box.overlap(lesion.box) for lesion in find_in_mask(mask)),
        "heat_inside": float(heat[inside].sum(dtype=float) / heat.sum(dtype=float)),
    }


def _points_at(heat: np.ndarray, inside: np.ndarray, tolerance: float, spacing: Sequence[float] | None) -> bool:
    """Whether any maximum of the map lies within ``tolerance`` of the mask."""
    peaks = heat == heat.max()
    if (peaks & inside).any() or tolerance == 0:
        return bool((peaks & inside).any())
    steps = None if spacing is None else checked_spacing(spacing, heat.ndim)
    return bool(distance_transform_edt(~inside, sampling=steps)[peaks].min() <= tolerance)
