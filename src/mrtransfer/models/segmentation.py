"""Segmentation networks: a U-shaped body in two or three dimensions, with one feature vector per voxel."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import timm
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from mrtransfer.common.errors import UserError
from mrtransfer.common.strict import first_error, unknown_key
from mrtransfer.models.instance_norm import keep_layout
from mrtransfer.models.network import StagedNetwork, seeded
from mrtransfer.models.segmenters import SEGMENTERS
from mrtransfer.models.ushape import Parts, meta_call

_FROM_PLAN = ("in_channels", "dims", "features", "strides")
_HEADS = ("head", "segmentation_head", "classification_head")


class SegmentationNetwork(StagedNetwork):
    """Patches (N, ``in_channels``, X, Y, Z) to maps (N, ``features``, X, Y, Z).

    ``dims`` 2: the network sees slices across Z one by one, so it takes images (Z = 1) and volumes alike. Patches must
    be multiples of ``divisor`` voxels (X, Y, Z). Where the encoder is a published classification network, files with
    its plain names can be loaded: they belong under ``encoder_prefix``.
    """

    def __init__(self, parts: Parts, description: Mapping[str, Any]) -> None:
        super().__init__(
            description["name"],
            parts.body,
            in_channels=description["in_channels"],
            stages=parts.stages,
            classifier=(*parts.classifier, *_HEADS),
            first_conv=parts.first_conv,
        )
        self._description = dict(description)
        self.dims: int = description["dims"]
        self.encoder = parts.encoder
        x, y, z = (math.prod(stride[axis] for stride in parts.strides) for axis in range(3))
        self.divisor: tuple[int, int, int] = (x, y, z)
        shape, unused = meta_call(self.body, (2, self.in_channels, *(2 * size for size in self.divisor[: self.dims])))
        self.features = shape[1]
        if unused:
            raise ValueError(f"{self.name}: the output does not depend on {unused[0]}")

    @property
    def description(self) -> dict[str, Any]:
        """The arguments with which :func:`build_segmentation_network` builds it again; its weights apart."""
        return dict(self._description)

    @property
    def encoder_prefix(self) -> str:
        """Where the tensors of a published encoder lie in the body; empty where it has none."""
        return self.encoder.prefix if self.encoder else ""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, ``features``, X, Y, Z)."""
        if self.dims == 3:
            return self.body(x)
        if x.shape[4] == 1:
            return self.body(x.squeeze(4)).unsqueeze(4)
        slices = self.body(x.movedim(4, 1).flatten(0, 1))
        return slices.unflatten(0, (x.shape[0], x.shape[4])).movedim(1, 4)

    def check_patch(self, patch: Sequence[int]) -> None:
        """Raise :class:`UserError` with the nearest right size where ``patch`` (X, Y, Z) does not fit.

        Each side is a multiple of ``divisor``; and at least two voxels are left at the lowest level, as one has no
        variance by which it could be normalised.
        """
        right = [max(round(size / step), 1) * step for size, step in zip(patch, self.divisor, strict=True)]
        if all(size == step for size, step in zip(right, self.divisor, strict=True)):
            longest = max(range(self.dims), key=lambda axis: patch[axis])
            right[longest] *= 2
        if list(patch) != right:
            raise UserError(
                f"patch: {self.name} cannot take {_times(patch)} voxels: sides are multiples of "
                f"{_times(self.divisor)}, with more than one voxel at the lowest level; the nearest is {_times(right)}"
            )


def build_segmentation_network(
    name: str,
    *,
    in_channels: int,
    dims: int,
    features: Sequence[int] | None = None,
    strides: Sequence[Sequence[int]] | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> SegmentationNetwork:
    """A segmentation network with random weights drawn from ``seed`` alone.

    ``name``: one of :data:`~mrtransfer.models.segmenters.SEGMENTERS`. ``dims``: 2 or 3. ``features`` (maps by level)
    and ``strides`` (x, y, z between levels; one fewer) are a plan's; without them, the network's own. ``options``: the
    other parameters of the function in ``segmenters/``. Raises :class:`UserError` for what it does not know or cannot
    build, with the nearest valid name.
    """
    if name not in SEGMENTERS and timm.is_model(name):
        raise UserError(f"network {name}: this is an encoder, not a segmentation network; use unet with encoder {name}")
    build = SEGMENTERS.get(name)
    if in_channels < 1:
        raise UserError(f"in_channels: {in_channels} is not a number of channels; give 1 or more")
    if dims not in (2, 3):
        raise UserError(f"dims: {dims} is neither 2 nor 3")
    chosen = check_options(name, options or {})
    with seeded(seed):
        parts = build(in_channels, dims, features, strides, **chosen)
        keep_layout(parts.body)
    description = {
        "name": name,
        "in_channels": in_channels,
        "dims": dims,
        "features": None if features is None else [int(width) for width in features],
        "strides": None if strides is None else [[int(step) for step in stride] for stride in strides],
        "options": chosen,
    }
    return SegmentationNetwork(parts, description)


def check_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a segmentation network with their values, defaults included, ready for JSON.

    Raises :class:`UserError` for an unknown option, with the nearest valid one, and for a value that cannot be.
    """
    known = segmenter_options(SEGMENTERS.get(name))
    for key in options:
        if key not in known:
            raise UserError(f"network {name}: {unknown_key(str(key), list(known))}")
    chosen = {}
    for key, parameter in known.items():
        try:
            value = TypeAdapter(parameter.annotation).validate_python(options.get(key, parameter.default))
        except ValidationError as error:
            raise first_error(error, f"network {name}: {key}") from error
        chosen[key] = list(value) if isinstance(value, tuple) else value
    return chosen


def segmenter_options(build: Callable[..., Parts]) -> dict[str, inspect.Parameter]:
    """The parameters of a registered function that a recipe may set beside the network's name."""
    found = inspect.signature(build).parameters
    return {name: parameter for name, parameter in found.items() if name not in _FROM_PLAN}


def pixel_head(features: int, outputs: int, *, seed: int = 0) -> nn.Sequential:
    """A 1×1×1 convolution: maps (N, ``features``, X, Y, Z) to logits (N, ``outputs``, X, Y, Z).

    Its values are PyTorch's usual start, uniform in ±1/√``features``, as a pure function of ``seed``.
    """
    layer = nn.utils.skip_init(nn.Conv3d, features, outputs, 1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in layer.parameters():
            value.uniform_(-1 / math.sqrt(features), 1 / math.sqrt(features), generator=generator)
    return nn.Sequential(layer)


def _times(sizes: Sequence[int]) -> str:
    return "×".join(str(size) for size in sizes)
