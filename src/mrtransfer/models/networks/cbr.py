"""The small CBR networks of Raghu et al., "Transfusion" (NeurIPS 2019), section 3.

Blocks of convolution, batch norm and ReLU, each followed by 3×3 max-pooling with stride 2, then global average pooling.
Sizes as the paper gives them: LargeT 32-64-128-256-512, LargeW 64-128-256-512, Small 32-64-128-256, all with 7×7
kernels; Tiny as Small with 5×5 kernels, which is what its 1.08 million parameters (table 1) come to.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mrtransfer.models.networks import NETWORKS


class CBR(nn.Module):
    """Stages ``block1``, ``block2``, … in forward order; (N, C, H, W) to (N, ``widths[-1]``)."""

    def __init__(self, in_channels: int, widths: Sequence[int], kernel: int) -> None:
        super().__init__()
        channels = in_channels
        for number, width in enumerate(widths, start=1):
            self.add_module(f"block{number}", _block(channels, width, kernel))
            channels = width

    def forward_features(self, x: Tensor) -> Tensor:
        """The last block's maps, (N, features, H / 2^blocks, W / 2^blocks)."""
        for block in self.children():
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features, (N, features)."""
        return self.forward_features(x).mean(dim=(2, 3))


def _block(channels: int, width: int, kernel: int) -> nn.Sequential:
    block = nn.Sequential()
    # Batch norm subtracts the mean, so a bias in the convolution would be lost.
    conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    block.add_module("conv", conv)
    block.add_module("bn", nn.BatchNorm2d(width))
    block.add_module("relu", nn.ReLU(inplace=True))
    block.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
    return block


@NETWORKS.register("cbr_large_t")
def cbr_large_t(in_channels: int = 3) -> nn.Module:
    """CBR-LargeT: five blocks of 7×7, 32 to 512 channels (8.5 million parameters)."""
    return CBR(in_channels, (32, 64, 128, 256, 512), 7)


@NETWORKS.register("cbr_large_w")
def cbr_large_w(in_channels: int = 3) -> nn.Module:
    """CBR-LargeW: four wide blocks of 7×7, 64 to 512 channels (8.4 million parameters)."""
    return CBR(in_channels, (64, 128, 256, 512), 7)


@NETWORKS.register("cbr_small")
def cbr_small(in_channels: int = 3) -> nn.Module:
    """CBR-Small: four blocks of 7×7, 32 to 256 channels (2.1 million parameters)."""
    return CBR(in_channels, (32, 64, 128, 256), 7)


@NETWORKS.register("cbr_tiny")
def cbr_tiny(in_channels: int = 3) -> nn.Module:
    """CBR-Tiny: four blocks of 5×5, 32 to 256 channels (1.1 million parameters)."""
    return CBR(in_channels, (32, 64, 128, 256), 5)
