"""Batch norm over all processes of a data-parallel training, as if one process saw the whole batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mrtransfer.training.part import Part


@contextmanager
def pooled_batch_norm(network: nn.Module, part: Part) -> Iterator[None]:
    """Within the block, all batch-norm layers that use the statistics of a batch use those of all processes.

    PyTorch's own ``SyncBatchNorm`` does the same on GPUs only. Layers and their state stay as they are.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)] if part.world > 1 else []
    for layer in layers:
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: _BatchNorm, x: Tensor) -> Tensor:
    if not layer.training and layer.running_mean is not None:
        return type(layer).forward(layer, x)
    axes = [0, *range(2, x.ndim)]
    with torch.no_grad():
        var, mean = torch.var_mean(x.float(), axes, correction=0)
        mean, var, count = _pooled(mean, var, x.numel() // x.shape[1])
        _follow(layer, mean, var * (count / max(count - 1, 1)))
    return _Normalise.apply(x, layer.weight, layer.bias, mean, torch.rsqrt(var + layer.eps), count)


def _pooled(mean: Tensor, var: Tensor, count: int) -> tuple[Tensor, Tensor, float]:
    """Mean, biased variance and number over all processes; Chan, Golub & LeVeque 1983, eq. 2.1."""
    own = torch.cat([mean.double(), var.double(), mean.new_tensor([count], dtype=torch.float64)])
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    table = torch.stack(every)
    means, variances, counts = table[:, : len(mean)], table[:, len(mean) : -1], table[:, -1:]
    total = counts.sum()
    centre = (means * counts).sum(dim=0) / total
    spread = ((variances + (means - centre) ** 2) * counts).sum(dim=0) / total
    return centre.float(), spread.float(), float(total)


def _follow(layer: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    """Update the running statistics, as PyTorch does."""
    if not layer.training or layer.running_mean is None or layer.running_var is None:
        return
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked += 1
    momentum = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, momentum)
    layer.running_var.lerp_(var, momentum)


class _Normalise(torch.autograd.Function):
    """(x − mean) / deviation · weight + bias, where mean and deviation depend on the x of all processes.

    The gradient is that of the sum of all processes' losses (Ioffe & Szegedy 2015, section 3, with pooled sums).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        inverse: Tensor,
        count: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.count = count
        scale = inverse if weight is None else inverse * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        return (x.float() * _spread(scale, x) + _spread(shift, x)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        axes = [0, *range(2, x.ndim)]
        normalised = (x.float() - _spread(mean, x)) * _spread(inverse, x)
        outer = gradient.float()
        sums = torch.stack([outer.sum(axes), (outer * normalised).sum(axes)])
        of_bias, of_weight = sums.clone()
        dist.all_reduce(sums)
        level, slope = sums / ctx.count
        inner = outer - _spread(level, x) - normalised * _spread(slope, x)
        inner = inner * _spread(inverse if weight is None else inverse * weight, x)
        own = (None, None) if weight is None else (of_weight, of_bias)
        return inner.to(x.dtype), *own, None, None, None


def _spread(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(1, -1, *[1] * (like.ndim - 2))
