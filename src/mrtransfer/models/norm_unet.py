"""The U-Net of fastMRI's networks (Zbontar et al. 2018, arXiv 1811.08839), plain and normalised, under its names.

A level has two 3×3 convolutions without bias, each followed by instance norm and a leaky ReLU of slope 0.2. Between
levels there are 2×2 means on the way down, and 2×2 up-convolutions, normed alike, on the way up. Channels double from
level to level.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from mrtransfer.models.norm_act import norm_act

_MULTIPLE = 16  # NormUnet pads images to multiples of this, however many pools there are, as fastMRI's does


class ConvBlock(nn.Module):
    """Two 3×3 convolutions, each with norm and activation."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        first = nn.Conv2d(before, after, 3, padding=1, bias=False)
        second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.layers = nn.ModuleDict({"0": first, "4": second})  # norms, activations and dropout count in the names

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Maps (N, after, H, W); ``skip``: further channels of the input, which come after those of ``x``."""
        first, second = self.layers["0"], self.layers["4"]
        return norm_act(second(norm_act(first(x) if skip is None else _of_two(first, x, skip))))


def _of_two(layer: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
    """The convolution of two inputs side by side as the sum of two, so that they are not copied into one."""
    own, others = layer.weight.split([x.shape[1], skip.shape[1]], dim=1)  # type: ignore[operator]
    return nn.functional.conv2d(x, own, padding=1).add_(nn.functional.conv2d(skip, others, padding=1))


class UpBlock(nn.Module):
    """A 2×2 up-convolution with norm and activation."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"0": nn.ConvTranspose2d(before, after, 2, 2, bias=False)})

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        """Maps (N, after, \\*size): twice as high and wide, and one more by reflection where pooling left one out."""
        x = norm_act(self.layers["0"](x))
        missing = (0, size[-1] - x.shape[-1], 0, size[-2] - x.shape[-2])
        return nn.functional.pad(x, missing, "reflect") if any(missing) else x


class LastBlock(nn.Sequential):
    """The highest block on the way up, and a 1×1 convolution."""

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """The network's output."""
        block, last = self
        return last(block(x, skip))


class UNet(nn.Module):
    """Maps (N, ``inputs``, H, W) to (N, ``outputs``, H, W): ``channels`` at full resolution, ``pools`` levels below."""

    def __init__(self, inputs: int, outputs: int, channels: int, pools: int) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(pools + 1)]
        levels = list(pairwise(widths))  # (a level's channels, those of the one below)
        self.down_sample_layers = nn.ModuleList([ConvBlock(inputs, channels)])
        for above, width in levels[:-1]:
            self.down_sample_layers.append(ConvBlock(above, width))
        self.conv = ConvBlock(*levels[-1])
        self.up_conv = nn.ModuleList()
        self.up_transpose_conv = nn.ModuleList()
        for width, below in reversed(levels):
            self.up_transpose_conv.append(UpBlock(below, width))
            block = ConvBlock(below, width)
            highest = width == channels
            self.up_conv.append(LastBlock(block, nn.Conv2d(width, outputs, 1)) if highest else block)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the size of ``x``, of which every side must have two pixels or more at the lowest level."""
        x, skips = self._laid_out(x), []
        for block in self.down_sample_layers:
            skips.append(block(x))
            x = nn.functional.avg_pool2d(skips[-1], 2)
        x = self.conv(x)
        for up, convolve in zip(self.up_transpose_conv, self.up_conv, strict=True):
            skip = skips.pop()
            x = convolve(up(x, skip.shape), skip)
        return x

    def _laid_out(self, x: Tensor) -> Tensor:
        """Channels-last on a CPU, where few channels are 1.5 times as fast so; elsewhere as the weights are."""
        weight = next(self.conv.parameters())
        last = x.device.type == "cpu" or weight.is_contiguous(memory_format=torch.channels_last)
        return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


class NormUnet(nn.Module):
    """A U-Net on complex images, whose real and imaginary parts are each normalised before it and restored after it."""

    def __init__(self, channels: int, pools: int) -> None:
        super().__init__()
        self.unet = UNet(2, 2, channels, pools)

    def forward(self, images: Tensor) -> Tensor:
        """Complex images (N, H, W), refined."""
        x = torch.view_as_real(images).permute(0, 3, 1, 2)  # channels-last as it stands
        x, mean, deviation = standardise(x)
        rows, columns = x.shape[2:]
        left, _, top, _ = padding = _to_multiple(rows, columns)
        if any(padding):
            x = nn.functional.pad(x, padding)
        x = self.unet(x)[..., top : top + rows, left : left + columns]
        x = x.to(mean.dtype) * deviation + mean
        return torch.view_as_complex(x.permute(0, 2, 3, 1).contiguous())


def standardise(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (N, C, H, W), each with mean 0 and deviation 1, and the means and deviations (N, C, 1, 1) that they had.

    A map without any contrast becomes 0; its deviation is 0, so that it is restored as it was.
    """
    variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
    flat = (variance == 0).to(variance.dtype)  # the square root has no slope there
    deviation = (variance + flat).sqrt() - flat
    return (x - mean) / (deviation + flat), mean, deviation


def _to_multiple(rows: int, columns: int) -> tuple[int, int, int, int]:
    """Columns to add left and right, and rows above and below; where their number is odd, one more comes after."""
    down, across = -rows % _MULTIPLE, -columns % _MULTIPLE
    return across // 2, across - across // 2, down // 2, down - down // 2


def smallest_side(pools: int, *, padded: bool) -> int:
    """The least side of an image for a U-Net of so many ``pools``, so that two pixels are left at its lowest level."""
    side = 2 ** (pools + 1)
    return max(side - _MULTIPLE + 1, 1) if padded else side
