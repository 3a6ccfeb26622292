"""A U-Net of residual units (after Zhang, Liu and Wang 2018, "Road extraction by deep residual U-Net")."""

from collections.abc import Sequence

from mrtransfer.models.segmenters import SEGMENTERS
from mrtransfer.models.segmenters.unet import Depth, Widths, encoder_decoder
from mrtransfer.models.ushape import Parts


@SEGMENTERS.register("resunet")
def resunet(
    in_channels: int,
    dims: int,
    features: Sequence[int] | None = None,
    strides: Sequence[Sequence[int]] | None = None,
    *,
    encoder: str = "resnet34",
    depth: Depth = None,
    decoder: Widths = None,
) -> Parts:
    """ResUNet: residual units in encoder (timm's resnet34, ImageNet weights fit) and decoder, 2-D or 3-D.

    Each block of the decoder has a shortcut, a 1×1 convolution around its two 3×3 ones; all else is as in ``unet``.
    """
    return encoder_decoder(in_channels, dims, strides, encoder, depth, decoder, residual=True)
