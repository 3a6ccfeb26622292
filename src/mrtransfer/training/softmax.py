"""A batched solver of L2-regularised multinomial logistic regression: many problems march in step."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

LINE = 16  # single-precision numbers in 64 bytes
_MEMORY = 5  # pairs of steps and gradient changes that L-BFGS remembers
_ARMIJO = 1e-4
_HALVINGS = 40  # of one step at most: what is left of it then is rounding


@dataclass(frozen=True)
class Solution:
    """``weight`` (P, L, C, w), the bias last; the number of ``steps``; ``converged`` (P, L), on the CPU."""

    weight: Tensor
    steps: int
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
    max_steps: int = 500,
) -> Solution:
    """Minimise Σᵢ wᵢ·(−log softmax(W zᵢ)[yᵢ]) + λ/2·‖W‖², the bias not counted, for P problems and L values of λ each.

    ``data`` (P, n, w), whose last column is 1 for the bias and whose others are mutually orthogonal under the row
    weights; ``scale`` (P, w) its columns' mean squares; ``labels`` (P, n); ``row_weights`` (P, n), each row of which
    sums to 1; ``l2`` (L,), rising where time matters. Problems become of one size by rows without weight and columns
    of zeros. Stops where the Newton decrement √(gᵀH⁻¹g), with the diagonal estimate of H below, is under ``tolerance``:
    the objective is then within about tolerance²/2 of its minimum.

    L-BFGS (Nocedal & Wright, *Numerical Optimization*, algorithm 7.4) with backtracking. Its initial Hessian is the
    diagonal that orthogonal columns give, p(1 − p)·scale + λ with the present mean of p(1 − p), raised to the curvature
    of the latest step where that is more (Oren & Luenberger 1974), which is why few steps suffice and few are halved.

    Every problem follows its own path. On a CPU the others do not change a bit of its result if n and w are multiples
    of :data:`LINE`: each product is of one problem alone, in shapes that its own progress decides, each problem begins
    at a multiple of 64 bytes, and each sum runs within a problem.
    """
    objective = _Objective.create(data, labels, row_weights, scale, l2, classes)
    count, penalties = len(data), len(l2)
    found = data.new_zeros(count, penalties, classes * data.shape[2])
    converged = torch.zeros(count, penalties, dtype=torch.bool)
    names, open_ = list(range(count)), [[True] * penalties for _ in range(count)]
    at = _Point(found.clone(), *objective.evaluate(found, open_), memory=[])
    for steps in range(max_steps + 1):
        diagonal = objective.diagonal(at.spread)
        decrement = _dot(at.gradient, at.gradient / diagonal).sqrt().tolist()
        closed = [
            (place, penalty)
            for place, row in enumerate(open_)
            for penalty, is_open in enumerate(row)
            if is_open and (steps == max_steps or not decrement[place][penalty] > tolerance)
        ]
        for place, penalty in closed:
            open_[place][penalty] = False
            found[names[place], penalty] = at.x[place, penalty]
            converged[names[place], penalty] = decrement[place][penalty] <= tolerance
        if not any(map(any, open_)):
            break
        kept = _still_open(open_) if closed else None
        if kept is not None:
            objective, at, diagonal = objective.select(*kept), at.select(*kept), _select(diagonal, *kept)
            names, open_ = [names[place] for place in kept[0]], [open_[place][: kept[1]] for place in kept[0]]
        at = _move(objective, at, diagonal, open_)
    return Solution(found.view(count, penalties, classes, -1), steps, converged)


@dataclass(frozen=True)
class _Objective:
    """The objective; unknowns are (P, L, C·w)."""

    data: Tensor  # (P, n, w)
    target: Tensor  # (P, 1, C, n), one-hot
    row_weights: Tensor  # (P, 1, 1, n)
    scale: Tensor  # (P, 1, 1, w)
    penalty: Tensor  # (L, C·w)

    @classmethod
    def create(
        cls, data: Tensor, labels: Tensor, row_weights: Tensor, scale: Tensor, l2: Tensor, classes: int
    ) -> "_Objective":
        """See :func:`solve`."""
        # classes before rows: reductions over them are vectorised
        target = torch.nn.functional.one_hot(labels, classes).to(data.dtype).transpose(1, 2)[:, None].contiguous()
        penalty = l2.to(data)[:, None, None].repeat(1, classes, data.shape[2])
        penalty[..., -1] = 0
        return cls(data, target, row_weights[:, None, None], scale[:, None, None], penalty.flatten(1))

    def select(self, problems: list[int], penalties: int) -> "_Objective":
        """The same for some of the problems and the first of the penalties."""
        some = replace(self, penalty=self.penalty[:penalties])
        if len(problems) == len(self.data):
            return some
        parts = {name: getattr(self, name)[problems] for name in ("data", "target", "row_weights", "scale")}
        return replace(some, **parts)

    def evaluate(self, x: Tensor, wanted: list[list[bool]]) -> tuple[Tensor, Tensor, Tensor]:
        """Objective (P, L), gradient like ``x``, and the mean p(1 − p) per class (P, L, C), where ``wanted`` (P, L)."""
        count, penalties, classes = *x.shape[:2], self.target.shape[2]
        runs = [classes * max((place for place, one in enumerate(row, 1) if one), default=0) for row in wanted]
        logits = _products(x.view(count, penalties * classes, -1), self.data.transpose(1, 2), runs)
        logits = logits.view(count, penalties, classes, -1)
        logits -= logits.amax(dim=2, keepdim=True)
        chosen = (logits * self.target).sum(dim=2)
        powers = logits.exp_()
        total = powers.sum(dim=2, keepdim=True)
        loss = ((total[:, :, 0].log() - chosen) * self.row_weights[:, 0]).sum(dim=-1)
        probability = powers.div_(total)
        weighted = probability * self.row_weights
        spread = torch.addcmul(weighted, weighted, probability, value=-1).sum(dim=-1)
        residual = weighted.addcmul_(self.target, self.row_weights, value=-1)
        gradient = _products(residual.view(count, penalties * classes, -1), self.data, runs)
        pull = self.penalty * x
        return loss + _dot(pull, x) / 2, pull.add_(gradient.view(x.shape)), spread

    def diagonal(self, spread: Tensor) -> Tensor:
        """A positive estimate of the Hessian's diagonal, like ``x``."""
        return (spread.clamp_min(1e-6)[..., None] * self.scale).flatten(2) + self.penalty


@dataclass(frozen=True)
class _Point:
    """Where the search stands, and the steps and gradient changes (with 1 / their product) that brought it there."""

    x: Tensor
    loss: Tensor
    gradient: Tensor
    spread: Tensor
    memory: list[tuple[Tensor, ...]]

    def select(self, problems: list[int], penalties: int) -> "_Point":
        """The same for some of the problems and the first of the penalties."""

        def of(tensor: Tensor) -> Tensor:
            return _select(tensor, problems, penalties)

        memory = [tuple(map(of, pair)) for pair in self.memory]
        return _Point(of(self.x), of(self.loss), of(self.gradient), of(self.spread), memory)


def _move(objective: _Objective, at: _Point, diagonal: Tensor, open_: list[list[bool]]) -> _Point:
    """One L-BFGS step of all open problems."""
    direction = _two_loops(at.gradient, at.memory, diagonal)
    least = _ARMIJO * _dot(at.gradient, direction)
    slack = 8 * torch.finfo(at.x.dtype).eps * at.loss.abs()  # a sum cannot be compared more closely
    moving = torch.tensor(open_, device=at.x.device)
    step = moving.to(at.x.dtype)
    x = torch.addcmul(at.x, step[..., None], direction, value=-1)
    loss, gradient, spread = objective.evaluate(x, open_)
    for _ in range(_HALVINGS):
        bad = moving & ~(loss <= at.loss + slack - step * least)
        wanted = bad.tolist()
        if not any(map(any, wanted)):
            break
        step = torch.where(bad, step / 2, step)
        x = torch.addcmul(at.x, step[..., None], direction, value=-1)
        again = objective.evaluate(x, wanted)
        loss = torch.where(bad, again[0], loss)
        gradient = torch.where(bad[..., None], again[1], gradient)
        spread = torch.where(bad[..., None], again[2], spread)
    moved, bent = x - at.x, gradient - at.gradient
    curvature = _dot(moved, bent)
    pair = (moved, bent, torch.where(curvature > 0, 1 / curvature, 0))
    return _Point(x, loss, gradient, spread, [*at.memory[-(_MEMORY - 1) :], pair])


def _two_loops(gradient: Tensor, memory: list[tuple[Tensor, ...]], diagonal: Tensor) -> Tensor:
    """The L-BFGS estimate of H⁻¹·gradient; a pair without curvature (its third entry 0) changes nothing."""
    q, alphas = gradient, []
    for moved, bent, rho in reversed(memory):
        alpha = rho * _dot(moved, q)
        alphas.append(alpha)
        q = torch.addcmul(q, alpha[..., None], bent, value=-1)
    r = q / diagonal
    if memory:
        _, bent, rho = memory[-1]
        r /= (rho * _dot(bent, bent / diagonal)).clamp_min_(1)[..., None]
    for (moved, bent, rho), alpha in zip(memory, reversed(alphas), strict=True):
        r = torch.addcmul(r, (alpha - rho * _dot(bent, r))[..., None], moved)
    return r


def _products(left: Tensor, right: Tensor, runs: list[int]) -> Tensor:
    """``left`` (P, m, k) times ``right`` (P, k, j): of each problem by itself the first rows, beyond them zeros."""
    if left.device.type != "cpu":
        return left @ right
    out = left.new_zeros(*left.shape[:2], right.shape[2])
    for run, own, other, result in zip(runs, left.unbind(), right.unbind(), out.unbind(), strict=True):
        if run:
            torch.mm(own[:run], other, out=result[:run])
    return out


def _still_open(open_: list[list[bool]]) -> tuple[list[int], int] | None:
    """The unfinished problems and how many penalties; None for all. Dropping problems copies data: half or none."""
    problems = [place for place, row in enumerate(open_) if any(row)]
    if 2 * len(problems) > len(open_):
        problems = list(range(len(open_)))
    penalties = max(place for row in open_ for place, one in enumerate(row, 1) if one)
    return None if (len(problems), penalties) == (len(open_), len(open_[0])) else (problems, penalties)


def _select(tensor: Tensor, problems: list[int], penalties: int) -> Tensor:
    tensor = tensor if len(problems) == len(tensor) else tensor[problems]
    return tensor[:, :penalties].contiguous()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=-1)
