"""Making a 2-D network three-dimensional, layer by layer; every tensor keeps its name."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from mrtransfer.common.errors import UserError
from mrtransfer.models.ushape import Stride, meta_call

_ANY_DIMENSIONS = {
    # Modules of timm and SMP whose forward pass is the same in two and three dimensions.
    *("Sequential", "ModuleList", "ModuleDict", "FeatureListNet", "EfficientNetFeatures", "MobileNetV3Features"),
    *("BasicBlock", "Bottleneck", "ConvBnAct", "DepthwiseSeparableConv", "InvertedResidual", "EdgeResidual"),
    *("DenseBlock", "DenseLayer", "DenseTransition", "ConvNormAct", "TimmUniversalEncoder"),
    *("UnetDecoder", "UnetDecoderBlock", "Conv2dReLU", "Attention", "EncoderDecoder"),
    *("Identity", "ReLU", "ReLU6", "LeakyReLU", "PReLU", "SiLU", "GELU", "Hardswish", "Sigmoid", "Dropout", "DropPath"),
}
"""Others are refused: what averages over two axes, for example, would run on volumes and be wrong."""


class BatchNormAct3d(nn.BatchNorm3d):
    """timm's batch norm with activation, for volumes."""

    def __init__(self, flat: BatchNormAct2d) -> None:
        super().__init__(flat.num_features, flat.eps, flat.momentum)
        self.drop, self.act = flat.drop, flat.act

    def forward(self, x: Tensor) -> Tensor:
        """Normalised and activated, of the shape of ``x``."""
        return self.act(self.drop(super().forward(x)))


def make_3d(body: nn.Module, shape: Sequence[int], strides: Sequence[Stride], name: str) -> None:
    """Replace the layers of ``body``, which takes inputs of ``shape`` (N, C, X, Y), by three-dimensional ones.

    A layer that halves the image for the n-th time gets the n-th of ``strides``; kernels become as long along z as
    they are along y. Kernels are drawn anew, with the variance of the flat ones divided by their length along z, which
    keeps the size of the response. Raises :class:`UserError` where a layer has no three-dimensional counterpart.
    """
    for path, module in body.named_modules():
        if not _has_counterpart(module):
            raise UserError(
                f"network {name}: cannot be made three-dimensional, as its layer {path} ({type(module).__name__}) is "
                "for two dimensions; encoders that can are resnet18, resnet50, mobilenetv2_100 and densenet121"
            )
    halvings = _halvings(body, shape)
    for path, module in list(body.named_modules()):
        layer = _counterpart(module, strides[halvings[path]] if path in halvings else (1, 1, 1))
        if layer is not None:
            parent, _, last = path.rpartition(".")
            setattr(body.get_submodule(parent), last, layer)


def _has_counterpart(module: nn.Module) -> bool:
    if isinstance(module, BatchNormAct2d):
        return module.affine and module.track_running_stats
    return type(module) in _COUNTERPARTS or type(module).__name__ in _ANY_DIMENSIONS


def _halvings(body: nn.Module, shape: Sequence[int]) -> dict[str, int]:
    """Layers with a stride, and how often the image had been halved before each."""
    found: dict[str, int] = {}

    def watch(path: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[path] = round(math.log2(shape[2] / inputs[0].shape[2]))

        return hook

    strided = [(path, module) for path, module in body.named_modules() if _pair(getattr(module, "stride", 1))[0] > 1]
    handles = [module.register_forward_pre_hook(watch(path)) for path, module in strided]
    try:
        meta_call(body, shape)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _counterpart(module: nn.Module, stride: Stride) -> nn.Module | None:
    """The three-dimensional layer, or None where the module needs no other."""
    if isinstance(module, BatchNormAct2d):
        return _same_values(BatchNormAct3d(module), module)
    make = _COUNTERPARTS.get(type(module))
    return make(module, stride) if make else None


def _convolution(flat: nn.Conv2d, stride: Stride) -> nn.Conv3d:
    layer = nn.Conv3d(
        flat.in_channels,
        flat.out_channels,
        _triple(flat.kernel_size),
        stride,
        _triple(flat.padding),
        _triple(flat.dilation),
        flat.groups,
        flat.bias is not None,
        flat.padding_mode,
    )
    with torch.no_grad():
        spread = flat.weight.square().mean() / layer.kernel_size[2]
        layer.weight.normal_(std=float(spread.sqrt()))
        if flat.bias is not None and layer.bias is not None:
            layer.bias.copy_(flat.bias)
    return layer


def _batch_norm(flat: nn.BatchNorm2d, _: Stride) -> nn.Module:
    layer = nn.BatchNorm3d(flat.num_features, flat.eps, flat.momentum, flat.affine, flat.track_running_stats)
    return _same_values(layer, flat)


def _same_values(layer: nn.Module, flat: nn.Module) -> nn.Module:
    layer.load_state_dict(flat.state_dict())
    return layer


def _max_pool(flat: nn.MaxPool2d, stride: Stride) -> nn.MaxPool3d:
    size, padding = _pool_size(flat, stride)
    return nn.MaxPool3d(size, stride, padding, _triple(flat.dilation), ceil_mode=flat.ceil_mode)


def _average_pool(flat: nn.AvgPool2d, stride: Stride) -> nn.AvgPool3d:
    size, padding = _pool_size(flat, stride)
    return nn.AvgPool3d(size, stride, padding, flat.ceil_mode, flat.count_include_pad)


def _pool_size(flat: nn.MaxPool2d | nn.AvgPool2d, stride: Stride) -> tuple[Stride, Stride]:
    """Windows that do not overlap are as long as the stride, also where that is now 1."""
    size, padding = _triple(flat.kernel_size), _triple(flat.padding)
    return (stride if size == _triple(flat.stride) else size), padding


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value, value) if isinstance(value, int) else (1, 1)


def _triple(value: Any) -> Stride:
    x, y = _pair(value)
    return (x, y, y)


_COUNTERPARTS: dict[type[nn.Module], Any] = {
    nn.Conv2d: _convolution,
    nn.BatchNorm2d: _batch_norm,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
}
