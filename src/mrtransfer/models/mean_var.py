"""Mean-Var initialisation: the scale of pretrained weights without their features (Raghu et al. 2019, section 5)."""

import torch
from torch import Tensor

from mrtransfer.common.files import digest


def draw_like(pretrained: Tensor, like: Tensor, *, seed: int, name: str) -> tuple[Tensor, str]:
    """Values of ``like``'s shape, independent N(μ, σ²) with the mean and variance of all of ``pretrained``.

    The draw depends on ``seed`` and ``name`` alone, not on other tensors. Also returns the words for the report.
    """
    spread, mean = (float(value) for value in torch.std_mean(pretrained.float(), correction=0))
    generator = torch.Generator().manual_seed(int(digest([seed, name], 15), 16))
    values = torch.randn(like.shape, generator=generator) * spread + mean
    return values.to(like.dtype), f"drawn from N({mean:.3g}, {spread:.3g}²)"
