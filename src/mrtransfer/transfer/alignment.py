"""Losses that bring two domains together without the labels of one: MMD, CORAL, minimum class confusion.

All are differentiable, take rows of features or logits of one batch, and are computed in float32 (in float64 where the
input is). They are for training; distances between whole domains, with their uncertainty, are elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mrtransfer.common.errors import UserError

BANDWIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Of the five kernels, as multiples of the mean squared distance."""
_LEAST_SCALE = 1e-30  # where all rows are equal; far from where float32 loses digits


@dataclass(frozen=True)
class Halves:
    """What a network says of one batch: the labelled half and the unlabelled one.

    ``source`` (n, d) and ``target`` (m, d): features; ``target_logits`` (m, K); rows are images, or drawn voxels.
    ``progress``: how much of the training is done, 0..1.
    """

    source: Tensor
    target: Tensor
    target_logits: Tensor
    progress: float


def mmd_loss(source: Tensor, target: Tensor, bandwidths: Sequence[float] = BANDWIDTHS) -> Tensor:
    """Squared maximum mean discrepancy of ``source`` (n, d) and ``target`` (m, d), the unbiased estimate.

    The kernel is the mean of Gaussians exp(−‖x − y‖² / (a·s)), a in ``bandwidths``, where s is the mean squared
    distance between different rows of both together, through which no gradient flows. As s does not depend on which row
    belongs to which domain, the mean of the loss over batches of one and the same domain is zero (it can be negative).

    Sources: Gretton et al. 2012, eq. 3 (the estimate); Long et al., *Learning Transferable Features with Deep
    Adaptation Networks*, ICML 2015 (several kernels, equal weights). Raises :class:`UserError` for fewer than two rows.
    """
    _check_rows("mmd_loss", source, target)
    n, m = len(source), len(target)
    rows = _at_least_float32(torch.cat([source, target]))
    distances = _squared_distances(rows)
    scale = (distances.detach().sum() / ((n + m) * (n + m - 1))).clamp_min(_LEAST_SCALE)
    kernel = torch.stack([torch.exp(-distances / (a * scale)) for a in bandwidths]).mean(dim=0)
    within_source = (kernel[:n, :n].sum() - kernel[:n, :n].trace()) / (n * (n - 1))
    within_target = (kernel[n:, n:].sum() - kernel[n:, n:].trace()) / (m * (m - 1))
    return within_source + within_target - 2 * kernel[:n, n:].mean()


def coral_loss(source: Tensor, target: Tensor) -> Tensor:
    """‖C_s − C_t‖²_F / (4 d²), where C are the covariances (divisor n − 1) of ``source`` (n, d) and ``target`` (m, d).

    Source: Sun & Saenko, *Deep CORAL*, ECCV workshops 2016, eq. 1–3. Raises :class:`UserError` for fewer than two rows.
    """
    _check_rows("coral_loss", source, target)
    difference = _covariance(source) - _covariance(target)
    return difference.square().sum() / (4 * source.shape[1] ** 2)


def mcc_loss(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """Minimum class confusion of unlabelled ``logits`` (m, K): how much probability classes share, 0..1 − 1/K.

    Probabilities at ``temperature``; rows count the more the surer they are, with weights 1 + exp(−entropy) that sum to
    m and pass no gradient; the classes' correlations are divided by the sum of their row, and what is off the diagonal
    is averaged over classes. Source: Jin et al., *Minimum Class Confusion for Versatile Domain Adaptation*, ECCV 2020,
    eq. 2–7.
    """
    logs = torch.log_softmax(_at_least_float32(logits) / temperature, dim=1)
    chances = logs.exp()
    with torch.no_grad():
        weights = 1 + torch.exp((chances * logs).sum(dim=1))
        weights = weights * (len(weights) / weights.sum())
    confusion = chances.T @ (chances * weights[:, None])
    confusion = confusion / confusion.sum(dim=1, keepdim=True).clamp_min(torch.finfo(confusion.dtype).tiny)
    return (confusion.sum() - confusion.trace()) / logits.shape[1]


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _squared_distances(rows: Tensor) -> Tensor:
    """(k, k), zero on the diagonal; about the rows' mean, so that far from the origin no digits are lost."""
    rows = rows - rows.detach().mean(dim=0)
    squares = rows.square().sum(dim=1)
    distances = (squares[:, None] + squares[None] - 2 * rows @ rows.T).clamp_min(0)
    return distances * (1 - torch.eye(len(rows), dtype=rows.dtype, device=rows.device))


def _covariance(rows: Tensor) -> Tensor:
    rows = _at_least_float32(rows)
    centred = rows - rows.mean(dim=0)
    return centred.T @ centred / (len(rows) - 1)


def _check_rows(name: str, source: Tensor, target: Tensor) -> None:
    least = min(len(source), len(target))
    if least < 2:
        raise UserError(f"{name}: needs at least 2 rows of each domain in a batch, and has {least}; raise batch")
