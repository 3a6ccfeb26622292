"""Linear probes: multinomial logistic regression on frozen features, all problems of a study together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.tasks.classification.heads import linear_head
from mrtransfer.training.parallel import each
from mrtransfer.training.problems import Problem, check_problems, chunks, grouped, row_weights
from mrtransfer.training.softmax import solve

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
    # On a CPU the rounding of a product depends on where its operands lie: fitted alone, a problem's bytes are its own.
    # A GPU needs many to be kept busy.
    width = features.shape[0] * features.shape[2]
    together = [
        chunk
        for size, keys in grouped((len(key) // 8, key) for key in same).items()
        for chunk in chunks(keys, 1 if device == "cpu" else _ELEMENTS // (size * width))
    ]

    def fit(keys: Sequence[bytes]) -> dict[int, FittedLinear]:
        rows = np.stack([np.frombuffer(key, dtype=np.int64) for key in keys])
        solved = _solve_chunk(features, labels, rows, strengths, classes, class_weights, device, dtype, tolerance)
        return {
            number: _choose(problems[number], features, labels, class_weights, strengths, *solution)
            for key, solution in zip(keys, zip(*solved, strict=True), strict=True)
            for number in same[key]
        }

    fitted: dict[int, FittedLinear] = {}
    for part in each(fit, together, device):
        fitted |= part
        if advance:
            advance(len(part))
    return [fitted[number] for number in range(len(problems))]


def _solve_chunk(
    features: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    l2: list[float],
    classes: int,
    class_weights: str | None,
    device: str,
    dtype: torch.dtype,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For ``rows`` (P, n): weights (P, L, C, D) and biases (P, L, C) on raw features, and who converged (P, L)."""
    views = len(features)
    data = torch.tensor(np.concatenate([features[view][rows] for view in range(views)], axis=1), dtype=dtype)
    standard, mean, deviation = standardised(data.to(device))
    weights = np.stack([row_weights(np.tile(labels[row], views), class_weights, classes) for row in rows])
    row_weight = torch.from_numpy(weights).to(device=device, dtype=dtype)
    target = torch.from_numpy(np.tile(labels[rows], (1, views)).astype(np.int64)).to(device)
    basis, turned, scale = _orthogonal(standard, row_weight)
    del standard
    solution = solve(turned, target, row_weight, scale, turned.new_tensor(l2), classes, tolerance=tolerance)
    flat = solution.weight.flatten(1, 2) @ basis.transpose(1, 2)
    weight = (flat / deviation).view(*solution.weight.shape[:3], -1)
    bias = solution.bias - (weight * mean[:, None]).sum(dim=-1)
    return weight.float().cpu().numpy(), bias.float().cpu().numpy(), solution.converged.cpu().numpy()


def standardised(data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``data`` (P, n, D) with mean 0 and deviation 1 along n; also both (P, 1, D). A constant column becomes 0."""
    mean = data.mean(dim=1, keepdim=True)
    centred = data - mean
    deviation = centred.square().mean(dim=1, keepdim=True).sqrt()
    constant = deviation <= 1e-6 * mean.abs().clamp_min(1e-6)
    deviation = torch.where(constant, 1, deviation)
    return torch.where(constant, 0, centred / deviation), mean, deviation


def _orthogonal(data: Tensor, row_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An orthonormal ``basis`` (P, D, r), r = min(n, D), and ``data @ basis`` (P, n, r) with its mean squares (P, r).

    The columns of ``data @ basis`` are orthogonal under the row weights, as the solver likes it. ‖W‖ is the same in
    both bases, and a W outside the rows' span only costs: the minimum is the same.
    """
    if data.shape[1] < data.shape[2]:
        span, lower = torch.linalg.qr(data.transpose(1, 2))
        inside = lower.transpose(1, 2)
    else:
        span, inside = None, data
    gram = (inside * row_weights[..., None]).transpose(1, 2) @ inside
    scale, turn = torch.linalg.eigh(gram)
    return turn if span is None else span @ turn, inside @ turn, scale.clamp_min(0)


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
