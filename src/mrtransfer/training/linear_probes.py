"""Linear probes: multinomial logistic regression on frozen features, all problems of a study together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.tasks.classification.heads import linear_head
from mrtransfer.training.parallel import each
from mrtransfer.training.problems import Problem, check_problems, grouped, row_weights
from mrtransfer.training.softmax import LINE, solve

T = TypeVar("T")
_TOGETHER = 8  # problems in one go on a CPU: enough that their arithmetic takes longer than calling for it
_ELEMENTS = 2**22  # numbers in the largest array at a time: memory does not grow with the number of problems


@dataclass(frozen=True)
class FittedLinear:
    """A linear probe that takes features as they are: standardisation is folded into it.

    ``weight`` (C, D) and ``bias`` (C,) float32; the chosen ``l2``; ``validation``: one row per regularisation with its
    validation ``loss`` and ``accuracy`` (None without validation rows); ``converged``: whether the chosen one did.
    """

    weight: np.ndarray
    bias: np.ndarray
    l2: float
    validation: list[dict[str, float | None]]
    converged: bool

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of features (n, D): probabilities (n, C) float32."""
        return softmax(np.asarray(features, dtype=np.float32) @ self.weight.T + self.bias)

    def head(self) -> nn.Sequential:
        """The same as a network's head."""
        return linear_head(torch.from_numpy(self.weight), torch.from_numpy(self.bias))


def fit_linear_probes(
    features: np.ndarray,
    labels: np.ndarray,
    problems: Sequence[Problem],
    l2: Sequence[float],
    classes: int,
    *,
    class_weights: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    tolerance: float = 1e-3,
    advance: Callable[[int], None] | None = None,
) -> list[FittedLinear]:
    """Fit every problem at every regularisation, and keep of each problem the one with the least validation loss.

    ``features`` (V, N, D), V views of N rows (memory-mapped will do); all views of a training row are learned from,
    validation looks at the first. ``labels`` (N,). Objective of each: the (weighted) mean cross-entropy over training
    rows and views + l2/2·‖W‖², the bias free, features standardised with the training rows' own statistics.

    Without validation rows the middle regularisation is kept, of an even number the larger of the middle two; of equal
    losses the larger regularisation. Problems with the same training rows are solved once. Where there are fewer
    training rows than features the work is done in their span, so small budgets are nearly free. A problem's result
    does not depend on which others are given (on a CPU to the byte, elsewhere to rounding). ``advance`` is called
    with the number of problems that became done.
    """
    check_problems(problems, labels, features.shape[1])
    strengths = sorted(float(value) for value in l2)
    same: dict[bytes, list[int]] = {}
    for number, problem in enumerate(problems):
        same.setdefault(np.sort(problem.train).astype(np.int64).tobytes(), []).append(number)
    most = _TOGETHER if device == "cpu" else len(problems)
    sizes = grouped((padded(features.shape[0] * len(key) // 8), key) for key in same)
    together = [
        part
        for size, keys in reversed(sizes.items())
        for part in _even(keys, min(most, _ELEMENTS // (size * min(size, features.shape[2]))))
    ]

    def fit(keys: Sequence[bytes]) -> dict[int, FittedLinear]:
        rows = [np.frombuffer(key, dtype=np.int64) for key in keys]
        solved = _solve(features, labels, rows, strengths, classes, class_weights, device, dtype, tolerance)
        return {
            number: _choose(problems[number], features, labels, class_weights, strengths, *solution)
            for key, solution in zip(keys, solved, strict=True)
            for number in same[key]
        }

    fitted: dict[int, FittedLinear] = {}
    for part in each(fit, together, device):
        fitted |= part
        if advance:
            advance(len(part))
    return [fitted[number] for number in range(len(problems))]


def _solve(
    features: np.ndarray,
    labels: np.ndarray,
    rows: Sequence[np.ndarray],
    l2: list[float],
    classes: int,
    class_weights: str | None,
    device: str,
    dtype: torch.dtype,
    tolerance: float,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each of ``rows``, of one padded size: weights (L, C, D), biases (L, C) on raw features, and who converged."""
    views, _, width = features.shape
    size = padded(views * len(rows[0]))
    wide = -(-(min(size, width) + 1) // LINE) * LINE
    data = torch.zeros(len(rows), size, wide, dtype=dtype, device=device)
    data[..., -1] = 1
    row_weight, scale = data.new_zeros(len(rows), size), data.new_zeros(len(rows), wide)
    scale[:, -1] = 1
    target = torch.zeros(len(rows), size, dtype=torch.int64, device=device)
    back = []
    for place, own in enumerate(rows):
        known = torch.from_numpy(np.tile(labels[own], views).astype(np.int64))
        weights = torch.from_numpy(row_weights(known.numpy(), class_weights, classes)).to(data)
        raw = torch.tensor(np.concatenate([features[view][own] for view in range(views)]), dtype=dtype, device=device)
        basis, turned, squares, mean, deviation = _turned(raw, weights)
        count, rank = turned.shape
        data[place, :count, :rank], scale[place, :rank] = turned, squares
        target[place, :count], row_weight[place, :count] = known.to(device), weights
        back.append((basis, mean, deviation))
    del raw, turned
    solution = solve(data, target, row_weight, scale, data.new_tensor(l2), classes, tolerance=tolerance)
    found = []
    for (basis, mean, deviation), unknowns, converged in zip(back, solution.weight, solution.converged, strict=True):
        weight = unknowns[..., : basis.shape[1]].flatten(0, 1) @ basis.T / deviation
        bias = unknowns[..., -1].flatten() - weight @ mean
        weight, bias = weight.view(len(l2), classes, -1).float().cpu(), bias.view(len(l2), classes).float().cpu()
        found.append((weight.numpy(), bias.numpy(), converged.numpy()))
    return found


def _turned(data: Tensor, row_weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Standardised ``data`` (n, D) in another basis; its columns are orthogonal under the row weights (n,).

    Returns the orthonormal ``basis`` (D, r), r = min(n, D); standardised data @ basis (n, r) and its mean squares (r,);
    mean and deviation (D,) of the data. ‖W‖ is the same in both bases, and a W outside the rows' span only costs: the
    minimum is the same.
    """
    standard, mean, deviation = (tensor[0] for tensor in standardised(data[None]))
    span, inside = None, standard
    if standard.shape[0] < standard.shape[1]:
        span, lower = torch.linalg.qr(standard.T)
        inside = lower.T
    scale, turn = torch.linalg.eigh((inside * row_weights[:, None]).T @ inside)
    basis = turn if span is None else span @ turn
    return basis, inside @ turn, scale.clamp_min(0), mean[0], deviation[0]


def padded(rows: int) -> int:
    """``rows`` rounded up, from 128 on by an eighth at most, so that problems of nearly one size are of one size."""
    step = max(LINE, (1 << rows.bit_length()) >> 4)
    return -(-rows // step) * step


def _even(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """``items`` in pieces of nearly equal length, at most ``size`` (at least 1)."""
    pieces = -(-len(items) // max(size, 1))
    for piece in range(pieces):
        yield items[piece * len(items) // pieces : (piece + 1) * len(items) // pieces]


def standardised(data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``data`` (P, n, D) with mean 0 and deviation 1 along n; also both (P, 1, D). A constant column becomes 0."""
    mean = data.mean(dim=1, keepdim=True)
    centred = data - mean
    deviation = centred.square().mean(dim=1, keepdim=True).sqrt()
    constant = deviation <= 1e-6 * mean.abs().clamp_min(1e-6)
    deviation = torch.where(constant, 1, deviation)
    return torch.where(constant, 0, centred / deviation), mean, deviation


def _choose(
    problem: Problem,
    features: np.ndarray,
    labels: np.ndarray,
    class_weights: str | None,
    l2: list[float],
    weights: np.ndarray,
    biases: np.ndarray,
    converged: np.ndarray,
) -> FittedLinear:
    """Of the solutions for every l2 (rising), the one with the least validation loss."""
    rows = problem.validation
    if len(rows) == 0:
        best = len(l2) // 2
        table: list[dict[str, float | None]] = [{"l2": value, "loss": None, "accuracy": None} for value in l2]
    else:
        logits = features[0][rows].astype(np.float32) @ weights.transpose(0, 2, 1) + biases[:, None]
        counts = row_weights(labels[rows], class_weights, weights.shape[1], like=labels[problem.train])
        own = labels[rows][None, :, None]
        losses = -(np.take_along_axis(log_softmax(logits), own, axis=2)[..., 0] * counts).sum(axis=1)
        right = (logits.argmax(axis=2) == own[..., 0]).mean(axis=1)
        best = len(l2) - 1 - int(np.argmin(losses[::-1]))
        table = [
            {"l2": value, "loss": float(loss), "accuracy": float(share)}
            for value, loss, share in zip(l2, losses, right, strict=True)
        ]
    return FittedLinear(weights[best].copy(), biases[best].copy(), l2[best], table, bool(converged[best]))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis, without overflow."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis, without overflow."""
    return np.exp(log_softmax(logits))
