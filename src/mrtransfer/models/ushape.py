"""U-shaped networks: levels down, levels up, and what a segmenter's file gives to :mod:`models.segmentation`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mrtransfer.common.errors import UserError
from mrtransfer.models.network import Encoder
from mrtransfer.models.stages import Stage

Stride = tuple[int, int, int]

_WIDEST = 320  # as nnU-Net in 3-D


@dataclass(frozen=True)
class Parts:
    """What a file in ``segmenters/`` builds.

    ``body`` takes (N, C, X, Y) or (N, C, X, Y, Z) and gives maps of the same size. ``strides`` are those between its
    levels, ``stages`` its stages in forward order, ``first_conv`` the convolutions that see the input.
    """

    body: nn.Module
    strides: tuple[Stride, ...]
    stages: tuple[Stage, ...]
    first_conv: tuple[str, ...]
    encoder: Encoder | None = None
    classifier: tuple[str, ...] = ()


class Levels(NamedTuple):
    """Feature maps by level, from the finest, and the strides between neighbouring levels (one fewer)."""

    features: tuple[int, ...]
    strides: tuple[Stride, ...]


class UShape(nn.Module):
    """``encoder1`` … ``encoderL`` (the bottom), then ``decoder.L-1`` … ``decoder.1``, the finest.

    A decoder is called with what comes from below and the output of the encoder of its number.
    """

    def __init__(self, levels: Sequence[nn.Module], decoders: Sequence[nn.Module]) -> None:
        """``decoders``: from the coarsest."""
        super().__init__()
        for number, level in enumerate(levels, start=1):
            self.add_module(f"encoder{number}", level)
        self.depth = len(levels)
        self.decoder = nn.ModuleDict({str(len(levels) - 1 - n): part for n, part in enumerate(decoders)})

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the size of ``x``."""
        skips = []
        for number in range(1, self.depth):
            x = self.get_submodule(f"encoder{number}")(x)
            skips.append(x)
        x = self.get_submodule(f"encoder{self.depth}")(x)
        for level in self.decoder.values():
            x = level(x, skips.pop())
        return x

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every encoder and every decoder is a stage."""
        down = [f"encoder{number}" for number in range(1, self.depth + 1)]
        return tuple(Stage(name, (name,)) for name in (*down, *(f"decoder.{name}" for name in self.decoder)))


def make_levels(
    dims: int, features: Sequence[int] | None, strides: Sequence[Sequence[int]] | None, default: Sequence[int]
) -> Levels:
    """The levels that a plan asks for; without one, ``default`` features with strides of 2.

    Strides without features double the first default up to 320. A first stride of ones, which nnU-Net's plans have for
    the level of full resolution, is left out. Raises :class:`UserError` where the two do not belong together.
    """
    plain: Stride = (2, 2, 2 if dims == 3 else 1)
    if strides is not None:
        known = check_strides(dims, strides)
        if features is not None and len(known) == len(features) and set(known[0]) == {1}:
            known = known[1:]
        widths = tuple(features) if features else tuple(min(default[0] * 2**n, _WIDEST) for n in range(len(known) + 1))
    else:
        widths = tuple(features or default)
        known = (plain,) * (len(widths) - 1)
    if len(known) != len(widths) - 1 or len(widths) < 2 or min(widths) < 1:
        raise UserError(
            f"features {list(widths)} and strides {[list(s) for s in known]}: a network of 2 or more levels needs a "
            "positive number of features for each, and one stride fewer"
        )
    return Levels(widths, known)


def check_strides(dims: int, strides: Sequence[Sequence[int]]) -> tuple[Stride, ...]:
    """``strides`` as triples (x, y, z); :class:`UserError` where one is none, or goes along z in two dimensions."""
    known: list[Stride] = []
    for stride in strides:
        if len(stride) != 3 or min(stride) < 1:
            raise UserError(f"strides: {list(stride)} is not three positive numbers (x, y, z)")
        if dims == 2 and stride[2] != 1:
            raise UserError(f"strides: {list(stride)} goes along z, which a network of 2 dimensions does not see")
        known.append((int(stride[0]), int(stride[1]), int(stride[2])))
    return tuple(known)


def meta_call(body: nn.Module, shape: Sequence[int]) -> tuple[tuple[int, ...], list[str]]:
    """The shape of the maps for an input of ``shape``, and the parameters on which they do not depend.

    Found from shapes alone: nothing is computed, and the network stays as it is.
    """
    parameters = {name: value.detach().to("meta").requires_grad_() for name, value in body.named_parameters()}
    buffers = {name: value.to("meta") for name, value in body.named_buffers()}
    with torch.enable_grad():
        out = functional_call(body, {**parameters, **buffers}, (torch.empty(*shape, device="meta"),))
        found = torch.autograd.grad(out.sum(), list(parameters.values()), allow_unused=True)
    unused = [name for name, gradient in zip(parameters, found, strict=True) if gradient is None]
    return tuple(out.shape), unused
