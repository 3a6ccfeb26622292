"""Deep correlation alignment (Deep CORAL)."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mrtransfer.transfer.method import Adaptation
from mrtransfer.transfer.methods import METHODS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mrtransfer.transfer.alignment import Halves


@METHODS.register("deep_coral")
class DeepCORAL(Adaptation):
    """Bring the covariance of features of unlabelled target data near the source's (Deep CORAL).

    On pooled features, in segmentation on those of drawn voxels; see :func:`~mrtransfer.transfer.alignment.coral_loss`.

    Source: Sun & Saenko, *Deep CORAL: Correlation Alignment for Deep Domain Adaptation*, ECCV workshops 2016.
    """

    name: ClassVar[str] = "deep_coral"

    weight: float = Field(10.0, ge=0)
    """The paper chooses it so that both losses end about equal; the division by 4 d² makes this one small."""

    def penalty(self, halves: "Halves", critic: "nn.Module | None") -> "Tensor":
        """``weight`` · ‖C_s − C_t‖² / (4 d²)."""
        from mrtransfer.transfer.alignment import coral_loss

        return self.weight * coral_loss(halves.source, halves.target)
