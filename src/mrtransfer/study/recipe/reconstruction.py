"""Recipes that ask about reconstruction."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from mrtransfer.augment.kspace import MRAugment
from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.models.reconstruction import build_reconstruction_network
from mrtransfer.models.reconstructors import RECONSTRUCTORS
from mrtransfer.models.weights import WeightsSpec, parse_weights
from mrtransfer.physics.masks import Sampling
from mrtransfer.study.recipe.base import ArmSpec, Recipe
from mrtransfer.study.recipe.specs import NetworkSpec, SourceSpec, written_method
from mrtransfer.tasks.reconstruction.losses import build_loss
from mrtransfer.tasks.reconstruction.metrics import RECONSTRUCTION_METRICS
from mrtransfer.transfer.freeze import ALL as FREEZE_ALL
from mrtransfer.transfer.method import Method, NetworkMethod, parse_method

CLASSICAL = "classical"
AS_ARM = "arm"
FASTMRI = Sampling(mask="equispaced_fraction", acceleration=(4.0, 8.0), centre_fraction=(0.08, 0.04))
"""How fastMRI's brain challenge undersamples."""


def _checked(method: Method) -> Method:
    """``method`` where it can reconstruct; what is only for other tasks is refused."""
    if method.cached:
        raise ValueError(f"{method.name} is for classification; reconstruct with scratch, fine_tune or zero_shot")
    if not method.labels:
        raise ValueError(f"{method.name} is for classes and masks; reconstruct with scratch, fine_tune or zero_shot")
    if method.class_weights is not None:
        raise ValueError("class_weights: is for classification; images to be reconstructed have no classes")
    if getattr(method, "head", "linear") != "linear":
        raise ValueError("head: mlp is for classification; a reconstruction has no head: leave it out")
    if getattr(method, "freeze", None) == FREEZE_ALL:
        raise ValueError("freeze: all leaves nothing to train, as a reconstruction has no head; choose zero_shot")
    return _with_one_rate(method)


def _with_one_rate(method: Method) -> Method:
    """``method`` with ``rate`` for the whole network, where others have one for the head and one for the rest."""
    if not isinstance(method, NetworkMethod) or method.backbone_rate in (None, method.rate):
        return method
    if "backbone_rate" in method.model_fields_set:
        raise ValueError("backbone_rate: a reconstruction has no head that could have another rate; give rate alone")
    return method.model_copy(update={"backbone_rate": method.rate})


def _augment(value: Any) -> Any:
    """``none`` and ``mraugment``, the published settings, may be written as words."""
    if isinstance(value, str) and value != AS_ARM:
        words: dict[str, Any] = {"none": None, "mraugment": {}}
        if value not in words:
            raise ValueError(str(unknown_name("augmentation", value, words)))
        return words[value]
    return value


def _weights(value: str | dict[str, Any]) -> WeightsSpec:
    """``value`` understood, where a reconstruction network can start from it."""
    try:
        weights = parse_weights(value)
    except UserError as error:
        raise ValueError(str(error).removeprefix("weights: ").removeprefix("weights ")) from error
    if weights.kind == "imagenet" or (weights.kind == "mean_var" and weights.file is None):
        raise ValueError(f"{weights.kind} is for networks that see images; reconstruct from random, source or a file")
    return weights


ReconstructionMethod = Annotated[Method, AfterValidator(_checked), PlainSerializer(written_method)]
KspaceAugment = Annotated[MRAugment | None, BeforeValidator(_augment)]


class ReconstructionSource(SourceSpec):
    """A source of fully sampled k-space.

    ``augment`` says what may be changed while the source is learned. By default, ``arm``, that is each arm's own
    ``augment``: arms with and without augmentation then start from sources that were learned with and without it, and
    those that agree share one source training. A source model that is applied as it is (``zero_shot``) can therefore be
    asked for with augmentation, though nothing is tuned. ``none``, ``mraugment`` or settings of one's own are the same
    for all arms.
    """

    method: ReconstructionMethod = Field(default_factory=lambda: parse_method("scratch"))
    augment: Annotated[MRAugment | Literal["arm"] | None, BeforeValidator(_augment)] = "arm"

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        if _weights(value).kind == "source":
            raise ValueError("the source cannot start from itself; give random or a file")
        return value


class ReconstructionArm(ArmSpec):
    """An arm that reconstructs: its loss, one name or several with their weights, and what augmentation may change.

    A network without parameters (``zero_filled``, ``sense``, ``l1_wavelet``) has the method ``classical``, which need
    not be said.
    """

    CLASSICAL: ClassVar[bool] = True

    method: ReconstructionMethod
    loss: str | dict[str, float] = "ssim"
    augment: KspaceAugment = None

    @model_validator(mode="before")
    @classmethod
    def _classical_by_itself(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "method" in data:
            return data
        network = data.get("network")
        name = network.get("name") if isinstance(network, dict) else network
        classical = isinstance(name, str) and name in RECONSTRUCTORS and not _learns(name, {})
        return {**data, "method": CLASSICAL} if classical else data

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str | dict[str, float]) -> str | dict[str, float]:
        try:
            build_loss(value)
        except UserError as error:
            raise ValueError(str(error).removeprefix("loss: ")) from error
        return value

    @field_validator("network")
    @classmethod
    def _known_network(cls, value: NetworkSpec) -> NetworkSpec:
        if value.name not in RECONSTRUCTORS:
            raise ValueError(str(unknown_name("reconstruction", value.name, RECONSTRUCTORS.names())))
        if value.until is not None:
            raise ValueError("until: a reconstruction network cannot be cut; choose fewer cascades or pools instead")
        try:
            _learns(value.name, value.options)
        except UserError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        _weights(value)
        return value

    @model_validator(mode="after")
    def _trains_what_can_be_trained(self) -> "ReconstructionArm":
        name, weights = self.network.name, parse_weights(self.weights)
        learns = _learns(name, self.network.options)
        if learns != self.method.needs_weights:
            right = "choose scratch, fine_tune or zero_shot" if learns else "leave method out"
            raise ValueError(f"method: {self.method.name} is not for {name}, which has {_count(learns)}; {right}")
        if not learns and weights.kind != "random":
            raise ValueError(f"weights: {name} has no parameters to give values to; leave weights out")
        if self.method.needs_weights and not self.method.learns and weights.kind == "random":
            raise ValueError(
                f"method {self.method.name}: needs a trained model; set weights: source, or name a file of weights"
            )
        return self


def _learns(name: str, options: Mapping[str, Any]) -> bool:
    """Whether the network has parameters; it is built without any values for it."""
    with torch.device("meta"):
        return build_reconstruction_network(name, options=options).learns


def _count(learns: bool) -> str:
    return "parameters to be trained" if learns else "no parameters"


class ReconstructionRecipe(Recipe):
    """A study of reconstruction: the image behind undersampled k-space.

    ``sampling``: how k-space is undersampled. A training slice has a new mask in every epoch, of any of the
    accelerations. A volume that is scored has one mask of each acceleration in turn, seeded by its name as fastMRI's
    is, and its score is the mean over them.
    """

    METRICS = RECONSTRUCTION_METRICS

    task: Literal["reconstruction"] = "reconstruction"
    source: ReconstructionSource | None = None
    sampling: Sampling = FASTMRI
    arms: Mapping[str, ReconstructionArm]
    metric: str = "ssim"

    @field_validator("sampling")
    @classmethod
    def _each_acceleration_once(cls, value: Sampling) -> Sampling:
        if len(set(value.acceleration)) < len(value.acceleration):
            raise ValueError("acceleration: each may be there once, for scores are told apart by it")
        return value
