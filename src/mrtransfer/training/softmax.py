"""A batched solver of L2-regularised multinomial logistic regression: many problems of one size at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

_MEMORY = 8  # pairs of steps and gradient changes that L-BFGS remembers
_ARMIJO = 1e-4


@dataclass(frozen=True)
class Solution:
    """``weight`` (P, L, C, r), ``bias`` (P, L, C), the number of ``passes`` over the data and ``converged`` (P, L)."""

    weight: Tensor
    bias: Tensor
    passes: int
    converged: Tensor


@torch.inference_mode()
def solve(
    data: Tensor,
    labels: Tensor,
    row_weights: Tensor,
    scale: Tensor,
    l2: Tensor,
    classes: int,
    *,
    tolerance: float = 1e-3,
    max_passes: int = 500,
) -> Solution:
    """Minimise Σᵢ wᵢ·(−log softmax(W zᵢ + b)[yᵢ]) + λ/2·‖W‖² for P problems and L values of λ each.

    ``data`` (P, n, r) whose columns are mutually orthogonal under the row weights, with mean squares ``scale`` (P, r);
    ``labels`` (P, n); ``row_weights`` (P, n), each row of which sums to 1; ``l2`` (L,). Stops where the Newton
    decrement √(gᵀH⁻¹g), with the diagonal estimate of H below, is under ``tolerance``: the objective is then within
    about tolerance²/2 of its minimum.

    L-BFGS (Nocedal & Wright, *Numerical Optimization*, algorithm 7.4) with backtracking. Its initial Hessian is the
    diagonal that orthogonal columns give, p(1 − p)·scale + λ with the present mean of p(1 − p), which is why few
    iterations suffice. Every problem follows its own path: the others in the batch do not change its result.
    """
    objective = _Objective(data, labels, row_weights, scale, l2, classes)
    x = data.new_zeros(objective.shape)
    found, converged = x.clone(), torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
    at = _Point(x, *objective.evaluate(x), memory=[])
    problems = torch.arange(x.shape[0], device=x.device)
    penalties = torch.arange(x.shape[1], device=x.device)
    passes = 1
    while True:
        diagonal = objective.diagonal(at.spread)
        open_ = _dot(at.gradient, at.gradient / diagonal).sqrt() > tolerance
        found[problems[:, None], penalties] = at.x
        converged[problems[:, None], penalties] = ~open_
        if passes >= max_passes or not bool(open_.any()):
            break
        keep_p, keep_l = _still_open(open_)
        if keep_p is not None or keep_l is not None:
            objective, at = objective.select(keep_p, keep_l), at.select(keep_p, keep_l)
            problems = problems if keep_p is None else problems[keep_p]
            penalties = penalties if keep_l is None else penalties[keep_l]
            open_, diagonal = _select(open_, keep_p, keep_l), _select(diagonal, keep_p, keep_l)
        at, used = _move(objective, at, diagonal, open_, max_passes - passes)
        passes += used
    count, ridges, rank = x.shape[0], x.shape[1], data.shape[2]
    solved = found.view(count, ridges, classes, rank + 1)
    return Solution(solved[..., :rank], solved[..., rank], passes, converged)


class _Objective:
    """The objective; unknowns are (P, L, C·(r + 1)), the last of every r + 1 being the bias."""

    def __init__(
        self, data: Tensor, labels: Tensor, row_weights: Tensor, scale: Tensor, l2: Tensor, classes: int
    ) -> None:
        self.rows, self.l2 = (data, labels, row_weights, scale), l2
        count, _, rank = data.shape
        self.data, self.transposed = data, data.transpose(1, 2)
        self.row_weights = row_weights[:, None, None]
        self.sizes = (count, len(l2), classes, rank)
        self.shape = (count, len(l2), classes * (rank + 1))
        self.target = torch.nn.functional.one_hot(labels, classes).to(data.dtype).transpose(1, 2)[:, None]  # (P,1,C,n)
        self.scale = torch.cat([scale, torch.ones_like(scale[:, :1])], dim=-1)[:, None, None]  # (P, 1, 1, r + 1)
        penalty = l2.to(data)[:, None, None].expand(-1, classes, rank)
        self.penalty = torch.cat([penalty, torch.zeros_like(penalty[..., :1])], dim=-1).reshape(1, len(l2), -1)

    def select(self, problems: Tensor | None, penalties: Tensor | None) -> "_Objective":
        """The same for some of the problems and some of the penalties."""
        data, labels, weights, scale = (_select(tensor, problems, None) for tensor in self.rows)
        l2 = self.l2 if penalties is None else self.l2[penalties]
        return _Objective(data, labels, weights, scale, l2, self.sizes[2])

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Objective (P, L), gradient like ``x``, and the mean p(1 − p) per class (P, L, C)."""
        count, penalties, classes, rank = self.sizes
        unknowns = x.view(count, penalties * classes, rank + 1)
        logits = torch.baddbmm(unknowns[..., rank:], unknowns[..., :rank], self.transposed)
        logits = logits.view(count, penalties, classes, -1)  # classes before rows: reductions over them are vectorised
        logits -= logits.amax(dim=2, keepdim=True)
        powers = logits.exp()
        total = powers.sum(dim=2, keepdim=True)
        chosen = (logits * self.target).sum(dim=2, keepdim=True)
        loss = ((total.log() - chosen) * self.row_weights).sum(dim=(2, 3))
        probability = powers.div_(total)
        weighted = probability * self.row_weights
        spread = (weighted - weighted * probability).sum(dim=-1)
        residual = torch.addcmul(weighted, self.target, self.row_weights, value=-1).view(count, penalties * classes, -1)
        gradient = torch.cat([torch.bmm(residual, self.data), residual.sum(dim=-1, keepdim=True)], dim=-1)
        pull = self.penalty * x
        return loss + _dot(pull, x) / 2, gradient.view(self.shape) + pull, spread

    def diagonal(self, spread: Tensor) -> Tensor:
        """A positive estimate of the Hessian's diagonal, like ``x``."""
        return (spread.clamp_min(1e-6)[..., None] * self.scale).reshape(self.shape) + self.penalty


@dataclass(frozen=True)
class _Point:
    """Where the search stands, and the steps and gradient changes (with 1 / their product) that brought it there."""

    x: Tensor
    loss: Tensor
    gradient: Tensor
    spread: Tensor
    memory: list[tuple[Tensor, Tensor, Tensor]]

    def select(self, problems: Tensor | None, penalties: Tensor | None) -> "_Point":
        def of(tensor: Tensor) -> Tensor:
            return _select(tensor, problems, penalties)

        memory = [(of(moved), of(bent), of(rho)) for moved, bent, rho in self.memory]
        return _Point(of(self.x), of(self.loss), of(self.gradient), of(self.spread), memory)


def _move(objective: _Objective, at: _Point, diagonal: Tensor, open_: Tensor, max_passes: int) -> tuple[_Point, int]:
    """One L-BFGS step of all open problems; also how many passes over the data it took."""
    direction = -_two_loops(at.gradient, at.memory, diagonal)
    slope = _dot(at.gradient, direction)
    slack = 8 * torch.finfo(at.x.dtype).eps * at.loss.abs()  # a sum cannot be compared more closely
    step, used = open_.to(at.x.dtype), 0
    while True:
        x = at.x + step[..., None] * direction
        loss, gradient, spread = objective.evaluate(x)
        used += 1
        bad = open_ & ~(loss <= at.loss + _ARMIJO * step * slope + slack)
        if used >= max_passes or not bool(bad.any()):
            break
        step = torch.where(bad, step / 2, step)
    moved, bent = x - at.x, gradient - at.gradient
    curvature = _dot(moved, bent)
    pair = (moved, bent, torch.where(curvature > 0, 1 / curvature, 0))
    return _Point(x, loss, gradient, spread, [*at.memory[-(_MEMORY - 1) :], pair]), used


def _two_loops(gradient: Tensor, memory: list[tuple[Tensor, Tensor, Tensor]], diagonal: Tensor) -> Tensor:
    """The L-BFGS estimate of H⁻¹·gradient; a pair without curvature (its third entry 0) changes nothing."""
    q, alphas = gradient, []
    for moved, bent, rho in reversed(memory):
        alpha = rho * _dot(moved, q)
        alphas.append(alpha)
        q = torch.addcmul(q, alpha[..., None], bent, value=-1)
    r = q / diagonal
    for (moved, bent, rho), alpha in zip(memory, reversed(alphas), strict=True):
        r = torch.addcmul(r, (alpha - rho * _dot(bent, r))[..., None], moved)
    return r


def _still_open(open_: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Which problems and penalties are unfinished; None for all. Dropping problems copies data: half or none."""
    problems, penalties = open_.any(dim=1), open_.any(dim=0)
    few = 2 * int(problems.sum()) <= len(problems)
    return problems.nonzero()[:, 0] if few else None, None if bool(penalties.all()) else penalties.nonzero()[:, 0]


def _select(tensor: Tensor, problems: Tensor | None, penalties: Tensor | None) -> Tensor:
    tensor = tensor if problems is None else tensor[problems]
    return tensor if penalties is None else tensor[:, penalties]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=-1)
