"""Train everything from the initial weights at one rate."""

from typing import ClassVar

from pydantic import Field

from mrtransfer.transfer.method import NetworkMethod
from mrtransfer.transfer.methods import METHODS


@METHODS.register("scratch")
class Scratch(NetworkMethod):
    """Train the whole network, usually from random weights: what transfer has to beat."""

    name: ClassVar[str] = "scratch"

    epochs: int = Field(20, ge=1)
