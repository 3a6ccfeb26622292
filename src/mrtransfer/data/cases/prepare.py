"""One case as its plan wants it; the same for training and for prediction."""

from dataclasses import dataclass

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.normalise import normalised
from mrtransfer.data.cases.plan import SegmentationPlan
from mrtransfer.data.harmoniser import FittedHarmoniser
from mrtransfer.data.volume import Case, Frame, make_frame, nonzero_crop
from mrtransfer.data.volume.volume import spacing_of

SAME_SPACING = 0.01
"""Cases whose spacing differs from the plan's by no more than this part are not resampled: it would only blur them."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case on its prepared grid."""

    image: np.ndarray
    """float32 (C, x, y, z), normalised."""
    mask: np.ndarray | None
    """uint8 (x, y, z), class indices."""
    frame: Frame
    """From the case's own grid to this one, and back."""


def prepare_case(case: Case, plan: SegmentationPlan, harmonise: FittedHarmoniser | None = None) -> Prepared:
    """Crop, harmonise where asked, normalise and resample ``case``.

    Normalised before it is resampled, so that what is blurred at the border of a brain that was cut out does not count.
    Raises :class:`UserError` where the plan or the harmoniser is for another number of channels.
    """
    if len(case.image) != len(plan.normalise):
        raise UserError(
            f"has {len(case.image)} channels ({', '.join(case.channels)}), and the plan's 'normalise' is for "
            f"{len(plan.normalise)}; both must agree"
        )
    frame = case_frame(case.image, case.affine, plan)
    raw = case.image if harmonise is None else harmonise(case.image)
    image = frame.image_to_prepared(normalised(raw, plan.normalise))
    return Prepared(image, None if case.mask is None else frame.mask_to_prepared(case.mask), frame)


def case_frame(image: np.ndarray, affine: np.ndarray, plan: SegmentationPlan) -> Frame:
    """The frame of ``image`` (C, X, Y, Z) with ``affine`` (4, 4) under ``plan``."""
    crop = nonzero_crop(image, affine) if plan.crop == "nonzero" else None
    frame = make_frame(image.shape[1:], affine, crop=crop)
    if plan.spacing is None:
        return frame
    own = spacing_of(affine)
    for axis, size, wanted in zip(frame.axes, image.shape[1:], plan.spacing, strict=True):
        if size > 1 and abs(own[axis] - wanted) > SAME_SPACING * wanted:
            return make_frame(image.shape[1:], affine, spacing=plan.spacing, crop=crop)
    return frame
