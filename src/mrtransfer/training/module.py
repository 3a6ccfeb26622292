"""What all trainings share, whatever is learned: rates, what is frozen, curves, the best epoch, checkpoints."""

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import lightning as L  # noqa: N812  (Lightning's own convention)
import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.common.errors import UserError
from mrtransfer.models.network import StagedNetwork
from mrtransfer.training.part import ALONE, Part
from mrtransfer.training.precision import Precision
from mrtransfer.training.problems import derived_seed
from mrtransfer.training.schedule import rate_factor
from mrtransfer.training.unlabelled import Unlabelled
from mrtransfer.transfer.alignment import Halves
from mrtransfer.transfer.freeze import apply_freeze, parameter_groups, running_statistics_kept
from mrtransfer.transfer.method import Adaptation, NetworkMethod


@dataclass(frozen=True)
class Task:
    """All that defines a training, beside the initial weights; a subclass adds what is learned from."""

    method: NetworkMethod
    train: np.ndarray
    validation: np.ndarray
    seed: int
    precision: Precision
    adapt: Unlabelled | None = field(default=None, kw_only=True)
    """Of the target, where a network is adapted; everything else is then the source's."""

    @property
    def chooses(self) -> bool:
        """Whether the best epoch is kept, rather than the last."""
        return self.method.select == "best" and len(self.validation) > 0

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Everything that a checkpoint must agree on beside what this class holds, as JSON can write it."""


@dataclass
class Progress:
    """Where a training stands after ``epoch`` epochs; with weights and optimizer, all that a checkpoint holds.

    ``best_score``: of the best epoch so far, lower is better; the first number decides, the next where it is equal.
    ``critic``: the weights of what an adaptation trains beside network and head.
    """

    epoch: int = 0
    curves: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: tuple[float, ...] = (math.inf,)
    best: dict[str, Tensor] | None = None
    seconds: float = 0.0
    optimizer: dict[str, Any] | None = None
    critic: dict[str, Tensor] | None = None


class Trainee(L.LightningModule):
    """A network of stages and its head under one method.

    Everything that changes over time (what is frozen, rates, order, augmentation, dropout, how strong an adaptation is)
    is derived from (settings, seed, epoch, step) when it is needed; nothing is carried over but weights and optimizer
    state. Where the method is an adaptation, a batch has an ``unlabelled`` half too.
    A subclass says what a batch is, what it costs, and what is noted in the curves. A batch is a dictionary of
    ``images`` and more: this process's part of it, with ``number`` (of the batch in its epoch), ``first`` (place of the
    part in the batch) and ``size`` (of the whole batch).
    """

    steps: int
    """Optimisation steps in an epoch; set by the subclass."""
    training_columns: tuple[str, ...]
    """What :meth:`training_scores` says; for an adaptation also ``train_penalty``, the mean over steps."""
    sums: Tensor
    penalties: Tensor
    validation_sums: Tensor | None = None  # of this epoch; None where it is not validated

    def __init__(
        self,
        network: StagedNetwork,
        head: nn.Module,
        task: Task,
        progress: Progress,
        *,
        part: Part = ALONE,
        checkpoint: Callable[["Trainee"], None] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.head = network, head
        self.task, self.progress, self.part = task, progress, part
        self.checkpoint, self.advance = checkpoint, advance
        self.begun_at = time.monotonic()
        self.read_seconds = 0.0
        self.critic: nn.Module | None = None
        if isinstance(task.method, Adaptation):
            self.training_columns = (*self.training_columns, "train_penalty")
            self.critic = task.method.build_critic(network.features, derived_seed(task.seed, "critic"))
        if self.critic is not None and progress.critic is not None:
            self.critic.load_state_dict(progress.critic)

    def note_reading(self, seconds: float) -> None:
        """A training batch was read in the background."""
        self.read_seconds += seconds

    # What a subclass says

    @abstractmethod
    def step_loss(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The mean loss of this process's part of a batch, and what it adds to the epoch's sums (float64, a vector)."""

    @abstractmethod
    def training_scores(self, sums: Tensor) -> dict[str, float]:
        """The columns ``train_…`` of the curves, from an epoch's sums; the loss is ``train_loss``."""

    @abstractmethod
    def validation_part(self, batch: Any) -> Tensor:
        """What one batch of validation data adds to the sums (float64, a vector); zeros where there is nothing."""

    @abstractmethod
    def validation_scores(self) -> dict[str, float | None]:
        """The columns ``validation_…`` of the curves, from ``validation_sums``; None where it is None."""

    @abstractmethod
    def score(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """By what the best epoch is chosen: lower is better; infinite where the row was not validated."""

    @abstractmethod
    def plain_inputs(self) -> Iterable[Tensor]:
        """All training data as the network sees it, without augmentation, on the network's device.

        Where the method is an adaptation: all unlabelled data instead.
        """

    def unlabelled_rows(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Features (m, d) and logits (m, K), float32, of a batch's augmented unlabelled half; for adaptations."""
        raise UserError(f"method {self.task.method.name}: is for classification and segmentation")

    @abstractmethod
    def train_dataloader(self) -> Iterable[Any]:
        """This epoch's batches; Lightning asks anew every epoch."""

    @abstractmethod
    def val_dataloader(self) -> Iterable[Any]:
        """What the present epoch is validated on, or nothing; Lightning asks anew every epoch."""

    # What is common to all

    @property
    def epoch(self) -> int:
        """The epoch at hand, from 0, counted over interruptions."""
        return self.progress.epoch

    @property
    def validates(self) -> bool:
        """Whether the epoch at hand ends with a validation; before training, there is one in any case."""
        method, number = self.task.method, self.epoch + 1
        due = number % method.validate_every == 0 or number == method.epochs or not self.progress.curves
        return due and len(self.task.validation) > 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer over fixed groups, as it was left."""
        method = self.task.method
        groups = parameter_groups(self.network, self.head, method, self.critic)
        optimizer: torch.optim.Optimizer
        if method.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, momentum=method.momentum)
        else:
            optimizer = torch.optim.AdamW(groups, fused=True)
        if self.progress.optimizer is not None:
            optimizer.load_state_dict(self.progress.optimizer)
            self.progress.optimizer = None
        return optimizer

    def on_train_epoch_start(self) -> None:
        """Derive what is frozen, and seed dropout."""
        apply_freeze(self.network, self.task.method, self.epoch)
        self.head.train()
        ranks = [self.part.rank] if self.part.rank else []  # each process drops other units
        torch.manual_seed(derived_seed(self.task.seed, "dropout", self.epoch, *ranks))
        self.sums = torch.zeros((), dtype=torch.float64, device=self.device)
        self.penalties = torch.zeros((), dtype=torch.float64, device=self.device)
        self.validation_sums = None

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set this step's learning rates."""
        method, step = self.task.method, self.epoch * self.steps + batch_idx
        factor = rate_factor(method.schedule, step, method.epochs * self.steps)
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = group["initial_lr"] * factor

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The loss of one batch; the mean of this over all processes is the mean over all samples."""
        loss, sums = self.step_loss(batch)
        self.sums = self.sums + sums
        if self.advance:
            self.advance(batch["size"])
        if self.part.world == 1:
            return loss
        return loss * (len(batch["images"]) * self.part.world / batch["size"])

    def source_statistics(self) -> AbstractContextManager[None]:
        """While an adaptation looks at the source: batch norm's running statistics stay the target's."""
        return nullcontext() if self.task.adapt is None else running_statistics_kept(self.network)

    def adapted(self, loss: Tensor, features: Tensor, batch: dict[str, Any]) -> Tensor:
        """``loss`` with what an adaptation adds; ``features`` (n, d): rows of the batch's labelled half."""
        method = self.task.method
        if not isinstance(method, Adaptation):
            return loss
        number = int(batch["number"])
        with own_chance(derived_seed(self.task.seed, "unlabelled dropout", self.epoch, number), self.device):
            target, logits = self.unlabelled_rows(batch)
        progress = (self.epoch * self.steps + number) / (method.epochs * self.steps)
        penalty = method.penalty(Halves(features.float(), target, logits, progress), self.critic)
        self.penalties = self.penalties + penalty.detach().double()
        return loss + penalty

    def measured(self, action: str) -> AbstractContextManager[Any]:
        """A block whose time a profile tells apart."""
        return self.trainer.profiler.profile(action)  # type: ignore[attr-defined]

    def on_validation_epoch_start(self) -> None:
        """Start the sums anew."""
        self.validation_sums = torch.zeros((), dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add one batch of plain data."""
        assert self.validation_sums is not None
        self.validation_sums = self.validation_sums + self.validation_part(batch)

    def on_validation_epoch_end(self) -> None:
        """Add up what all processes found."""
        assert self.validation_sums is not None
        self.validation_sums = self.part.total(self.validation_sums)

    def on_train_epoch_end(self) -> None:
        """Note the curves, keep the weights where they are the best yet, and save where it is time."""
        self.progress.epoch += 1
        trained = self.training_scores(self.part.total(self.sums))
        if isinstance(self.task.method, Adaptation):
            trained["train_penalty"] = float(self.penalties) / self.steps
        if not all(math.isfinite(trained.get(name, 0.0)) for name in ("train_loss", "train_penalty")):
            raise UserError(
                f"training diverged in epoch {self.epoch}: the loss is no longer a number; lower rate or backbone_rate"
            )
        row = {"epoch": self.epoch, **trained, **self.validation_scores()}
        self.progress.curves.append(row)
        self.keep_best(row)
        if self.checkpoint:
            self.checkpoint(self)

    def keep_best(self, row: Mapping[str, Any]) -> None:
        """Remember the present weights where their score is the lowest yet."""
        if self.task.chooses and (score := self.score(row)) < self.progress.best_score:
            self.progress.best_score, self.progress.best_epoch = score, row["epoch"]
            self.progress.best = copied(self.state_dict())


@contextmanager
def own_chance(seed: int, device: torch.device) -> Iterator[None]:
    """Within the block, dropout draws from ``seed``; afterwards the generators are where they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of its own, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
