"""A segmentation model with all that its folder says about its use, and what it makes of a scan."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.geometry import Axis, axes
from mrtransfer.data.cases.plan import SegmentationPlan
from mrtransfer.data.harmoniser import FittedHarmoniser
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.volume import Case
from mrtransfer.deploy.predict import harmoniser_of
from mrtransfer.models.package import load_model
from mrtransfer.tasks.segmentation.clean import Cleaning
from mrtransfer.training.precision import Precision


@dataclass(frozen=True)
class Segmenter:
    """Network and head, and how scans are prepared, looked at and cleaned."""

    network: nn.Module
    head: nn.Module
    plan: SegmentationPlan
    labels: MaskLabels
    loss: str
    channels: tuple[str, ...]
    cleaning: Cleaning | None
    overlap: float
    """Of neighbouring windows."""
    mirror: tuple[Axis, ...]
    """Axes along which every window is also seen mirrored."""
    digest: str
    """Of the weights."""
    provenance: dict[str, Any]
    """What it was trained on."""
    harmonise: FittedHarmoniser | None = None
    """What scans pass through before they are prepared."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The model in ``folder``; :class:`UserError` where it is damaged or made for another task."""
        model = load_model(folder)
        if model.task != "segmentation":
            raise UserError(f"{folder}: is a model for {model.task}, not for segmentation")
        spec, file = model.spec, folder / "model.json"
        inference = spec.get("inference") or {}
        return cls(
            model.network,
            model.head,
            SegmentationPlan.from_json(spec["plan"], f"{file}: plan"),
            MaskLabels.from_json(spec["mask_labels"], f"{file}: mask_labels"),
            str(spec["loss"]),
            tuple(spec["channels"]),
            Cleaning.from_json(spec["postprocess"], f"{file}: postprocess"),
            float(inference.get("overlap", 0.5)),
            axes(inference.get("mirror", ())),
            str(spec["digest"]),
            dict(spec["provenance"]),
            harmoniser_of(spec, folder),
        )


@dataclass(frozen=True, eq=False)
class Segmented:
    """One segmented scan: what was read, and on the same grid what was found."""

    case: Case
    classes: np.ndarray
    """uint8 (X, Y, Z), class indices."""
    regions: np.ndarray
    """float32 (R, X, Y, Z), probability of each region."""
    digest: str
    """Of the prepared image, as a :class:`~mrtransfer.data.cases.store.CaseStore` has it."""
    precision: Precision
