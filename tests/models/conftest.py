"""Small segmentation networks."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import nn

from mrtransfer.models.segmentation import SegmentationNetwork, build_segmentation_network

OPTIONS = {"unet": {"depth": 2}, "resunet": {"depth": 2, "encoder": "resnet18"}}


@pytest.fixture(scope="session")
def small() -> Callable[..., SegmentationNetwork]:
    """Networks of three levels, as a plan would ask for them; every registered one must accept that.

    Each call gives a copy of its own; only ``anew`` builds again what was built before.
    """
    built: dict[str, SegmentationNetwork] = {}

    def build(name: str, dims: int, in_channels: int = 2, seed: int = 0, anew: bool = False, **options):
        key = repr((name, dims, in_channels, seed, options))
        if anew or key not in built:
            built[key] = build_segmentation_network(
                name,
                in_channels=in_channels,
                dims=dims,
                features=(4, 8, 16),
                strides=[(2, 2, 2 if dims == 3 else 1)] * 2,
                options={**OPTIONS.get(name, {}), **options},
                seed=seed,
            )
        return deepcopy(built[key])

    return build


@pytest.fixture(scope="session")
def shaken() -> Callable[[nn.Module], nn.Module]:
    """Gives batch norms statistics and weights as if they had been trained, and evaluation mode."""

    def shake(module: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for layer in module.modules():
                if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
                    for values, low in ((layer.weight, 0.8), (layer.bias, -0.2), (layer.running_mean, -0.2)):
                        values.uniform_(low, low + 0.4, generator=generator)
                    layer.running_var.uniform_(0.5, 1.5, generator=generator)
        return module.eval()

    return shake
