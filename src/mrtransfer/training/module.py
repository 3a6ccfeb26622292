"""The Lightning module: what happens in a step and at the ends of an epoch."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812  (Lightning's own convention)
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mrtransfer.augment.image import Augment
from mrtransfer.augment.prepare import to_input
from mrtransfer.common.errors import UserError
from mrtransfer.models.network import Backbone
from mrtransfer.training.batches import Batches, epoch_order
from mrtransfer.training.checkpoint import save_checkpoint
from mrtransfer.training.precision import Precision
from mrtransfer.training.problems import class_factors, derived_seed
from mrtransfer.training.schedule import rate_factor
from mrtransfer.transfer.freeze import apply_freeze, parameter_groups
from mrtransfer.transfer.method import NetworkMethod


@dataclass(frozen=True)
class Task:
    """All that defines a training, beside the initial weights."""

    method: NetworkMethod
    images: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    input: Mapping[str, Any]
    augment: Augment | None
    seed: int
    precision: Precision

    @property
    def chooses(self) -> bool:
        """Whether the best epoch is kept, rather than the last."""
        return self.method.select == "best" and len(self.validation) > 0


@dataclass
class Progress:
    """Where a training stands after ``epoch`` epochs; with weights and optimizer, all that a checkpoint holds."""

    epoch: int = 0
    curves: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    best: dict[str, Tensor] | None = None
    seconds: float = 0.0
    optimizer: dict[str, Any] | None = None


class Classifier(L.LightningModule):
    """Backbone and head under one method.

    Everything that changes over time (what is frozen, rates, order, augmentation, dropout) is derived from
    (settings, seed, epoch, step) when it is needed; nothing is carried over but weights and optimizer state.
    """

    factors: Tensor

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        task: Task,
        progress: Progress,
        *,
        checkpoint: Callable[["Classifier"], None],
        advance: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.task, self.progress = task, progress
        self.checkpoint, self.advance = checkpoint, advance
        classes = next(p for p in reversed(list(head.parameters()))).shape[0]
        factors = class_factors(task.labels[task.train], task.method.class_weights, classes)
        self.register_buffer("factors", torch.from_numpy(factors).float(), persistent=False)
        self.steps = len(Batches(task.images, task.labels, task.train, task.method.batch))
        self.begun_at = time.monotonic()

    # What an epoch is made of

    @property
    def epoch(self) -> int:
        """The epoch at hand, from 0, counted over interruptions."""
        return self.progress.epoch

    def train_dataloader(self) -> DataLoader:
        """This epoch's batches; Lightning asks anew every epoch."""
        rows = epoch_order(self.task.train, self.task.seed, self.epoch)
        return self._loader(rows)

    def val_dataloader(self) -> DataLoader:
        """All validation rows, in order."""
        return self._loader(self.task.validation)

    def _loader(self, rows: np.ndarray) -> DataLoader:
        batches = Batches(self.task.images, self.task.labels, rows, self.task.method.batch)
        generator = torch.Generator().manual_seed(0)  # unused by us; keeps the loader off the global one
        return DataLoader(batches, batch_size=None, shuffle=False, generator=generator)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer over fixed groups, as it was left."""
        method = self.task.method
        groups = parameter_groups(self.backbone, self.head, method)
        optimizer: torch.optim.Optimizer
        if method.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, momentum=method.momentum)
        else:
            optimizer = torch.optim.AdamW(groups, fused=True)
        if self.progress.optimizer is not None:
            optimizer.load_state_dict(self.progress.optimizer)
            self.progress.optimizer = None
        return optimizer

    # Training

    def on_train_epoch_start(self) -> None:
        """Derive what is frozen, and seed dropout."""
        apply_freeze(self.backbone, self.task.method, self.epoch)
        self.head.train()
        torch.manual_seed(derived_seed(self.task.seed, "dropout", self.epoch))
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.factors.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set this step's learning rates."""
        method, step = self.task.method, self.epoch * self.steps + batch_idx
        factor = rate_factor(method.schedule, step, method.epochs * self.steps)
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = group["initial_lr"] * factor

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The loss of one batch of augmented images."""
        images, labels = batch["images"], batch["labels"]
        if self.task.augment is not None and self.task.augment.active:
            seed = derived_seed(self.task.seed, "augment", self.epoch, int(batch["number"]))
            params = self.task.augment.sample(len(images), torch.Generator().manual_seed(seed))
            images = self.task.augment.apply(images, params)
        logits = self(images)
        losses = nn.functional.cross_entropy(logits, labels, reduction="none") * self.factors[labels]
        right = (logits.detach().argmax(dim=1) == labels).sum()
        self.sums += torch.stack(
            [losses.detach().sum().double(), right.double(), right.new_tensor(len(labels)).double()]
        )
        if self.advance:
            self.advance(len(labels))
        return losses.mean()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) float32 of stored or augmented images."""
        inputs = to_input(images, **self.task.input)
        inputs = inputs.contiguous(memory_format=self.task.precision.memory_format)
        with self.task.precision.autocast(inputs.device):
            return self.head(self.backbone(inputs)).float()

    # Validation

    def on_validation_epoch_start(self) -> None:
        """Start the sums of loss, weight, hits and samples."""
        self.validation_sums = torch.zeros(4, dtype=torch.float64, device=self.factors.device)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Add one batch of plain images."""
        labels = batch["labels"]
        logits = self(batch["images"])
        weights = self.factors[labels].double()
        losses = nn.functional.cross_entropy(logits, labels, reduction="none").double() * weights
        right = (logits.argmax(dim=1) == labels).double().sum()
        self.validation_sums += torch.stack([losses.sum(), weights.sum(), right, right.new_tensor(len(labels))])

    def validation_scores(self) -> dict[str, float | None]:
        """Of the last pass over the validation rows; None where there are none."""
        if len(self.task.validation) == 0:
            return {"validation_loss": None, "validation_accuracy": None}
        loss, weight, right, count = self.validation_sums.tolist()
        return {"validation_loss": loss / max(weight, 1e-12), "validation_accuracy": right / count}

    # The end of an epoch

    def on_train_epoch_end(self) -> None:
        """Note the curves, keep the weights where they are the best yet, and save where it is time."""
        loss, right, count = self.sums.tolist()
        self.progress.epoch += 1
        row = {"epoch": self.epoch, "train_loss": loss / count, "train_accuracy": right / count}
        row |= self.validation_scores()
        if not math.isfinite(row["train_loss"]):
            raise UserError(
                f"training diverged in epoch {self.epoch}: the loss is no longer a number; lower rate or backbone_rate"
            )
        self.progress.curves.append(row)
        self.keep_best(row)
        self.checkpoint(self)

    def keep_best(self, row: Mapping[str, Any]) -> None:
        """Remember the present weights where their validation loss is the lowest yet."""
        if self.task.chooses and row["validation_loss"] < self.progress.best_loss:
            self.progress.best_loss, self.progress.best_epoch = row["validation_loss"], row["epoch"]
            self.progress.best = copied(self.state_dict())


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of its own, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}


def checkpoint_writer(path: Path | None, key: str, seconds: float) -> Callable[[Classifier], None]:
    """What to do at an epoch's end: write ``path``, but not more often than every ``seconds``."""
    last = time.monotonic()

    def write(module: Classifier) -> None:
        nonlocal last
        if path is None or time.monotonic() - last < seconds:
            return
        progress = module.progress
        save_checkpoint(
            path,
            {
                "key": key,
                "epoch": progress.epoch,
                "curves": progress.curves,
                "best_epoch": progress.best_epoch,
                "best_loss": progress.best_loss,
                "best": progress.best,
                "seconds": progress.seconds + time.monotonic() - module.begun_at,
                "weights": copied(module.state_dict()),
                "optimizer": module.optimizers().optimizer.state_dict(),  # type: ignore[union-attr]
            },
        )
        last = time.monotonic()

    return write
