"""Heads: from pooled features to one logit per class."""

import math
from typing import Literal

import torch
from torch import nn

HeadKind = Literal["linear", "mlp"]


def build_head(
    kind: HeadKind,
    features: int,
    classes: int,
    *,
    hidden: tuple[int, int] = (256, 128),
    dropout: float = 0.3,
    seed: int = 0,
) -> nn.Sequential:
    """A head with weights drawn from its own generator, seeded by ``seed``.

    ``linear``: one layer. ``mlp``: Linear–ReLU–Dropout–Linear–Dropout–Linear, the dense layers that tumour detection
    puts on a frozen backbone. Takes (batch, features), gives logits (batch, classes).
    """
    if kind == "linear":
        layers: list[nn.Module] = [_linear(features, classes)]
    else:
        first, second = hidden
        layers = [
            _linear(features, first),
            nn.ReLU(),
            nn.Dropout(dropout),
            _linear(first, second),
            nn.Dropout(dropout),
            _linear(second, classes),
        ]
    head = nn.Sequential(*layers)
    initialise(head, seed)
    return head


def _linear(features: int, out: int) -> nn.Linear:
    """Without initial values, which would be drawn from the global generator."""
    return nn.utils.skip_init(nn.Linear, features, out)


def initialise(head: nn.Sequential, seed: int) -> None:
    """PyTorch's usual start of linear layers, uniform in ±1/√fan_in, as a pure function of ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in head:
            if isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)


def linear_head(weight: torch.Tensor, bias: torch.Tensor) -> nn.Sequential:
    """A ``linear`` head with the given weight (classes, features) and bias (classes,)."""
    head = build_head("linear", weight.shape[1], weight.shape[0])
    head.load_state_dict({"0.weight": weight, "0.bias": bias})
    return head
