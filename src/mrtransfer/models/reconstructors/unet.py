"""fastMRI's U-Net baseline (Zbontar et al. 2018, arXiv 1811.08839): from the zero-filled image to a better one."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from mrtransfer.models.norm_unet import UNet, smallest_side, standardise
from mrtransfer.models.reconstructor import Reconstructor
from mrtransfer.models.reconstructors import RECONSTRUCTORS
from mrtransfer.models.stages import Stage
from mrtransfer.physics.coils import rss
from mrtransfer.physics.fourier import ifft2c

Count = Annotated[int, Field(ge=1)]

_LIMIT = 6.0  # standard deviations: fastMRI clips what is brighter in the input


class MagnitudeUNet(UNet):
    """The U-Net on the root sum of squares of the coils' zero-filled images, normalised image by image."""

    def __init__(self, channels: int, pools: int) -> None:
        super().__init__(1, 1, channels, pools)

    def forward(self, kspace: Tensor, columns: Tensor, centre: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Magnitudes (N, H, W) of k-space (N, C, H, W); which columns were sampled makes no difference."""
        image, mean, deviation = standardise(rss(ifft2c(kspace))[:, None])
        refined = super().forward(image.clamp(-_LIMIT, _LIMIT))
        return (refined.to(mean.dtype) * deviation + mean)[:, 0]


@RECONSTRUCTORS.register("unet")
def unet(*, channels: Count = 32, pools: Count = 4) -> Reconstructor:
    """U-Net of fastMRI on the zero-filled magnitude image, of any number of coils; takes its published files.

    ``channels`` are those at full resolution (256 in the published files), doubled with each of the ``pools``.
    """
    body = MagnitudeUNet(channels, pools)
    down = [f"down_sample_layers.{level}" for level in range(pools)]
    up = [Stage(f"up_conv.{n}", (f"up_transpose_conv.{n}", f"up_conv.{n}")) for n in range(pools)]
    stages = (*(Stage(name, (name,)) for name in (*down, "conv")), *up)
    return Reconstructor(body, stages, multicoil=False, smallest=smallest_side(pools, padded=False))
