"""Making one tensor fit a network of another number of input channels or dimensions, by a rule that has a name."""

from collections import Counter
from collections.abc import Container, Mapping
from typing import Literal

import torch
from torch import Tensor

Channels = Literal["sum", "mean", "repeat", "zero_pad"]
"""How a first convolution for one number of channels is made into one for another: see :func:`adapt_channels`."""


def adapt_channels(weight: Tensor, channels: int, policy: Channels) -> Tensor:
    """A first convolution (O, I, ...) made to take ``channels`` inputs, (O, channels, ...).

    ``sum``: every new channel is the sum over the old ones divided by ``channels``; a grey image, repeated or not,
    gives exactly the old network's response to it. ``mean``: every new channel is the mean of the old ones. ``repeat``:
    the old channels in turn, scaled by I / channels so that the response keeps its size (timm, SMP). ``zero_pad``: the
    first channels as they were, further ones zero (fastai); where there are fewer, the rest is dropped.
    """
    old = weight.shape[1]
    spread = [1, channels] + [1] * (weight.ndim - 2)
    if policy == "sum":
        return weight.sum(dim=1, keepdim=True).repeat(spread) / channels
    if policy == "mean":
        return weight.mean(dim=1, keepdim=True).repeat(spread)
    if policy == "repeat":
        return weight[:, torch.arange(channels) % old] * (old / channels)
    out = weight.new_zeros(weight.shape[0], channels, *weight.shape[2:])
    kept = min(old, channels)
    out[:, :kept] = weight[:, :kept]
    return out


def inflate(weight: Tensor, depth: int, stride: int = 1) -> Tensor:
    """A 2-D kernel (O, I, X, Y) as a 3-D one (O, I, X, Y, ``depth``): repeated along Z and divided by its length.

    On a volume that is the same in every slice it responds as the 2-D kernel does (I3D: Carreira and Zisserman 2017,
    section 2.4). ``stride``: of a transposed convolution along Z. There an output only meets every ``stride``-th
    element of the kernel, and those that meet are divided by their own number.
    """
    met = [sum(other % stride == place % stride for other in range(depth)) for place in range(depth)]
    return weight.unsqueeze(-1) / torch.tensor(met, dtype=weight.dtype)


def fit_tensor(
    value: Tensor, wanted: tuple[int, ...], first: bool, channels: Channels | None, stride: int = 1
) -> tuple[Tensor, str] | None:
    """``value`` in the shape ``wanted`` and how it was done, or None where no rule applies.

    Channels are adapted only in a ``first`` convolution, and only by the policy that was asked for. Convolutions are
    inflated from 2-D to 3-D where the rest of the shape agrees; ``stride`` as in :func:`inflate`.
    """
    done: list[str] = []
    if value.ndim == 4 and len(wanted) == 5 and tuple(value.shape[2:]) == wanted[2:4]:
        value = inflate(value, wanted[4], stride)
        done.append(f"2-D kernel inflated to depth {wanted[4]}")
    convolution = value.ndim == len(wanted) and value.ndim >= 4
    if convolution and first and channels is not None and value.shape[1] != wanted[1]:
        done.append(f"{value.shape[1]} input channels made {wanted[1]} by {channels}")
        value = adapt_channels(value, wanted[1], channels)
    return (value, "; ".join(done)) if tuple(value.shape) == wanted else None


def strip_prefix(state: Mapping[str, Tensor], wanted: Container[str]) -> tuple[dict[str, Tensor], list[str]]:
    """``state`` without the prefix of a wrapper (DataParallel, Lightning, an encoder), and a note that says so.

    A prefix is left out only where more names of the network are found without it than with it.
    """
    prefixes: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in wanted:
                prefixes["".join(f"{part}." for part in parts[:cut])] += 1
    common = prefixes.most_common(1)[0][0] if prefixes else ""
    if not common or prefixes[common] <= prefixes[""]:
        return dict(state), []
    bare = {name.removeprefix(common): value for name, value in state.items()}
    return bare, [f"the file's names start with {common!r}, which was left out"]
