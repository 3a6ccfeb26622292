"""What a file in ``reconstructors/`` gives to :mod:`mrtransfer.models.reconstruction`."""

from dataclasses import dataclass

from torch import nn

from mrtransfer.models.stages import Stage


@dataclass(frozen=True)
class Reconstructor:
    """What a registered function builds; its keyword parameters are the options that a recipe may set.

    ``body`` is called with k-space (N, C, H, W) complex64, zero where nothing was sampled, with ``columns`` (N, W)
    bool, which were sampled, and with ``centre`` (N,), how many low-frequency columns were, or None where that is to be
    found in ``columns``. It gives magnitudes (N, H, W) float32.

    ``stages`` in forward order; none for a classical reconstruction, which has no parameters. ``multicoil``: it needs
    the differences between several coils. ``smallest``: the least number of rows and of columns that it takes.
    """

    body: nn.Module
    stages: tuple[Stage, ...] = ()
    multicoil: bool = True
    smallest: int = 1
