"""MONAI's dynamic U-Net, the network of nnU-Net (Isensee et al., Nature Methods 2021)."""

from collections.abc import Sequence
from typing import Literal

from mrtransfer.models.segmenters import SEGMENTERS
from mrtransfer.models.ushape import Parts, Stride, UShape, make_levels

_FEATURES = (32, 64, 128, 256)


@SEGMENTERS.register("dynunet")
def dynunet(
    in_channels: int,
    dims: int,
    features: Sequence[int] | None = None,
    strides: Sequence[Sequence[int]] | None = None,
    *,
    norm: Literal["batch", "instance"] = "instance",
    residual: bool = True,
) -> Parts:
    """MONAI's DynUNet, nnU-Net's network: full resolution, kernels and strides from the plan, 2-D or 3-D.

    ``residual``: residual units in the encoder (ResEnc) rather than plain convolutions. Along an axis that the plan
    does not yet halve, because it is coarser than the others, kernels are 1 voxel long.
    """
    from monai.networks.nets import DynUNet

    levels = make_levels(dims, features, strides, _FEATURES)
    steps = [stride[:dims] for stride in levels.strides]
    network = DynUNet(
        spatial_dims=dims,
        in_channels=in_channels,
        out_channels=1,
        kernel_size=[kernel[:dims] for kernel in kernels(levels.strides)],
        strides=[(1,) * dims, *steps],
        upsample_kernel_size=steps,
        filters=levels.features,
        norm_name=("instance", {"affine": True}) if norm == "instance" else "batch",
        res_block=residual,
    )
    body = UShape([network.input_block, *network.downsamples, network.bottleneck], list(network.upsamples))
    first = [f"encoder1.{name}.conv" for name in (("conv1", "conv3") if residual else ("conv1",))]
    return Parts(body, levels.strides, body.stages, tuple(first))


def kernels(strides: Sequence[Stride]) -> list[Stride]:
    """Kernel sizes by level: 3, but 1 along an axis until the plan halves it for the first time."""

    def size(level: int, axis: int) -> int:
        waits = level < len(strides) and all(stride[axis] == 1 for stride in strides[: level + 1])
        return 1 if waits and any(stride[axis] > 1 for stride in strides) else 3

    return [(size(level, 0), size(level, 1), size(level, 2)) for level in range(len(strides) + 1)]
