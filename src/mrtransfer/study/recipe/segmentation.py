"""Recipes that ask about segmentation."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from mrtransfer.augment.volume import VolumeAugment
from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.strict import Strict, unknown_key
from mrtransfer.data.cases.geometry import AXES, Axis, axes
from mrtransfer.data.cases.plan import SegmentationPlan
from mrtransfer.models.segmentation import check_options
from mrtransfer.models.segmenters import SEGMENTERS
from mrtransfer.study.recipe.base import ArmSpec, Recipe
from mrtransfer.study.recipe.specs import Harmonise, NetworkSpec, SourceSpec, written_method
from mrtransfer.tasks.segmentation.losses import LOSSES
from mrtransfer.tasks.segmentation.metrics import SEGMENTATION_METRICS
from mrtransfer.tasks.segmentation.outputs import by_region
from mrtransfer.transfer.method import Adaptation, Method, parse_method
from mrtransfer.transfer.methods.fine_tune import FineTune


class InferenceSpec(Strict):
    """How whole volumes are segmented by a network that sees patches."""

    overlap: float = Field(0.5, ge=0, lt=1)
    """Share by which neighbouring windows overlap."""
    mirror: Annotated[tuple[Axis, ...], BeforeValidator(axes)] = ()
    """Average over the mirror images of each window along these axes (true: all): slower, and a little better for
    networks that learned them."""
    clean: Literal["validation", "none"] = "validation"
    """Remove small components, as far as that raises the Dice on validation subjects; or never."""


FINE_TUNING_RATE = 1e-3
"""Of head and backbone, where the recipe gives ``fine_tune`` none."""


def _checked(method: Method) -> Method:
    """``method`` where it can segment, with rates for that; what is only for classification is refused."""
    if method.cached:
        raise ValueError(f"{method.name} is for classification; segment with scratch, fine_tune or zero_shot")
    if method.class_weights is not None:
        raise ValueError(
            "class_weights: is for classification; choose a loss that is fair to small classes, such as dice_ce or "
            "focal_tversky"
        )
    if getattr(method, "head", "linear") != "linear":
        raise ValueError(
            "head: mlp is for classification; a segmentation network has a 1×1×1 convolution: leave it out"
        )
    return _with_rates(method)


def _with_rates(method: Method) -> Method:
    """``method`` with :data:`FINE_TUNING_RATE` where it is ``fine_tune`` and nobody chose a rate.

    Its own default is for a head that starts as a probe of the features, and so is nearly right. The last layer of a
    segmentation network starts at random or as another domain's, and all of a fresh decoder counts as backbone.
    """
    if not isinstance(method, FineTune):
        return method
    rate = method.rate if "rate" in method.model_fields_set else FINE_TUNING_RATE
    backbone_rate = method.backbone_rate if "backbone_rate" in method.model_fields_set else rate
    return method.model_copy(update={"rate": rate, "backbone_rate": backbone_rate})


SegmentationMethod = Annotated[Method, AfterValidator(_checked), PlainSerializer(written_method)]


class SegmentationSource(SourceSpec):
    """A source of volumes with masks."""

    method: SegmentationMethod = Field(default_factory=lambda: parse_method("scratch"))
    augment: VolumeAugment = VolumeAugment()
    harmonise: Harmonise = None
    """To the average of the source's own training rows."""


class SegmentationArm(ArmSpec):
    """An arm that segments volumes: its loss, and what may be changed in training patches."""

    method: SegmentationMethod
    loss: str = "dice_ce"
    augment: VolumeAugment = VolumeAugment()
    harmonise: Harmonise = None
    """What the arm is shown of the target: scans brought to the training rows of the source where the arm uses that,
    and otherwise to those of the target."""

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str) -> str:
        if value not in LOSSES:
            raise ValueError(str(unknown_name("loss", value, LOSSES)))
        return value

    @model_validator(mode="after")
    def _classes_exclude_each_other_where_they_must(self) -> "SegmentationArm":
        if isinstance(self.method, Adaptation) and self.method.exclusive and by_region(self.loss):
            raise ValueError(
                f"loss: {self.method.name} needs classes that exclude each other, and {self.loss} has one sigmoid per "
                "region; choose dice_ce"
            )
        return self

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


class SegmentationRecipe(Recipe):
    """A study of segmentation: which voxels belong to which structure."""

    METRICS = SEGMENTATION_METRICS

    task: Literal["segmentation"] = "segmentation"
    source: SegmentationSource | None = None
    plan: dict[str, Any] = Field(default_factory=dict)
    """Settings of the plan that are not left to the data's fingerprint: ``spacing``, ``patch``, ``batch``, …

    They are the target's, and so the source's too; of ``normalise``, where it is one name for all channels."""
    inference: InferenceSpec = InferenceSpec()
    arms: Mapping[str, SegmentationArm]
    metric: str = "dice"

    @model_validator(mode="after")
    def _mirrors_only_what_was_learned(self) -> "SegmentationRecipe":
        for name, arm in self.arms.items():
            flips = dict(zip(AXES, arm.augment.flip[: arm.network.options.get("dims", 3)], strict=False))
            unseen = [axis for axis in self.inference.mirror if flips.get(axis) == 0]
            if unseen and arm.method.learns:
                raise ValueError(
                    f"inference.mirror: arm {name!r} never sees mirror images along {' and '.join(unseen)} in "
                    "training; give it augment.flip along them, or mirror along fewer axes (a left and a right, or a "
                    "front and a back, forbid it)"
                )
        return self

    @model_validator(mode="after")
    def _leaves_cases_to_plan_from(self) -> "SegmentationRecipe":
        if self.target.split.test == 1:
            raise ValueError("target.split.test: 1 leaves no cases to make a plan from; choose a share below 1")
        return self

    @field_validator("plan")
    @classmethod
    def _known_settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if key not in SegmentationPlan.model_fields:
                raise ValueError(unknown_key(key, list(SegmentationPlan.model_fields)))
        return value
