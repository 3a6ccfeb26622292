"""A small multi-layer perceptron on frozen features."""

from typing import ClassVar

from pydantic import Field

from mrtransfer.transfer.method import EpochMethod
from mrtransfer.transfer.methods import METHODS


@METHODS.register("mlp_probe")
class MlpProbe(EpochMethod):
    """Linear–ReLU–Dropout–Linear–Dropout–Linear on frozen features."""

    name: ClassVar[str] = "mlp_probe"
    cached: ClassVar[bool] = True

    epochs: int = Field(30, ge=1)
    standardise: bool = True
    """Bring every feature to mean 0 and deviation 1 over the training rows first."""
