"""Multi-layer probes on frozen features: many runs march in step, each as if it were alone."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.common.errors import UserError
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.training.batches import epoch_order
from mrtransfer.training.linear_probes import log_softmax, softmax, standardised
from mrtransfer.training.parallel import each
from mrtransfer.training.problems import Problem, check_problems, chunks, class_factors, derived_seed
from mrtransfer.training.schedule import rate_factor
from mrtransfer.transfer.methods.mlp_probe import MlpProbe

_RUNS = 8  # at a time: more gain nothing, and memory must not grow with the number of runs
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class FittedMlp:
    """A multi-layer probe that takes features as they are: standardisation is folded into its first layer.

    ``layers``: weight (out, in) and bias (out,) of the three linear layers. ``curves``: one row per epoch, with
    ``train_loss``, ``validation_loss`` and ``validation_accuracy`` (None without validation rows). ``best_epoch``:
    whose weights these are, counted from 1.
    """

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    curves: list[dict[str, Any]]
    best_epoch: int
    dropout: float

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of features (n, D): probabilities (n, C) float32."""
        (first, a), (second, b), (third, c) = self.layers
        hidden = np.maximum(np.asarray(features, dtype=np.float32) @ first.T + a, 0)
        return softmax((hidden @ second.T + b) @ third.T + c)

    def head(self) -> nn.Sequential:
        """The same as a network's head."""
        (first, _), (second, _), (third, _) = self.layers
        hidden = (first.shape[0], second.shape[0])
        head = build_head("mlp", first.shape[1], third.shape[0], hidden=hidden, dropout=self.dropout)
        linear = [layer for layer in head if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            for layer, (weight, bias) in zip(linear, self.layers, strict=True):
                layer.weight.copy_(torch.from_numpy(weight))
                layer.bias.copy_(torch.from_numpy(bias))
        return head


def fit_mlp_probes(
    features: np.ndarray,
    labels: np.ndarray,
    problems: Sequence[Problem],
    method: MlpProbe,
    classes: int,
    *,
    device: str = "cpu",
    advance: Callable[[int], None] | None = None,
) -> list[FittedMlp]:
    """Train Linear–ReLU–Dropout–Linear–Dropout–Linear by mini-batches on every problem.

    ``features`` (V, N, D), V views of N rows: every epoch shows each training row once, in a view drawn at random;
    validation looks at the first. ``labels`` (N,). The initial weights, orders, views and dropout of a problem are
    functions of its own seed and epoch, and its result depends on the others given with it by rounding only; for the
    same bytes, give the same problems together. ``advance`` is called with the number of problems that became done.
    Raises :class:`UserError` where training diverges.
    """
    check_problems(problems, labels, features.shape[1])
    data = torch.from_numpy(np.array(features, dtype=np.float32)).to(device)
    target = torch.from_numpy(np.asarray(labels).astype(np.int64)).to(device)
    # Runs of like length together, so that few wait for the longest.
    order = sorted(range(len(problems)), key=lambda number: (len(problems[number].train), number))

    def fit(numbers: Sequence[int]) -> dict[int, FittedMlp]:
        runs = _Runs(data, target, [problems[number] for number in numbers], method, classes)
        return {numbers[place]: result for place, result in runs.train()}

    fitted: dict[int, FittedMlp] = {}
    for part in each(fit, list(chunks(order, _RUNS)), device):
        fitted |= part
        if advance:
            advance(len(part))
    return [fitted[number] for number in range(len(problems))]


def dropout_masks(seed: int, epoch: int, rows: int, width: int, dropout: float) -> Tensor:
    """Which of ``width`` hidden units are kept for each of ``rows`` samples in one epoch; bool (rows, width)."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "dropout", epoch))
    return torch.rand(rows, width, generator=generator) >= dropout


class _Runs:
    """The weights of R runs, stacked; step t of a run falls into its own epoch t // (its batches per epoch)."""

    def __init__(self, data: Tensor, target: Tensor, problems: list[Problem], method: MlpProbe, classes: int) -> None:
        self.problems, self.method, self.classes, self.target = problems, method, classes, target
        self.views, self.rows, self.width = data.shape
        self.data, self.table = data, data.flatten(0, 1)
        self.sizes = [len(problem.train) for problem in problems]
        self.batches = [math.ceil(size / method.batch) for size in self.sizes]
        device = data.device
        heads = [self._fresh(problem.seed) for problem in problems]
        self.params = [torch.stack(tensors).to(device) for tensors in zip(*heads, strict=True)]
        self.moments = [[torch.zeros_like(p) for p in self.params] for _ in range(1 + (method.optimizer == "adamw"))]
        self.mean, self.deviation = self._statistics()
        self.factors = torch.stack([self._factors(problem) for problem in problems]).to(device)
        longest = max(self.batches) * method.batch
        self.order = torch.zeros(len(problems), longest, dtype=torch.int64, device=device)
        hidden = sum(method.hidden) if method.dropout > 0 else 0
        self.masks = torch.zeros(len(problems), longest, hidden, dtype=torch.bool, device=device)
        self.loss = torch.zeros(len(problems), dtype=torch.float64, device=device)
        self.curves: list[list[dict[str, Any]]] = [[] for _ in problems]
        self.best: list[tuple[float, int, list[Tensor]] | None] = [None] * len(problems)

    def _fresh(self, seed: int) -> list[Tensor]:
        """Initial weights (in, out) and biases (1, out): those of a network's head with the same seed."""
        head = build_head("mlp", self.width, self.classes, hidden=self.method.hidden, seed=seed)
        linear = [layer for layer in head if isinstance(layer, nn.Linear)]
        return [t.detach() for layer in linear for t in (layer.weight.T.contiguous(), layer.bias[None])]

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (R, 1, D) of every run's training rows; 0 and 1 where features are taken as they are."""
        if not self.method.standardise:
            zeros = self.data.new_zeros(len(self.problems), 1, self.width)
            return zeros, zeros + 1
        parts = [standardised(self.data[:, p.train].reshape(1, -1, self.width))[1:] for p in self.problems]
        return torch.cat([mean for mean, _ in parts]), torch.cat([deviation for _, deviation in parts])

    def _factors(self, problem: Problem) -> Tensor:
        own = self.target[problem.train].cpu().numpy()
        return torch.from_numpy(class_factors(own, self.method.class_weights, self.classes)).float()

    @torch.no_grad()
    def train(self) -> Iterator[tuple[int, FittedMlp]]:
        """All epochs of all runs; yields every run, by its place at the beginning, when it is done."""
        numbers, step = list(range(len(self.problems))), 0
        while numbers:
            for run, batches in enumerate(self.batches):
                if step % batches == 0:
                    self._begin_epoch(run, step // batches)
            self._step(step)
            step += 1
            for run, batches in enumerate(self.batches):
                if step % batches == 0:
                    self._end_epoch(run, step // batches)
            done = [step == batches * self.method.epochs for batches in self.batches]
            if any(done):
                yield from ((numbers[run], self._result(run)) for run, over in enumerate(done) if over)
                keep = [run for run, over in enumerate(done) if not over]
                numbers = [numbers[run] for run in keep]
                self._keep(keep)

    def _keep(self, runs: list[int]) -> None:
        """Go on with these runs only."""
        for name in ("problems", "sizes", "batches", "curves", "best"):
            setattr(self, name, [getattr(self, name)[run] for run in runs])
        for name in ("mean", "deviation", "factors", "order", "masks", "loss"):
            setattr(self, name, getattr(self, name)[runs])
        self.params = [p[runs] for p in self.params]
        self.moments = [[m[runs] for m in kind] for kind in self.moments]

    def _begin_epoch(self, run: int, epoch: int) -> None:
        """This epoch's order, views and dropout."""
        seed, size = self.problems[run].seed, self.sizes[run]
        rows = epoch_order(self.problems[run].train, seed, epoch)
        views = np.random.default_rng(derived_seed(seed, "view", epoch)).integers(0, self.views, size)
        self.order[run, :size] = torch.from_numpy(views * self.rows + rows)
        if self.method.dropout > 0:
            self.masks[run, :size] = dropout_masks(seed, epoch, size, self.masks.shape[2], self.method.dropout).to(
                self.masks.device
            )
        self.loss[run] = 0

    def _step(self, step: int) -> None:
        """One batch of every run. Shapes are padded to a full batch; what is padded weighs nothing."""
        batch, device = self.method.batch, self.data.device
        runs = torch.arange(len(self.problems), device=device)[:, None]
        starts = torch.tensor([step % batches * batch for batches in self.batches], device=device)
        places = starts[:, None] + torch.arange(batch, device=device)
        inside = places < torch.tensor(self.sizes, device=device)[:, None]
        chosen = self.order[runs, places]
        inputs = self.table[chosen]
        if self.method.standardise:
            inputs = (inputs - self.mean) / self.deviation
        labels = self.target[chosen % self.rows]
        weights = self.factors[runs, labels] * inside / inside.sum(dim=1, keepdim=True)
        masks = self.masks[runs, places] if self.method.dropout > 0 else None
        losses, pairs = _backward(self.params, inputs, labels, weights, masks, self.method)
        self.loss += losses.double() * inside.sum(dim=1)
        rates = torch.tensor([self._rate(step, run) for run in range(len(runs))], device=device)[:, None, None]
        _update(self.params, pairs, self.moments, rates, step, self.method)

    def _rate(self, step: int, run: int) -> float:
        steps = self.batches[run] * self.method.epochs
        return self.method.rate * rate_factor(self.method.schedule, step, steps)

    def _end_epoch(self, run: int, epoch: int) -> None:
        """Note the curves; keep the weights where the validation loss is the lowest yet."""
        train_loss = float(self.loss[run]) / self.sizes[run]
        if not math.isfinite(train_loss):
            raise UserError(f"mlp_probe diverged in epoch {epoch}: the loss is no longer a number; lower rate")
        loss, accuracy = self._validate(run)
        self.curves[run].append(
            {"epoch": epoch, "train_loss": train_loss, "validation_loss": loss, "validation_accuracy": accuracy}
        )
        best = self.best[run]
        if self.method.select == "best" and loss is not None and (best is None or loss < best[0]):
            self.best[run] = (loss, epoch, [p[run].clone() for p in self.params])

    def _validate(self, run: int) -> tuple[float | None, float | None]:
        rows = self.problems[run].validation
        if len(rows) == 0:
            return None, None
        labels = self.target[rows]
        hidden = (self.data[0][rows] - self.mean[run]) / self.deviation[run]
        w1, b1, w2, b2, w3, b3 = (p[run] for p in self.params)
        logits = ((hidden @ w1 + b1).relu() @ w2 + b2) @ w3 + b3
        right = float((logits.argmax(dim=1) == labels).double().mean())
        chances = log_softmax(logits.cpu().numpy().astype(np.float64))
        own = labels.cpu().numpy()
        weights = self.factors[run].cpu().numpy().astype(np.float64)[own]
        losses = -chances[np.arange(len(own)), own]
        return float((losses * weights).sum() / max(weights.sum(), 1e-12)), right

    def _result(self, run: int) -> FittedMlp:
        best = self.best[run]
        epoch, params = (self.method.epochs, [p[run].clone() for p in self.params]) if best is None else best[1:]
        if self.method.standardise:
            params[1] = params[1] - self.mean[run] / self.deviation[run] @ params[0]
            params[0] = params[0] / self.deviation[run].T
        arrays = [p.cpu().numpy() for p in params]
        layers = tuple((np.ascontiguousarray(w.T), b[0].copy()) for w, b in zip(arrays[::2], arrays[1::2], strict=True))
        return FittedMlp(layers, self.curves[run], epoch, self.method.dropout)


def _backward(
    params: list[Tensor], inputs: Tensor, labels: Tensor, weights: Tensor, masks: Tensor | None, method: MlpProbe
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Loss (R,), the weighted sum over the batch, and every layer's input with the gradient at its output.

    ``inputs`` (R, B, D), ``labels`` and ``weights`` (R, B), ``masks`` (R, B, H). A weight's gradient is the product of
    its layer's pair.
    """
    w1, b1, w2, b2, w3, b3 = params
    scale = 1 / (1 - method.dropout)
    first = torch.baddbmm(b1, inputs, w1).relu_()
    keep1, keep2 = (None, None) if masks is None else (m * scale for m in masks.split(list(method.hidden), dim=2))
    first = first if keep1 is None else first * keep1
    second = torch.baddbmm(b2, first, w2)
    second = second if keep2 is None else second * keep2
    chances = torch.baddbmm(b3, second, w3).log_softmax(dim=2)
    losses = -(chances.gather(2, labels[..., None])[..., 0] * weights).sum(dim=1)
    g3 = chances.exp()
    g3.scatter_add_(2, labels[..., None], g3.new_full((1, 1, 1), -1.0).expand(*labels.shape, 1))
    g3 *= weights[..., None]
    g2 = g3 @ w3.transpose(1, 2)
    g2 = g2 if keep2 is None else g2 * keep2
    g1 = (g2 @ w2.transpose(1, 2)) * (first > 0)
    g1 = g1 if keep1 is None else g1 * keep1
    return losses, [(inputs, g1), (first, g2), (second, g3)]


def _update(
    params: list[Tensor],
    pairs: list[tuple[Tensor, Tensor]],
    moments: list[list[Tensor]],
    rates: Tensor,
    step: int,
    method: MlpProbe,
) -> None:
    """One step of SGD with momentum or of AdamW, in place; ``rates`` (R, 1, 1). Biases are not decayed.

    The work is bound by memory, so gradients are added up where they are needed and every array is passed over once.
    """
    for number, param in enumerate(params):
        decay = method.weight_decay if number % 2 == 0 else 0.0
        values, gradient = pairs[number // 2]
        if number % 2 == 1:
            values = values.new_ones(1, 1, 1).expand(*values.shape[:2], 1)
        outer = values.transpose(1, 2)
        if method.optimizer == "sgd":
            velocity = moments[0][number].baddbmm_(outer, gradient, beta=method.momentum)
            if decay:
                velocity.add_(param, alpha=decay)
            param.addcmul_(velocity, rates, value=-1)
            continue
        slope = torch.bmm(outer, gradient)
        first = moments[0][number].lerp_(slope, 1 - _BETA1)
        second = moments[1][number].mul_(_BETA2).addcmul_(slope, slope, value=1 - _BETA2)
        size = torch.sqrt(second, out=slope).mul_((1 - _BETA2 ** (step + 1)) ** -0.5).add_(_EPSILON)
        if decay:
            param.mul_(1 - rates * decay)
        param.addcmul_(torch.div(first, size, out=slope), rates / (1 - _BETA1 ** (step + 1)), value=-1)
