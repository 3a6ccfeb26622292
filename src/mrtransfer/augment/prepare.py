"""From stored pixels to what a network was trained to see: scale, channels, normalisation."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from mrtransfer.common.errors import UserError, unknown_name

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

INSTANCE = "instance"

NORMALISE: dict[str, Statistics | str] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,), (0.5,)),
    "unit": ((0.0,), (1.0,)),
    INSTANCE: INSTANCE,
}
"""Name to (mean, standard deviation) of pixels in 0..1, per channel; ``instance`` takes each image's own."""


def resolve_normalise(value: str | Mapping[str, Any] | Sequence[Any]) -> Statistics | str:
    """(mean, std) from a name of :data:`NORMALISE`, a mapping with ``mean`` and ``std``, or a pair.

    Returns the string ``"instance"`` for per-image normalisation. Raises :class:`UserError` for anything else.
    """
    if isinstance(value, str):
        if value not in NORMALISE:
            raise unknown_name("normalisation", value, NORMALISE)
        return NORMALISE[value]
    if isinstance(value, Mapping) and set(value) == {"mean", "std"}:
        pair = (value["mean"], value["std"])
    elif isinstance(value, Sequence) and len(value) == 2:
        pair = (value[0], value[1])
    else:
        raise UserError(f"normalise: {value!r} is neither a name ({', '.join(NORMALISE)}) nor {{mean: ..., std: ...}}")
    mean, std = (_numbers(part) for part in pair)
    if not all(part > 0 for part in std):
        raise UserError(f"normalise: the standard deviation {list(std)} must be above 0")
    return mean, std


def _numbers(value: Any) -> tuple[float, ...]:
    values = (value,) if isinstance(value, Real) else value
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise UserError(f"normalise: {value!r} is not a number or a list of numbers, one per channel")
    try:
        return tuple(float(part) for part in values)
    except (TypeError, ValueError) as error:
        raise UserError(f"normalise: {value!r} is not a number or a list of numbers, one per channel") from error


def to_input(
    batch: Tensor, *, channels: int, normalise: str | Mapping[str, Any] | Sequence[Any] = "imagenet"
) -> Tensor:
    """Turn stored images into a network's input.

    Parameters
    ----------
    batch:
        (N, C, H, W), uint8 in 0..255 or float in 0..1.
    channels:
        Channels that the network wants; a grey image (C = 1) is repeated to fill them.
    normalise:
        A name of :data:`NORMALISE`, or (mean, std) of pixels in 0..1, one number for all channels or one each.
        ``instance``: each image is given mean 0 and standard deviation 1 over all its pixels and channels.

    Returns
    -------
    float32 (N, channels, H, W).
    """
    pixels = batch.float().div_(255.0) if batch.dtype == torch.uint8 else batch.float()
    found = pixels.shape[1]
    if found not in (1, channels):
        raise UserError(
            f"the images have {found} channels and the network wants {channels}: "
            f"set in_channels to {found}, or choose one channel of the dataset"
        )
    statistics = resolve_normalise(normalise)
    if isinstance(statistics, str):
        spread, centre = torch.std_mean(pixels, dim=(1, 2, 3), keepdim=True, correction=0)
        # A constant image (padding only) must become zeros, not infinities.
        return ((pixels - centre) / spread.clamp_min(1e-6)).expand(-1, channels, -1, -1)
    mean, std = (_per_channel(part, channels).to(pixels.device) for part in statistics)
    return (pixels - mean) / std


def _per_channel(values: tuple[float, ...], channels: int) -> Tensor:
    """(1, channels, 1, 1); statistics of another number of channels are averaged, as a grey image would see them."""
    if len(values) not in (1, channels):
        values = (sum(values) / len(values),)
    return torch.tensor(values, dtype=torch.float32).expand(channels).reshape(1, channels, 1, 1)
