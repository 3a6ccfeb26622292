"""The source model as it is."""

from typing import ClassVar

from mrtransfer.transfer.method import Method
from mrtransfer.transfer.methods import METHODS


@METHODS.register("zero_shot")
class ZeroShot(Method):
    """Apply the source model to the target without any training: what transfer starts from, at epoch 0.

    Needs weights that were trained on the same classes with as many channels (``source``, or a model folder).
    """

    name: ClassVar[str] = "zero_shot"
    learns: ClassVar[bool] = False
