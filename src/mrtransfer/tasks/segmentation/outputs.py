"""What a segmentation network's outputs mean: one softmax over classes, or one sigmoid per region."""

from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.data.mask_labels import MaskLabels

LOSSES = ("dice_ce", "cross_entropy", "dice", "focal_tversky", "region")
_BY_REGION = ("region",)


def outputs(name: str, labels: MaskLabels) -> int:
    """How many output channels a network needs for the loss ``name``: classes, or regions."""
    return len(labels.regions) if by_region(name) else len(labels.names)


def by_region(name: str) -> bool:
    """Whether the loss ``name`` has one sigmoid per region; :class:`UserError` where there is no such loss."""
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    return name in _BY_REGION


def probabilities(logits: Tensor, name: str) -> Tensor:
    """Logits (N, K, …) of a network trained with the loss ``name`` as float32 probabilities."""
    return logits.float().sigmoid() if by_region(name) else logits.float().softmax(1)


def region_probabilities(probs: Tensor, name: str, labels: MaskLabels) -> Tensor:
    """Probability of every region (N, R, …) from :func:`probabilities` (N, K, …)."""
    if by_region(name):
        return probs
    member = torch.from_numpy(labels.membership).to(probs)
    return torch.einsum("rk,nk...->nr...", member, probs)


def region_maps(probs: np.ndarray, name: str, labels: MaskLabels) -> np.ndarray:
    """Probability of every region (R, X, Y, Z), float32, from the probabilities (K, X, Y, Z) of one case."""
    if by_region(name):
        return np.asarray(probs, dtype=np.float32)
    return np.stack([probs[member].sum(0, dtype=np.float32) for member in labels.membership])


def region_counts(logits: Tensor, target: Tensor, name: str, labels: MaskLabels) -> Tensor:
    """Voxels per sample and region, int64 (N, R, 3): in both, predicted only, reference only.

    ``logits`` (N, K, …) are decided by the most probable class, or where a region's probability is above one half;
    ``target`` (N, …) are class indices. Dice of pooled counts: 2·both / (2·both + predicted only + reference only).
    """
    member = torch.from_numpy(labels.membership).to(logits.device)
    there = member[:, target.long()].transpose(0, 1).flatten(2)
    found = (logits > 0 if by_region(name) else member[:, logits.argmax(1)].transpose(0, 1)).flatten(2)
    both = (found & there).sum(2)
    return torch.stack([both, found.sum(2) - both, there.sum(2) - both], dim=2)


def to_classes(probs: np.ndarray, name: str, labels: MaskLabels) -> np.ndarray:
    """Class indices, uint8 (X, Y, Z), from the probabilities (K, X, Y, Z) of one case.

    Softmax: the most probable class. Sigmoids: regions above one half are painted one over the other, those of most
    classes first, each with its own class (:func:`own_classes`), as nnU-Net does.
    """
    if not by_region(name):
        return probs.argmax(0).astype(np.uint8)
    check_paintable(labels)
    classes = np.zeros(probs.shape[1:], dtype=np.uint8)
    for region, own in own_classes(labels):
        classes[probs[region] > 0.5] = own
    return classes


def own_classes(labels: MaskLabels) -> list[tuple[int, int]]:
    """(region, class to paint it with) in painting order: regions of most classes first, else in their own order.

    A region's own class is the first of its classes that no smaller region holds. A region that is made up of smaller
    ones has none and is left out: its parts say what it consists of.
    """
    member = labels.membership
    order = sorted(range(len(member)), key=lambda region: -int(member[region].sum()))
    found = []
    for place, region in enumerate(order):
        smaller = member[order[place + 1 :]].any(0)
        own = np.flatnonzero(member[region] & ~smaller)
        if len(own):
            found.append((region, int(own[0])))
    return found


def check_paintable(labels: MaskLabels) -> None:
    """:class:`UserError` where two regions overlap without one holding the other: no painting order gives both."""
    for first, second in combinations(range(len(labels.regions)), 2):
        a, b = labels.membership[first], labels.membership[second]
        if (a & b).any() and (a & ~b).any() and (b & ~a).any():
            names = labels.region_names
            raise UserError(
                f"regions {names[first]!r} and {names[second]!r} share classes, yet neither holds the other; the loss "
                "'region' needs regions that are apart or inside each other, so choose another loss or other regions"
            )
