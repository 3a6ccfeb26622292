"""Tune a pretrained network gently, after its head."""

from typing import ClassVar, Literal

from pydantic import Field

from mrtransfer.transfer.method import BatchNorm, NetworkMethod
from mrtransfer.transfer.methods import METHODS


@METHODS.register("fine_tune")
class FineTune(NetworkMethod):
    """Tune a pretrained network: head first (LP-FT), then all stages at a smaller rate.

    Source: Kumar et al., *Fine-tuning can distort pretrained features and underperform out-of-distribution*, ICLR 2022.
    """

    name: ClassVar[str] = "fine_tune"

    batch: int = Field(16, ge=1)
    rate: float = Field(1e-4, gt=0)
    """Learning rate of the head: small, for it comes from a probe and is nearly right."""
    backbone_rate: float | None = Field(1e-4, gt=0)
    # With frozen statistics, training begins at exactly the function that the linear probe found; with ``train`` or
    # ``recalibrate`` the features change under the probe's head before the first step.
    batch_norm: BatchNorm = "freeze"
    head_start: Literal["probe", "random"] = "probe"
