"""Grad-CAM (Selvaraju et al. 2017, ICCV, equations 1 and 2) for networks in two and three dimensions.

With feature maps A_k and the logit y_c of a class, α_k is the mean of ∂y_c/∂A_k over all places, and the map of the
class is ReLU(Σ_k α_k A_k). For global average pooling and a linear head with weights w, it is ReLU(Σ_k w_ck A_k) over
the number of places: the class activation map of Zhou et al. 2016.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrtransfer.common.errors import UserError
from mrtransfer.models.network import Backbone, StagedNetwork

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def grad_cam(
    network: nn.Module,
    head: nn.Module,
    images: Tensor,
    classes: Tensor | int | None = None,
    *,
    stage: str | None = None,
) -> Tensor:
    """Grad-CAM of each image, float32 (N, *places) on the grid of the feature maps, all values 0 or more.

    Network and head are used in evaluation mode, in the precision they have, and left as they were. Nothing is computed
    backwards beyond the maps.

    Args:
        network: a backbone, a segmentation network, or any module that gives maps (N, F, *places) to ``head``.
        head: from what the network gives to logits (N, C), or (N, C, *voxels), of which the mean over voxels is
            explained (Vinogradova et al. 2020, Seg-Grad-CAM, for all voxels).
        images: network input (N, C, *voxels).
        classes: the class to explain, one for all or one each (N,); by default the one with the highest logit.
        stage: the stage of a :class:`~mrtransfer.models.network.StagedNetwork` whose output are the maps; by default
            those before pooling (backbone) or before the head.

    Raises :class:`UserError` for a network that gives no maps, such as a vision transformer.
    """
    return grad_cams(network, [head], images, classes, stage=stage)[0]


def grad_cams(
    network: nn.Module,
    heads: Sequence[nn.Module],
    images: Tensor,
    classes: Tensor | int | None = None,
    *,
    stage: str | None = None,
) -> Tensor:
    """:func:`grad_cam` of several heads on one network, which runs once: float32 (heads, N, *places)."""
    with _only_leaf_has_gradient(network, *heads), _maps_kept(network, stage) as kept:
        found = network(images)
        if not kept:  # neither a stage nor a backbone: what the network gives are the maps
            kept.append(found.detach().requires_grad_())
            found = kept[0].clone()
        maps = _arranged(kept[-1], images, network).detach().float()
        gradients = (_arranged(_gradient(head(found), classes, kept[-1]), images, network) for head in heads)
        weights = torch.stack([gradient.float().flatten(2).mean(2) for gradient in gradients])
    return torch.einsum("hnf,nf...->hn...", weights, maps).relu()


def heat_maps(cams: Tensor, size: Sequence[int]) -> Tensor:
    """Grad-CAMs (N, *places) on the grid of the images, float32 (N, *size), each divided by its own maximum.

    Linear interpolation between the centres of the places. A map that is 0 everywhere stays so.
    """
    if len(size) != cams.ndim - 1:
        raise UserError(f"heat map: size {tuple(size)} does not fit maps with {cams.ndim - 1} axes")
    grown = functional.interpolate(cams.float()[:, None], size=tuple(size), mode=_LINEAR[len(size)])[:, 0]
    highest = grown.flatten(1).amax(1).clamp_min(torch.finfo(torch.float32).tiny)
    return grown / highest.reshape(-1, *[1] * len(size))


def _gradient(logits: Tensor, classes: Tensor | int | None, maps: Tensor) -> Tensor:
    """Of the chosen class's logit with respect to the maps."""
    logits = logits.flatten(2).mean(2) if logits.ndim > 2 else logits
    chosen = _chosen(classes, logits)
    (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), maps, retain_graph=True)
    return gradient


def _chosen(classes: Tensor | int | None, logits: Tensor) -> Tensor:
    """The class to explain of each image (N,)."""
    if classes is None:
        return logits.argmax(1)
    chosen = torch.as_tensor(classes, device=logits.device).long().expand(len(logits))
    if chosen.min() < 0 or chosen.max() >= logits.shape[1]:
        raise UserError(f"Grad-CAM: class {classes} does not exist; there are 0 … {logits.shape[1] - 1}")
    return chosen


def _arranged(maps: Tensor, images: Tensor, network: nn.Module) -> Tensor:
    """Maps as (N, F, *places), whatever their order within the network."""
    if maps.ndim < 4:
        name = getattr(network, "name", type(network).__name__)
        raise UserError(
            f"Grad-CAM: {name} gives {tuple(maps.shape)} and no feature maps; choose a convolutional network"
        )
    last = str(getattr(getattr(network, "body", network), "output_fmt", "NCHW")).upper().endswith("NHWC")
    maps = maps.movedim(-1, 1) if last else maps
    if maps.ndim < images.ndim:  # a 2-D network took the volume's slices one by one
        return maps.unflatten(0, (len(images), -1)).movedim(1, -1)
    return maps


@contextmanager
def _maps_kept(network: nn.Module, stage: str | None) -> Iterator[list[Tensor]]:
    """While the block runs, the chosen maps are kept in the list as the leaf from which the rest is computed."""
    kept: list[Tensor] = []

    def keep(maps: Tensor) -> Tensor:
        kept.append(maps.detach().requires_grad_())
        return kept[-1].clone()  # what follows may work in place

    if stage is not None:
        if not isinstance(network, StagedNetwork):
            raise UserError(f"stage: {type(network).__name__} has no named stages; leave it out")
        last = network.body.get_submodule(network.stage(stage).members[-1])
        handle = last.register_forward_hook(lambda module, args, maps: keep(maps))
        try:
            yield kept
        finally:
            handle.remove()
    elif isinstance(network, Backbone):
        body, own = network.body, network.body.forward_features
        body.forward_features = lambda *args, **options: keep(own(*args, **options))  # type: ignore[operator,assignment]
        try:
            yield kept
        finally:
            del body.forward_features  # the attribute of this one object: its class's method is there again
    else:
        yield kept


@contextmanager
def _only_leaf_has_gradient(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode, and no gradient for any parameter; both as before when the block ends."""
    modes = {module: module.training for part in modules for module in part.modules()}
    parameters = {value: value.requires_grad for part in modules for value in part.parameters()}
    try:
        for part in modules:
            part.eval().requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for value, needed in parameters.items():
            value.requires_grad_(needed)
