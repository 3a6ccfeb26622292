"""Domain confusion: a critic that tells domains apart, and features that are changed so that it cannot.

Source: Ganin et al., *Domain-Adversarial Training of Neural Networks*, JMLR 17 (2016).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mrtransfer.models.network import seeded


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradient, None


def reverse_gradient(x: Tensor, factor: float) -> Tensor:
    """``x`` as it is, whose gradient is −``factor`` times what comes back (Ganin et al. 2016, eq. 16–17)."""
    same: Tensor = _Reversal.apply(x, factor)
    return same


def adversarial_strength(progress: float) -> float:
    """λ(p) = 2 / (1 + exp(−10 p)) − 1: from 0 at the start (p = 0) to nearly 1 at the end (section 5.2.2)."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


def domain_critic(features: int, width: int = 256, *, seed: int = 0) -> nn.Sequential:
    """A perceptron with two hidden layers: (n, ``features``) to one logit (n, 1) of being from the source.

    Its initial values are PyTorch's, as a pure function of ``seed``.
    """
    with seeded(seed):
        return nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )


def domain_confusion_loss(critic: nn.Module, source: Tensor, target: Tensor, factor: float) -> Tensor:
    """The critic's mean cross-entropy, both domains alike, of ``source`` (n, d) and ``target`` (m, d).

    Minimising it teaches the critic; the features are given −``factor`` times its gradient, so that they confuse it.
    """
    logits = critic(reverse_gradient(torch.cat([source, target]).float(), factor)).squeeze(1)
    of_source, of_target = logits[: len(source)], logits[len(source) :]
    return (nn.functional.softplus(-of_source).mean() + nn.functional.softplus(of_target).mean()) / 2
