"""Instance norm and leaky ReLU in one step that keeps a single tensor for its backward pass, in its input's layout."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-5
_DEVICES = ("cpu", "cuda")


def norm_act(x: Tensor, slope: float = 0.2) -> Tensor:
    """Leaky ReLU of the instance norm, without weights, of maps (N, C, H, W).

    A leaky ReLU can be undone, and the gradient of a norm is a function of what it gave (Rota Bulò, Porzi and
    Kontschieder, CVPR 2018, arXiv 1712.02616). So the one tensor that the next layer keeps anyway is enough: PyTorch's
    two layers keep twice as much, and turn channels-last maps round and back.
    """
    if x.device.type in _DEVICES:
        return _NormAct.apply(x, slope)
    return torch.nn.functional.leaky_relu_(torch.nn.functional.instance_norm(x, eps=EPS), slope)


class _NormAct(torch.autograd.Function):
    """The instance norm of one image is its batch norm, of which PyTorch has kernels for every layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        # Statistics take the type of the weight, and bfloat16 would be too coarse for them.
        one = x.new_ones(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
        found = [
            torch.ops.aten.native_batch_norm(sample, one, None, None, None, True, 0.0, EPS) for sample in x.split(1)
        ]
        y = _joined([normed for normed, _, _ in found])
        torch.nn.functional.leaky_relu_(y, slope)
        ctx.save_for_backward(y, torch.stack([inverse for _, _, inverse in found]))
        ctx.slope = slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        y, inverse = ctx.saved_tensors
        gradient = torch.ops.aten.leaky_relu_backward(gradients[0], y, ctx.slope, True)
        normed = torch.nn.functional.leaky_relu(y, 1 / ctx.slope)
        # With `normed` in place of the input, mean 0 and deviation 1 are those that it was normed with; the deviation
        # by which the gradient is divided comes in as the weight.
        mean, deviation = torch.zeros_like(inverse[0]), torch.ones_like(inverse[0])
        parts = [
            torch.ops.aten.native_batch_norm_backward(
                one, own, weight, None, None, mean, deviation, True, EPS, [True, False, False]
            )[0]
            for one, own, weight in zip(gradient.split(1), normed.split(1), inverse, strict=True)
        ]
        return _joined(parts), None


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]
