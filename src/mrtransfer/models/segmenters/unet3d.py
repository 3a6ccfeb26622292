"""The 3-D U-Net of Çiçek, Abdulkadir, Lienkamp, Brox and Ronneberger (MICCAI 2016, arXiv 1606.06650).

Four levels of two 3×3×3 convolutions, each with batch norm and ReLU, 2×2×2 max-pooling between them, and
up-convolutions of 2×2×2 without bias. The number of features is doubled before each pooling (section 2), so the second
convolution of a level has twice as many as the first: 32-64, 64-128, 128-256, 256-512. With 3 input and 3 output
channels these are the paper's 19,069,955 parameters, batch norm not counted.

One difference: the paper's convolutions are unpadded, so that its output is smaller than its input; ours are padded
with zeros, and maps have the size of the patch.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mrtransfer.common.errors import UserError
from mrtransfer.models.segmenters import SEGMENTERS
from mrtransfer.models.ushape import Parts, Stride, UShape, make_levels

Norm = Literal["batch", "instance"]

_FEATURES = (64, 128, 256, 512)


class Double(nn.Sequential):
    """Pooling where there is a ``stride``, then two convolutions of ``between`` and ``width`` features."""

    def __init__(self, channels: int, between: int, width: int, norm: Norm, stride: Stride | None = None) -> None:
        super().__init__()
        if stride is not None:
            self.add_module("pool", nn.MaxPool3d(stride, stride))
        for number, (before, after) in enumerate(((channels, between), (between, width)), start=1):
            self.add_module(f"conv{number}", nn.Conv3d(before, after, 3, padding=1))
            layer = nn.BatchNorm3d(after) if norm == "batch" else nn.InstanceNorm3d(after, affine=True)
            self.add_module(f"norm{number}", layer)
            self.add_module(f"relu{number}", nn.ReLU(inplace=True))


class Up(nn.Module):
    """Up-convolution, the level's own maps beside it, and two convolutions."""

    def __init__(self, below: int, skip: int, norm: Norm, stride: Stride) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(below, below, stride, stride, bias=False)
        self.convs = Double(below + skip, skip, skip, norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Maps of the size of ``skip``."""
        return self.convs(torch.cat((skip, self.up(x)), dim=1))


@SEGMENTERS.register("unet3d")
def unet3d(
    in_channels: int,
    dims: int,
    features: Sequence[int] | None = None,
    strides: Sequence[Sequence[int]] | None = None,
    *,
    norm: Norm = "batch",
    width: Annotated[int, Field(ge=1)] | None = None,
) -> Parts:
    """3-D U-Net of Çiçek et al. 2016: 19 million parameters, fewer with a smaller width or by the plan.

    ``features`` are those of each level's last convolution. ``width``: of the very first convolution (32 in the paper);
    the network then has the paper's four levels, doubling from one to the next, in place of the plan's.
    """
    if dims != 3:
        raise UserError("network unet3d: it has 3 dimensions; use dims: 3, or unet or residual_unet for 2")
    if width is not None:
        strides = None if strides is None else strides[: len(_FEATURES) - 1]
        features = [2 * width * 2**level for level in range(len(_FEATURES) if strides is None else len(strides) + 1)]
    levels = make_levels(dims, features, strides, _FEATURES)
    widths = levels.features
    down: list[nn.Module] = [Double(in_channels, max(widths[0] // 2, 1), widths[0], norm)]
    for before, after, stride in zip(widths, widths[1:], levels.strides, strict=False):
        down.append(Double(before, before, after, norm, stride))
    up = [Up(widths[n + 1], widths[n], norm, levels.strides[n]) for n in reversed(range(len(widths) - 1))]
    body = UShape(down, up)
    _initialise(body)
    return Parts(body, levels.strides, body.stages, ("encoder1.conv1",))


def _initialise(body: nn.Module) -> None:
    """He et al. 2015, for ReLU; biases start at 0."""
    for layer in body.modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            # Of an up-convolution without overlap, every output is one product over the input channels.
            fan = layer.in_channels * (1 if isinstance(layer, nn.ConvTranspose3d) else layer.weight[0, 0].numel())
            nn.init.normal_(layer.weight, std=(2 / fan) ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
