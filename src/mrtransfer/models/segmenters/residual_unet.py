"""MONAI's U-Net with residual units (Kerfoot et al. 2018, "Left-ventricle quantification using residual U-Net")."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mrtransfer.models.segmenters import SEGMENTERS
from mrtransfer.models.ushape import Parts, UShape, make_levels

_FEATURES = (32, 64, 128, 256)


class Join(nn.Module):
    """One of MONAI's layers on the way up: what comes from below beside the level's own maps, then the layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Maps of the next finer level."""
        return self.layer(torch.cat((skip, x), dim=1))


@SEGMENTERS.register("residual_unet")
def residual_unet(
    in_channels: int,
    dims: int,
    features: Sequence[int] | None = None,
    strides: Sequence[Sequence[int]] | None = None,
    *,
    norm: Literal["batch", "instance"] = "instance",
    units: Annotated[int, Field(ge=1)] = 2,
    maps: Annotated[int, Field(ge=1)] | None = None,
) -> Parts:
    """MONAI's residual U-Net, strided from its first layer on and therefore fast; sized by the plan, 2-D or 3-D.

    ``units``: convolutions in each residual unit of the encoder. ``maps``: features at full resolution, where most
    time is spent; by default as many as the first level has.
    """
    from monai.networks.nets import UNet

    levels = make_levels(dims, features, strides, _FEATURES)
    strides_by_level: list[Any] = [stride[:dims] for stride in levels.strides]
    network = UNet(
        spatial_dims=dims,
        in_channels=in_channels,
        out_channels=maps or levels.features[0],
        channels=levels.features,
        strides=strides_by_level,
        num_res_units=units,
        norm=("instance", {"affine": True}) if norm == "instance" else "batch",
    )
    body = _unrolled(network.model)
    first = [f"encoder1.{name}" for name in ("conv.unit0.conv", "residual")]
    return Parts(body, levels.strides, body.stages, tuple(first))


def _unrolled(nested: Any) -> UShape:
    """MONAI nests each level in the one above: (down, around what is below, up), and at the bottom one layer."""
    down, up = [], []
    while isinstance(nested, nn.Sequential):
        down.append(nested[0])
        up.append(Join(nested[2]))
        nested = nested[1].submodule
    return UShape([*down, nested], up[::-1])
