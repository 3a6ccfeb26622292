"""A reconstruction without parameters, as it is."""

from typing import ClassVar

from mrtransfer.transfer.method import Method
from mrtransfer.transfer.methods import METHODS


@METHODS.register("classical")
class Classical(Method):
    """Apply a reconstruction that has no parameters: zero-filled, SENSE, L1-wavelet; what learning has to beat."""

    name: ClassVar[str] = "classical"
    learns: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = False
