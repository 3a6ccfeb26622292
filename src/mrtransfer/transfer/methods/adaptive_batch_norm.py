"""Batch norm's statistics of the target instead of the source's (AdaBN)."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mrtransfer.common.errors import UserError
from mrtransfer.transfer.method import Adaptation
from mrtransfer.transfer.methods import METHODS

if TYPE_CHECKING:
    from mrtransfer.models.network import StagedNetwork

_OF_USE = ("batch", "steps")


@METHODS.register("adaptive_batch_norm")
class AdaptiveBatchNorm(Adaptation):
    """Estimate batch norm anew on unlabelled target data (AdaBN); no weight changes.

    The average over batches of one pass over the target's rows; the network needs batch norm. Only ``batch`` and, in
    segmentation, ``steps`` (batches of patches in that pass) can be set.

    Source: Li et al., *Revisiting Batch Normalization For Practical Domain Adaptation*, 2016 (arXiv 1603.04779).
    """

    name: ClassVar[str] = "adaptive_batch_norm"

    epochs: int = Field(0, ge=0, le=0)
    batch_norm: Literal["recalibrate"] = "recalibrate"

    @model_validator(mode="after")
    def _nothing_is_trained(self) -> Self:
        for key, field in type(self).model_fields.items():
            if key not in _OF_USE and getattr(self, key) != field.default:
                raise ValueError(f"{key} has no meaning here, as nothing is trained; leave it out")
        return self

    def check(self, network: "StagedNetwork") -> None:
        """Raise :class:`UserError` where ``network`` has no batch norm with running statistics."""
        from mrtransfer.transfer.freeze import normalisation_layers

        if not normalisation_layers(network):
            raise UserError(
                f"adaptive_batch_norm: {network.name} has no batch norm whose statistics could be estimated anew; "
                "choose another network, or another method such as dann"
            )
