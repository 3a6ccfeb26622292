"""What is frozen at an epoch: a pure function of (settings, epoch), applied anew at every epoch start.

Every parameter stays in one optimizer group for life; only ``requires_grad`` and the mode of batch-norm layers change.
A resumed run is therefore the run.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mrtransfer.common.errors import unknown_name
from mrtransfer.models.network import StagedNetwork
from mrtransfer.transfer.method import Adaptation, NetworkMethod

ALL = "all"


def frozen_stages(method: NetworkMethod, epoch: int, stages: Sequence[str]) -> list[str]:
    """The stages that keep their weights during ``epoch`` (from 0): a prefix of ``stages``, maybe empty.

    Raises :class:`UserError` with the nearest valid name where ``method.freeze`` is no stage of the network.
    """
    if method.freeze is None:
        return []
    if method.freeze != ALL and method.freeze not in stages:
        raise unknown_name("stage in freeze", method.freeze, [*stages, ALL])
    if method.freeze_epochs is not None and epoch >= method.freeze_epochs:
        return []
    return list(stages) if method.freeze == ALL else list(stages[: stages.index(method.freeze) + 1])


def apply_freeze(network: StagedNetwork, method: NetworkMethod, epoch: int) -> list[str]:
    """Set ``requires_grad`` of all parameters and the mode of all layers for ``epoch``; returns the frozen stages.

    Frozen stages are in evaluation mode. Batch norm uses the statistics of the batch, and updates its running ones,
    only where the policy is ``train`` and its stage is not frozen; and in a new decoder on a pretrained encoder, whose
    statistics would be those of no data. As the frozen stages come first, nothing in them is recorded for the backward
    pass.
    """
    frozen = frozen_stages(method, epoch, network.stage_names)
    held = {id(parameter) for name in frozen for _, parameter in network.stage_parameters(name)}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) not in held)
        if id(parameter) in held:
            parameter.grad = None
    network.train(len(frozen) < len(network.stages))
    for name in frozen:
        for module in network.stage_modules(name):
            module.eval()
    if method.batch_norm != "train":
        for name, layer in _with_statistics(network.body):
            layer.train(network.encoder is not None and layer.training and f"{name}.running_mean" in network.fresh)
    return frozen


def normalisation_layers(network: nn.Module) -> list[_NormBase]:
    """Layers that carry running statistics."""
    return [layer for _, layer in _with_statistics(network)]


def _with_statistics(network: nn.Module) -> list[tuple[str, _NormBase]]:
    return [
        (name, layer)
        for name, layer in network.named_modules()
        if isinstance(layer, _NormBase) and layer.running_mean is not None
    ]


def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Estimate all running statistics anew: the average over ``batches`` of input, in one pass without gradients.

    The rest of the network is in evaluation mode meanwhile. Source: AdaBN, Li et al. 2016 (arXiv 1603.04779).
    """
    layers = normalisation_layers(network)
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the cumulative average
        layer.train()
    with torch.no_grad():
        for batch in batches:
            network(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()


@contextmanager
def running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Within the block, batches are normalised as before, but running statistics do not follow them."""
    layers = normalisation_layers(network)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def parameter_groups(
    network: nn.Module, head: nn.Module, method: NetworkMethod, critic: nn.Module | None = None
) -> list[dict[str, Any]]:
    """Optimizer groups, the same for the whole training: head and backbone, with and without weight decay.

    Biases and normalisation layers (parameters of one dimension) are not decayed. ``initial_lr`` is each group's rate
    before the schedule. ``critic``: what an adaptation trains beside them, at the rate that it says.
    """
    groups = []
    parts = [
        ("head", head, method.rate),
        ("backbone", network, method.rate if method.backbone_rate is None else method.backbone_rate),
    ]
    if critic is not None and isinstance(method, Adaptation):
        parts.append(("critic", critic, method.rate_of_critic))
    for part, module, rate in parts:
        for decayed in (True, False):
            own = [parameter for parameter in module.parameters() if (parameter.ndim > 1) == decayed]
            decay = method.weight_decay if decayed else 0.0
            groups.append({"params": own, "name": part, "lr": rate, "initial_lr": rate, "weight_decay": decay})
    return [group for group in groups if group["params"]]
