"""Recipes that ask about classification."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mrtransfer.augment.image import Augment
from mrtransfer.common.strict import Strict
from mrtransfer.study.recipe.base import ArmSpec, Recipe
from mrtransfer.study.recipe.specs import Harmonise, NetworkSpec, SourceSpec
from mrtransfer.tasks.classification.metrics import METRICS


class InputSpec(Strict):
    """What every network of the study sees."""

    size: int = Field(224, ge=16, le=1024)
    fit: Literal["stretch", "pad"] = "stretch"
    channels: int = Field(3, ge=1)


class ClassificationSource(SourceSpec):
    """A source of classified images."""

    augment: Augment = Augment()
    harmonise: Harmonise = None
    """To the average of the source's own training rows."""


class ClassificationArm(ArmSpec):
    """An arm that classifies images, and what its network is shown."""

    normalise: Literal["imagenet", "half", "unit", "instance"] = "imagenet"
    augment: Augment = Augment()
    harmonise: Harmonise = None
    """What the arm is shown of the target: scans brought to the training rows of the source where the arm uses that,
    and otherwise to those of the target."""

    @field_validator("network")
    @classmethod
    def _no_options(cls, value: NetworkSpec) -> NetworkSpec:
        if value.options:
            raise ValueError(f"{next(iter(value.options))}: a classifier's network has a name and until, nothing else")
        return value

    @model_validator(mode="after")
    def _flips_only_where_features_are_kept(self) -> "ClassificationArm":
        moved = [name for name, value in self.augment.model_dump().items() if value and name != "hflip"]
        if self.method.cached and moved:
            raise ValueError(
                f"augment.{moved[0]} cannot be used with a method on frozen features, which are computed once "
                "per image; only hflip can (both views are kept)"
            )
        return self


class ClassificationRecipe(Recipe):
    """A study of classification: one label per image."""

    METRICS = METRICS

    task: Literal["classification"] = "classification"
    source: ClassificationSource | None = None
    input: InputSpec = InputSpec()
    arms: Mapping[str, ClassificationArm]
    metric: str = "accuracy"
