"""Minimum class confusion (MCC)."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mrtransfer.transfer.method import Adaptation
from mrtransfer.transfer.methods import METHODS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mrtransfer.transfer.alignment import Halves


@METHODS.register("mcc")
class MCC(Adaptation):
    """Make predictions on unlabelled target data tell classes apart: minimum class confusion (MCC).

    Of the target's logits, in segmentation those of drawn voxels; see :func:`~mrtransfer.transfer.alignment.mcc_loss`.
    It needs classes that exclude each other, so not the loss ``region``.

    Source: Jin et al., *Minimum Class Confusion for Versatile Domain Adaptation*, ECCV 2020.
    """

    name: ClassVar[str] = "mcc"
    exclusive: ClassVar[bool] = True

    temperature: float = Field(2.5, gt=0)
    """By which logits are divided."""

    def penalty(self, halves: "Halves", critic: "nn.Module | None") -> "Tensor":
        """``weight`` · the confusion."""
        from mrtransfer.transfer.alignment import mcc_loss

        return self.weight * mcc_loss(halves.target_logits, self.temperature)
