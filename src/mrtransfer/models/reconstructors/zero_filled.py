"""The simplest reconstruction: what was not sampled is zero."""

from torch import Tensor, nn

from mrtransfer.models.reconstructor import Reconstructor
from mrtransfer.models.reconstructors import RECONSTRUCTORS
from mrtransfer.physics.coils import rss
from mrtransfer.physics.fourier import ifft2c
from mrtransfer.physics.masks import apply_mask


@RECONSTRUCTORS.register("zero_filled")
def zero_filled() -> Reconstructor:
    """Inverse Fourier transform of the sampled k-space, coils combined by root sum of squares."""
    return Reconstructor(ZeroFilled(), multicoil=False)


class ZeroFilled(nn.Module):
    """Root sum of squares of the zero-filled coil images; for one coil, the magnitude."""

    def forward(self, kspace: Tensor, columns: Tensor, centre: Tensor | None = None) -> Tensor:
        """Magnitudes (N, H, W); arguments as in :class:`~mrtransfer.models.reconstructor.Reconstructor`."""
        return rss(ifft2c(apply_mask(kspace, columns)))
