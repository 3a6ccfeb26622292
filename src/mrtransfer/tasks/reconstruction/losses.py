"""Losses of reconstruction, each the mean over slices of a loss of one slice.

All are measured in units of the volume's maximum, so that their sizes compare whatever a scanner's units are and a
mixture means the same for every volume. Magnitudes are (N, h, w), maxima (N,); sums and means run in float32 or better
whatever the precision of the network.
"""

from collections.abc import Callable, Mapping
from numbers import Real

import torch
from torch import Tensor, nn

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.tasks.reconstruction.similarity import structural_similarity

DEFAULT = "ssim"


def ssim_loss(pred: Tensor, target: Tensor, max_value: Tensor) -> Tensor:
    """(N,) 1 − SSIM with the volume's maximum as data range: the loss of the end-to-end VarNet (Sriram et al. 2020)."""
    return 1 - structural_similarity(pred, target, max_value)


def l1_loss(pred: Tensor, target: Tensor, max_value: Tensor) -> Tensor:
    """(N,) the mean of abs(pred − target) / max_value."""
    return (pred - target).abs().mean((1, 2)) / max_value


def mse_loss(pred: Tensor, target: Tensor, max_value: Tensor) -> Tensor:
    """(N,) the mean of ((pred − target) / max_value)²: −10 log₁₀ of it is the slice's PSNR."""
    return ((pred - target) / max_value.reshape(-1, 1, 1)).square().mean((1, 2))


_TERMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"ssim": ssim_loss, "l1": l1_loss, "mse": mse_loss}
LOSSES = tuple(_TERMS)


class ReconstructionLoss(nn.Module):
    """A weighted sum of :data:`LOSSES`; ``weights``: name to weight."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)

    def forward(self, pred: Tensor, target: Tensor, max_value: Tensor) -> Tensor:
        """Scalar, of ``pred`` and ``target`` (N, h, w) and the maxima of their volumes' targets (N,), all positive."""
        if pred.shape != target.shape or pred.ndim != 3 or max_value.shape != pred.shape[:1]:
            raise ValueError(
                f"images {tuple(pred.shape)}, targets {tuple(target.shape)} and maxima {tuple(max_value.shape)} "
                "do not fit: right are (N, h, w), (N, h, w) and (N,)"
            )
        kind = torch.promote_types(torch.promote_types(pred.dtype, target.dtype), torch.float32)
        pred, target, max_value = pred.to(kind), target.to(kind), max_value.to(kind)
        terms = [weight * _TERMS[name](pred, target, max_value).mean() for name, weight in self.weights.items()]
        return torch.stack(terms).sum()

    def extra_repr(self) -> str:
        """``0.8 ssim + 0.2 l1``."""
        return " + ".join(f"{weight:g} {name}" for name, weight in self.weights.items())


def build_loss(loss: str | Mapping[str, float] = DEFAULT) -> ReconstructionLoss:
    """The loss called ``loss``, or a mixture of several: ``{"ssim": 0.8, "l1": 0.2}``.

    Raises :class:`UserError` for an unknown name, and for weights that are negative, not numbers, or all 0.
    """
    weights = {loss: 1.0} if isinstance(loss, str) else loss
    if not isinstance(weights, Mapping):
        raise UserError(f"loss: {loss!r} is neither a name nor a mapping of names to weights; known: {_known()}")
    for name, weight in weights.items():
        if name not in LOSSES:
            raise unknown_name("loss", name, LOSSES)
        if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= weight < float("inf"):
            raise UserError(f"loss: the weight of {name} is {weight!r}; it must be a number, 0 or more")
    kept = {name: float(weight) for name, weight in weights.items() if weight > 0}
    if not kept:
        raise UserError(f"loss: {dict(weights)} gives no term a weight; at least one of {_known()} needs one")
    return ReconstructionLoss(kept)


def _known() -> str:
    return ", ".join(LOSSES)
