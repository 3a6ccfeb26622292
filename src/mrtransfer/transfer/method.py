"""What a method is: a name, and settings that are checked before anything runs."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from mrtransfer.common.named import Named, parse_named
from mrtransfer.transfer.methods import METHODS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mrtransfer.models.network import StagedNetwork
    from mrtransfer.transfer.alignment import Halves

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["constant", "cosine"]
Select = Literal["best", "last"]
ClassWeights = Literal["balanced"] | None
BatchNorm = Literal["freeze", "recalibrate", "train"]


class Method(Named):
    """How a network and its head are tuned. A subclass in ``transfer/methods/`` adds the settings as fields."""

    cached: ClassVar[bool] = False  # True: the backbone never changes, so features are computed once and kept
    learns: ClassVar[bool] = True  # False: nothing is trained; budget and seed make no difference
    needs_weights: ClassVar[bool] = True  # False: it is for networks without parameters
    labels: ClassVar[bool] = True  # False: no label of the target is learned from; an Adaptation

    class_weights: ClassWeights = None
    """``balanced``: every class weighs the same in the loss, whatever its number of samples."""


class EpochMethod(Method):
    """Settings shared by methods that pass over the training rows for a number of epochs."""

    epochs: int = Field(10, ge=1)
    batch: int = Field(32, ge=1)
    optimizer: Optimizer = "adamw"
    rate: float = Field(1e-3, gt=0)
    """Learning rate of the head."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of ``sgd``; ``adamw`` has its usual moments (0.9, 0.999)."""
    weight_decay: float = Field(1e-2, ge=0)
    """Never applied to biases and normalisation layers. Decoupled for ``adamw``, added to the gradient for ``sgd``."""
    schedule: Schedule = "cosine"
    select: Select = "best"
    """``best``: the weights of the epoch with the lowest validation loss; without validation rows, the last ones."""
    hidden: tuple[int, int] = (256, 128)
    """Widths of the two hidden layers, where the head is an ``mlp``."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """After each hidden layer, where the head is an ``mlp``."""

    @field_validator("hidden")
    @classmethod
    def _positive(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 1:
            raise ValueError("the two hidden layers need at least one unit each, for example [256, 128]")
        return value


class NetworkMethod(EpochMethod):
    """Settings shared by methods that train the backbone itself."""

    steps: int | None = Field(None, ge=1)
    """Optimisation steps in an epoch; by default as many as pass once over the training data."""
    validate_every: int = Field(1, ge=1)
    """Epochs from one validation to the next; the last epoch always has one."""
    head: Literal["linear", "mlp"] = "linear"
    backbone_rate: float | None = Field(None, gt=0)
    """Learning rate of the backbone; by default the same as ``rate``."""
    freeze: str | None = None
    """Stages up to and including the one named here keep their initial weights; ``all``: the whole backbone."""
    freeze_epochs: int | None = Field(None, ge=1)
    """How many epochs ``freeze`` holds, after which everything is tuned; by default always."""
    batch_norm: BatchNorm = "train"
    """Running statistics: kept (``freeze``), estimated anew on the training rows and then kept (``recalibrate``), or
    following the batches (``train``) where the stage is not frozen."""
    head_start: Literal["probe", "random"] = "random"
    """``probe``: a ``linear`` head starts as the linear probe of the initial features (LP-FT, Kumar et al. 2022)."""

    @property
    def starts_from_probe(self) -> bool:
        """Whether the caller should fit a linear probe and pass it as the initial head."""
        return self.head_start == "probe" and self.head == "linear"


class Adaptation(NetworkMethod):
    """Settings shared by methods that learn from labelled rows of the source and unlabelled rows of the target.

    Network and head begin as the source's model. Every step sees a batch of the source, whose labels give the loss, and
    as large a batch of the target, which :meth:`penalty` brings near. The two pass through the network one after the
    other, so that each is normalised by its own batch where batch norm is ``train``; running statistics are those of
    the target alone: estimated on all its rows before training, and then following its batches. ``recalibrate``:
    estimated and then kept, for both domains. ``freeze``: the source's, for both. The last epoch is kept, for without
    target labels there is nothing to choose by; ``best`` chooses by validation rows of the source, which are then
    seen with the target's statistics.
    """

    labels: ClassVar[bool] = False
    exclusive: ClassVar[bool] = False  # True: for classes that exclude each other, not for one sigmoid per region

    batch: int = Field(32, ge=2)
    """Images, or patches, of each of the two domains."""
    rate: float = Field(1e-4, gt=0)
    select: Select = "last"
    head_start: Literal["random"] = "random"
    """Has no meaning here: the head is the source's."""
    weight: float = Field(1.0, ge=0)
    """How much the penalty counts beside the loss of the source; with 0 the source alone is learned from."""
    voxels: int = Field(64, ge=2)
    """In segmentation, how many voxels of the last feature maps are drawn from each patch to be compared."""

    def check(self, network: "StagedNetwork") -> None:
        """Raise :class:`UserError` where ``network`` cannot be adapted in this way."""

    @property
    def rate_of_critic(self) -> float:
        """The learning rate of what :meth:`build_critic` gives."""
        return self.rate

    def build_critic(self, features: int, seed: int) -> "nn.Module | None":
        """What is trained beside the network and thrown away afterwards, for so many ``features``; usually nothing."""
        return None

    def penalty(self, halves: "Halves", critic: "nn.Module | None") -> "Tensor":
        """What is added to the loss of the source, ``weight`` included; by default nothing."""
        return halves.target.new_zeros(())


def parse_method(value: Any, where: str = "method") -> Method:
    """A method from a recipe: see :func:`~mrtransfer.common.named.parse_named`."""
    found: Method = parse_named(value, METHODS, where)
    return found
