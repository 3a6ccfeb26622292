"""Deep adaptation by maximum mean discrepancy (DAN)."""

from typing import TYPE_CHECKING, ClassVar

from mrtransfer.transfer.method import Adaptation
from mrtransfer.transfer.methods import METHODS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mrtransfer.transfer.alignment import Halves


@METHODS.register("dan")
class DAN(Adaptation):
    """Bring features of unlabelled target data near the source's by their multi-kernel MMD (DAN).

    The unbiased estimate of each batch, on pooled features, in segmentation on those of drawn voxels; see
    :func:`~mrtransfer.transfer.alignment.mmd_loss`.

    Source: Long et al., *Learning Transferable Features with Deep Adaptation Networks*, ICML 2015.
    """

    name: ClassVar[str] = "dan"

    def penalty(self, halves: "Halves", critic: "nn.Module | None") -> "Tensor":
        """``weight`` · MMD²."""
        from mrtransfer.transfer.alignment import mmd_loss

        return self.weight * mmd_loss(halves.source, halves.target)
