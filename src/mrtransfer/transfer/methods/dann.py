"""Domain-adversarial training (DANN)."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mrtransfer.transfer.method import Adaptation
from mrtransfer.transfer.methods import METHODS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mrtransfer.transfer.alignment import Halves


@METHODS.register("dann")
class DANN(Adaptation):
    """Confuse a critic that tells unlabelled target data from the source's (DANN).

    The critic sees pooled features, in segmentation those of drawn voxels; its gradient reaches the network reversed,
    times ``weight`` · λ(p), λ(p) = 2 / (1 + exp(−10 p)) − 1, where p is how much of the training is done.

    Source: Ganin et al., *Domain-Adversarial Training of Neural Networks*, JMLR 17 (2016).
    """

    name: ClassVar[str] = "dann"

    critic_rate: float = Field(1e-3, gt=0)
    """Learning rate of the critic, which starts from nothing."""
    critic_width: int = Field(256, ge=1)
    """Units in each of the critic's two hidden layers."""

    @property
    def rate_of_critic(self) -> float:
        """As the settings say."""
        return self.critic_rate

    def build_critic(self, features: int, seed: int) -> "nn.Module":
        """The domain classifier."""
        from mrtransfer.transfer.critic import domain_critic

        return domain_critic(features, self.critic_width, seed=seed)

    def penalty(self, halves: "Halves", critic: "nn.Module | None") -> "Tensor":
        """The critic's cross-entropy."""
        from mrtransfer.transfer.critic import adversarial_strength, domain_confusion_loss

        assert critic is not None
        factor = self.weight * adversarial_strength(halves.progress)
        return domain_confusion_loss(critic, halves.source, halves.target, factor)
