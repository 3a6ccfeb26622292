"""Recipes that ask about segmentation."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from mrtransfer.augment.volume import VolumeAugment
from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.strict import Strict, unknown_key
from mrtransfer.data.cases.plan import SegmentationPlan
from mrtransfer.models.segmentation import check_options
from mrtransfer.models.segmenters import SEGMENTERS
from mrtransfer.study.recipe.base import ArmSpec, Recipe
from mrtransfer.study.recipe.specs import NetworkSpec, SourceSpec
from mrtransfer.tasks.segmentation.losses import LOSSES
from mrtransfer.tasks.segmentation.metrics import SEGMENTATION_METRICS
from mrtransfer.transfer.method import Method


class InferenceSpec(Strict):
    """How whole volumes are segmented by a network that sees patches."""

    overlap: float = Field(0.5, ge=0, lt=1)
    """Share by which neighbouring windows overlap."""
    mirror: bool = False
    """Average over all mirror images of each window: slower, a little better."""
    clean: Literal["validation", "none"] = "validation"
    """Remove small components, as far as that raises the Dice on validation subjects; or never."""


class SegmentationSource(SourceSpec):
    """A source of volumes with masks."""

    augment: VolumeAugment = VolumeAugment()


class SegmentationArm(ArmSpec):
    """An arm that segments volumes: its loss, and what may be changed in training patches."""

    loss: str = "dice_ce"
    augment: VolumeAugment = VolumeAugment()

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str) -> str:
        if value not in LOSSES:
            raise ValueError(str(unknown_name("loss", value, LOSSES)))
        return value

    @field_validator("network")
    @classmethod
    def _known_network(cls, value: NetworkSpec) -> NetworkSpec:
        if value.name not in SEGMENTERS:
            raise ValueError(str(unknown_name("segmentation network", value.name, SEGMENTERS.names())))
        if value.until is not None:
            raise ValueError("until: a segmentation network cannot be cut; choose a smaller depth instead")
        try:
            check_options(value.name, {key: option for key, option in value.options.items() if key != "dims"})
        except UserError as error:
            raise ValueError(str(error)) from error
        if value.options.get("dims", 3) not in (2, 3):
            raise ValueError(f"dims: {value.options['dims']} is neither 2 nor 3")
        return value

    @field_validator("method")
    @classmethod
    def _trains_the_network(cls, value: Method) -> Method:
        if value.cached:
            raise ValueError(f"{value.name} is for classification; segment with scratch, fine_tune or zero_shot")
        return value


class SegmentationRecipe(Recipe):
    """A study of segmentation: which voxels belong to which structure."""

    METRICS = SEGMENTATION_METRICS

    task: Literal["segmentation"] = "segmentation"
    source: SegmentationSource | None = None
    plan: dict[str, Any] = Field(default_factory=dict)
    """Settings of the plan that are not left to the data's fingerprint: ``spacing``, ``patch``, ``batch``, …"""
    inference: InferenceSpec = InferenceSpec()
    arms: Mapping[str, SegmentationArm]
    metric: str = "dice"

    @field_validator("plan")
    @classmethod
    def _known_settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if key not in SegmentationPlan.model_fields:
                raise ValueError(unknown_key(key, list(SegmentationPlan.model_fields)))
        return value
