"""Losses of segmentation, each the mean over samples of a loss of one sample.

Because nothing is pooled over the batch, the mean over the ranks of a data-parallel training is exactly the loss of the
whole batch. Logits are (N, K, X, Y, Z), targets are class indices (N, X, Y, Z); sums and means run over all voxels of
one sample, in float32 or better whatever the precision of the network.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.strict import unknown_key
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.tasks.segmentation.outputs import (
    LOSSES,
    check_paintable,
    outputs,
    probabilities,
    region_maps,
    region_probabilities,
    to_classes,
)

__all__ = [
    "LOSSES",
    "build_loss",
    "outputs",
    "probabilities",
    "region_maps",
    "region_probabilities",
    "to_classes",
]

SMOOTH = 1e-5  # added to numerator and denominator of every overlap, as in nnU-Net and MONAI
_STEEPEST = 1e-7  # the focal power's gradient is infinite at a perfect overlap: it is cut off this near to it


class CrossEntropy(nn.Module):
    """Categorical cross-entropy, the mean over voxels."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar."""
        logits, target = _checked(logits, target)
        return functional.cross_entropy(
            logits, target
        )  # all samples have equally many voxels: this is the mean of their means


class Dice(nn.Module):
    """1 − soft Dice of the softmax, the mean over foreground classes (Milletari et al. 2016, without the squares).

    A class that a sample does not have costs nearly 1 as soon as anything of it is predicted.
    """

    def __init__(self, *, smooth: float = SMOOTH) -> None:
        super().__init__()
        self.smooth = _not_negative("smooth", smooth)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar."""
        logits, target = _checked(logits, target)
        return _dice_loss(logits.softmax(1)[:, 1:], _one_hot(target, logits)[:, 1:], self.smooth)


class DiceCrossEntropy(nn.Module):
    """Dice + cross-entropy (nnU-Net; Isensee et al. 2021), each times its weight."""

    def __init__(self, *, dice_weight: float = 1.0, ce_weight: float = 1.0, smooth: float = SMOOTH) -> None:
        super().__init__()
        self.dice_weight = _not_negative("dice_weight", dice_weight)
        self.ce_weight = _not_negative("ce_weight", ce_weight)
        self.smooth = _not_negative("smooth", smooth)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar."""
        logits, target = _checked(logits, target)
        logs = logits.log_softmax(1)
        dice = _dice_loss(logs.exp()[:, 1:], _one_hot(target, logits)[:, 1:], self.smooth)
        return self.dice_weight * dice + self.ce_weight * functional.nll_loss(logs, target)


class FocalTversky(nn.Module):
    """(1 − Tversky index)^(1/gamma), the mean over foreground classes (Abraham & Khan 2019, equations 3 and 4).

    ``alpha`` weighs what was missed, ``beta`` what was wrongly found, as in the paper (MONAI's ``TverskyLoss`` has the
    two the other way round). ``gamma`` = 4/3 is the exponent 0.75 that is often called gamma itself.
    """

    def __init__(self, *, alpha: float = 0.7, beta: float = 0.3, gamma: float = 4 / 3, smooth: float = SMOOTH) -> None:
        super().__init__()
        self.alpha, self.beta = _not_negative("alpha", alpha), _not_negative("beta", beta)
        self.smooth = _not_negative("smooth", smooth)
        if not 1 <= gamma <= 3:
            raise UserError(f"loss focal_tversky: gamma is {gamma}; it must be between 1 and 3, the paper's range")
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar."""
        logits, target = _checked(logits, target)
        found, there = logits.softmax(1)[:, 1:].flatten(2), _one_hot(target, logits)[:, 1:].flatten(2)
        hit = (found * there).sum(2)
        missed, false = there.sum(2) - hit, found.sum(2) - hit
        index = (hit + self.smooth) / (hit + self.alpha * missed + self.beta * false + self.smooth)
        return ((1 - index).clamp_min(_STEEPEST) ** (1 / self.gamma)).mean()


class RegionLoss(nn.Module):
    """Dice + binary cross-entropy of one sigmoid per region, which may hold each other (Isensee et al. 2020, BraTS)."""

    membership: Tensor

    def __init__(self, labels: MaskLabels, *, smooth: float = SMOOTH) -> None:
        super().__init__()
        self.smooth = _not_negative("smooth", smooth)
        self.register_buffer("membership", torch.from_numpy(labels.membership.T.copy()), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; ``logits`` (N, R, X, Y, Z)."""
        logits, target = _checked(logits, target)
        there = functional.embedding(target, self.membership.to(logits.dtype)).movedim(-1, 1)
        return _dice_loss(logits.sigmoid(), there, self.smooth) + functional.binary_cross_entropy_with_logits(
            logits, there
        )


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "dice_ce": DiceCrossEntropy,
    "cross_entropy": CrossEntropy,
    "dice": Dice,
    "focal_tversky": FocalTversky,
    "region": RegionLoss,
}
_SETTINGS: dict[str, tuple[str, ...]] = {
    "dice_ce": ("dice_weight", "ce_weight", "smooth"),
    "cross_entropy": (),
    "dice": ("smooth",),
    "focal_tversky": ("alpha", "beta", "gamma", "smooth"),
    "region": ("smooth",),
}


def build_loss(name: str, labels: MaskLabels, **settings: float) -> nn.Module:
    """The loss called ``name``: logits (N, K, X, Y, Z) and class indices (N, X, Y, Z), uint8 or int64, to a scalar.

    K is :func:`outputs`. ``settings`` are the keyword arguments of the loss's class. Raises :class:`UserError` for an
    unknown name or setting, and for ``region`` where two regions overlap without one holding the other.
    """
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    for key in settings:
        if key not in _SETTINGS[name]:
            raise UserError(f"loss {name}: {unknown_key(key, list(_SETTINGS[name]))}")
    if name == "region":
        check_paintable(labels)
        return RegionLoss(labels, **settings)
    return _BUILDERS[name](**settings)


def _not_negative(name: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise UserError(f"loss: {name} is {value}; it must be 0 or more")
    return value


def _checked(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if logits.shape[0] != target.shape[0] or logits.shape[2:] != target.shape[1:]:
        raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} are not of the same voxels")
    half = logits.dtype in (torch.float16, torch.bfloat16)
    return (logits.float() if half else logits), target.long()


def _one_hot(target: Tensor, logits: Tensor) -> Tensor:
    """(N, K, …) of the logits' dtype, 1 in the true class."""
    return torch.zeros_like(logits).scatter_(1, target.unsqueeze(1), 1.0)


def _dice_loss(found: Tensor, there: Tensor, smooth: float) -> Tensor:
    """Mean over samples and channels of 1 − Dice, for probabilities and truth (N, C, …)."""
    found, there = found.flatten(2), there.flatten(2)
    overlap = 2 * (found * there).sum(2)
    return (1 - (overlap + smooth) / (found.sum(2) + there.sum(2) + smooth)).mean()
