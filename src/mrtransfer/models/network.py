"""Networks as rows of named stages, and backbones: any network, whole or cut, with one pooled feature vector."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.func import functional_call

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.models.networks import NETWORKS
from mrtransfer.models.stages import Stage, find_stages, pool_maps, remove_after


@dataclass(frozen=True)
class Encoder:
    """The part of a network that is a published classification network.

    ``prefix`` is where it lies in the body (``encoder.model.``). ``names`` are all tensors of the published network
    without its classifier: published name to name in the body, or to None where the body has no such layer.
    """

    name: str
    prefix: str
    names: Mapping[str, str | None]


class StagedNetwork(nn.Module):
    """A body whose stages, in forward order, can be frozen and given weights one by one.

    ``body`` is the network itself; its parameters keep their published names (:func:`network_state`). ``stages`` are
    those still there, ``removed`` those cut off by ``until``, ``classifier`` the names under which files keep a
    classifier or head that the body does not have, ``first_conv`` the convolutions that see the input channels.
    """

    features: int
    """How many features the network gives: per image for a backbone, per voxel for a segmentation network."""
    encoder: Encoder | None = None
    fresh: frozenset[str] = frozenset()
    """Tensors, under published names, for which the initial weights had no values."""

    def __init__(
        self,
        name: str,
        body: nn.Module,
        *,
        in_channels: int,
        stages: tuple[Stage, ...],
        classifier: tuple[str, ...],
        first_conv: tuple[str, ...],
        until: str | None = None,
        removed: tuple[Stage, ...] = (),
    ) -> None:
        super().__init__()
        self.name = name
        self.in_channels = in_channels
        self.until = until
        self.stages = stages
        self.removed = removed
        self.classifier = classifier
        self.first_conv = first_conv
        self.body = body

    @property
    def description(self) -> dict[str, Any]:
        """All that is needed to build the network again, ready for JSON; its weights apart."""
        return {"name": self.name, "in_channels": self.in_channels, "until": self.until}

    @property
    def stage_names(self) -> list[str]:
        """The names of the stages in forward order."""
        return [stage.name for stage in self.stages]

    def stage(self, name: str) -> Stage:
        """The stage called ``name``; :class:`UserError` with the valid names where there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise unknown_name(f"stage of {self.name}", name, self.stage_names, shown=40)

    def stage_parameters(self, name: str) -> list[tuple[str, nn.Parameter]]:
        """(name, parameter) of one stage, in the order of the body's own parameters."""
        stage = self.stage(name)
        return [(key, value) for key, value in self.body.named_parameters() if stage.holds(key)]

    def stage_modules(self, name: str) -> list[nn.Module]:
        """Every module of one stage, at all depths."""
        stage = self.stage(name)
        return [module for key, module in self.body.named_modules() if key and stage.holds(key)]


class Backbone(StagedNetwork):
    """A network without classifier: (N, ``in_channels``, H, W) to pooled features (N, ``features``)."""

    def __init__(self, name: str, body: nn.Module, *, in_channels: int, until: str | None = None) -> None:
        config = pretrained_config(body)
        stages = find_stages(body)
        first_conv = _names(config.get("first_conv")) or first_convolution(body)
        removed: tuple[Stage, ...] = ()
        if until is not None:
            if until not in [stage.name for stage in stages]:
                raise unknown_name(f"stage of {name}", until, [stage.name for stage in stages], shown=40)
            removed = remove_after(body, stages, until)
        super().__init__(
            name,
            body,
            in_channels=in_channels,
            stages=stages[: len(stages) - len(removed)],
            classifier=classifier_names(config),
            first_conv=first_conv,
            until=until,
            removed=removed,
        )
        self.size: int = int((config.get("input_size") or (3, 224, 224))[-1])
        self.normalise = _normalise_of(config)
        self.features = self._shape_of_features()

    def maps(self, x: Tensor) -> Tensor:
        """The last stage's output before pooling, (N, features, H', W') for a convolutional network."""
        forward_features: Callable[[Tensor], Tensor] = self.body.forward_features  # type: ignore[assignment]
        return forward_features(x)

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features, (N, features)."""
        if not self.removed:
            return self.body(x)
        # What follows the cut is gone, so the body's own pooling and norms no longer fit: plain average pooling.
        last = str(getattr(self.body, "output_fmt", "NCHW")).upper().endswith("NHWC")
        return pool_maps(self.maps(x), channels_last=last, prefix_tokens=getattr(self.body, "num_prefix_tokens", 0))

    def check_size(self, size: int) -> int:
        """The number of features for images of ``size`` pixels; :class:`UserError` where they do not fit."""
        try:
            return self._meta_forward(size)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"size: {self.name} cannot take images of {size}×{size} pixels; it was made for {self.size}×{self.size}"
            ) from error

    def _shape_of_features(self) -> int:
        try:
            return self._meta_forward(self.size)
        except Exception as error:
            if self.until is None:
                raise UserError(f"{self.name} cannot be used as a backbone: {sentence(error)}") from error
            raise UserError(
                f"{self.name} cannot be cut after {self.until!r} ({sentence(error)}); "
                f"its stages are {', '.join(s.name for s in (*self.stages, *self.removed))}"
            ) from error

    @torch.no_grad()
    def _meta_forward(self, size: int) -> int:
        """Features of one image, found from shapes alone: nothing is computed."""
        training = {module: module.training for module in self.modules()}
        self.eval()
        try:
            tensors = {name: value.to("meta") for name, value in (*self.named_parameters(), *self.named_buffers())}
            image = torch.empty(1, self.in_channels, size, size, device="meta")
            out = functional_call(self, tensors, (image,))
        finally:
            for module, mode in training.items():
                module.training = mode
        if out.ndim != 2:
            raise ValueError(f"its output has shape {tuple(out.shape)}, not one vector per image")
        return int(out.shape[1])


def build_network(name: str, *, in_channels: int = 3, until: str | None = None, seed: int = 0) -> Backbone:
    """A backbone with random weights drawn from ``seed`` alone.

    ``name``: one of :data:`~mrtransfer.models.networks.NETWORKS` or any timm model, with or without its weights tag
    (``resnet18``, ``resnet18.a1_in1k``). ``until``: the last stage to keep. The weights before the cut are those of
    the whole network with the same seed. Raises :class:`UserError` with the nearest valid name.
    """
    if in_channels < 1:
        raise UserError(f"in_channels: {in_channels} is not a number of channels; give 1 or more")
    with seeded(seed):
        body = NETWORKS.get(name)(in_channels) if name in NETWORKS else _timm_body(name, in_channels)
    return Backbone(name, body, in_channels=in_channels, until=until)


def network_state(network: nn.Module) -> dict[str, Tensor]:
    """The state dict under published names: a network's body without prefix, any other module as it is."""
    return dict((network.body if isinstance(network, StagedNetwork) else network).state_dict())


def _timm_body(name: str, in_channels: int) -> nn.Module:
    if not timm.is_model(name) or ":" in name:
        raise unknown_name("network", name, known_networks())
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, in_chans=in_channels)
    except Exception as error:  # timm's models raise whatever their authors chose
        raise UserError(f"timm cannot build {name!r} for {in_channels} channels: {sentence(error)}") from error


@cache
def known_networks() -> tuple[str, ...]:
    """Every name that :func:`build_network` knows, without weights tags."""
    return (*NETWORKS.names(), *timm.list_models())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initialisers of libraries use the global generator: borrow it, and give it back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


def pretrained_config(body: nn.Module) -> dict[str, Any]:
    """What timm knows about a network of its own; empty for others."""
    config = getattr(body, "pretrained_cfg", None)
    return dict(config) if config else {}


def classifier_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Where published files keep the classifier of a network with this timm ``config``."""
    return _names(config.get("classifier")) or ("classifier", "fc", "head.fc")


def _normalise_of(config: dict[str, Any]) -> dict[str, list[float]]:
    mean, std = config.get("mean") or (0.485, 0.456, 0.406), config.get("std") or (0.229, 0.224, 0.225)
    return {"mean": [float(value) for value in mean], "std": [float(value) for value in std]}


def _names(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def first_convolution(body: nn.Module) -> tuple[str, ...]:
    """The path of the first convolution, in a tuple; empty where there is none."""
    return next(((name,) for name, module in body.named_modules() if isinstance(module, nn.Conv2d | nn.Conv3d)), ())


def sentence(error: BaseException) -> str:
    """The kind of ``error`` and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
