"""Classification: one label per image, cross-entropy."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.augment.image import Augment
from mrtransfer.augment.prepare import to_input
from mrtransfer.common.files import digest
from mrtransfer.models.network import Backbone
from mrtransfer.training.batches import Batches, Numbered, Prefetched, batch_bounds, epoch_order, image_batches
from mrtransfer.training.module import Progress, Task, Trainee
from mrtransfer.training.problems import class_factors, derived_seed
from mrtransfer.training.profile import AUGMENT
from mrtransfer.training.unlabelled import UNLABELLED, ImageHalves, WithUnlabelled


@dataclass(frozen=True)
class ClassificationTask(Task):
    """What a classifier learns from: stored images (N, C, H, W) uint8 and the label of every row."""

    images: np.ndarray
    labels: np.ndarray
    input: Mapping[str, Any]
    augment: Augment | None

    def describe(self) -> dict[str, Any]:
        """Labels, shape of the images, how they are prepared and augmented."""
        return {
            "labels": digest(np.ascontiguousarray(self.labels).tobytes()),
            "images": list(self.images.shape),
            "input": {"channels": self.input["channels"], "normalise": str(self.input["normalise"])},
            "augment": self.augment.model_dump() if self.augment is not None else None,
        }


class Classifier(Trainee):
    """Backbone and head that tell classes apart; the best epoch is the one of least validation loss."""

    training_columns = ("train_loss", "train_accuracy")
    factors: Tensor
    task: ClassificationTask

    def __init__(
        self, network: Backbone, head: nn.Module, task: ClassificationTask, progress: Progress, **options: Any
    ) -> None:
        super().__init__(network, head, task, progress, **options)
        classes = next(p for p in reversed(list(head.parameters()))).shape[0]
        factors = class_factors(task.labels[task.train], task.method.class_weights, classes)
        self.register_buffer("factors", torch.from_numpy(factors).float(), persistent=False)
        bounds = batch_bounds(self._seen() or len(task.train), task.method.batch)
        self.steps = len(bounds)
        self.part.check_batch(min(end - start for start, end in bounds))

    def train_dataloader(self) -> Iterable[dict[str, Any]]:
        """This epoch's batches."""
        task = self.task
        rows = epoch_order(task.train, task.seed, self.epoch, self._seen())
        batches: Numbered = self._batches(rows)
        if task.adapt is not None:
            halves = ImageHalves(task.adapt, count=len(rows), batch=task.method.batch, seed=task.seed, epoch=self.epoch)
            batches = WithUnlabelled(batches, halves)
        return Prefetched(batches, self.note_reading)

    def val_dataloader(self) -> Iterable[dict[str, Any]]:
        """All validation rows, in order."""
        return Prefetched(self._batches(self.task.validation if self.validates else self.task.validation[:0]))

    def _seen(self) -> int | None:
        """How many images an epoch shows, where that is not one pass."""
        method = self.task.method
        return None if method.steps is None else method.steps * method.batch

    def _batches(self, rows: np.ndarray) -> Batches:
        return Batches(self.task.images, self.task.labels, rows, self.task.method.batch, self.part)

    def plain_inputs(self) -> Iterator[Tensor]:
        """All training images, or unlabelled ones, in the order in which they are stored."""
        adapt = self.task.adapt
        store, rows = (self.task.images, self.task.train) if adapt is None else (adapt.store.images, adapt.rows)
        for images in image_batches(store, np.sort(rows), self.task.method.batch):
            yield self.inputs(images.to(self.device))

    def inputs(self, images: Tensor) -> Tensor:
        """What the network sees of stored or augmented images, in the chosen layout."""
        return to_input(images, **self.task.input).contiguous(memory_format=self.task.precision.memory_format)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) float32 of stored or augmented images."""
        return self._answers(images)[1]

    def _answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features (B, D) and logits (B, classes), float32."""
        inputs = self.inputs(images)
        with self.task.precision.autocast(inputs.device):
            features = self.network(inputs)
            return features.float(), self.head(features).float()

    def step_loss(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The weighted loss of augmented images, with what an adaptation adds; sums of loss, hits and images."""
        labels = batch["labels"]
        with self.source_statistics():
            features, logits = self._answers(self._augmented(batch["images"], batch, "augment"))
        losses = nn.functional.cross_entropy(logits, labels, reduction="none") * self.factors[labels]
        right = (logits.detach().argmax(dim=1) == labels).sum().double()
        sums = torch.stack([losses.detach().sum().double(), right, right.new_tensor(len(labels))])
        return self.adapted(losses.mean(), features, batch), sums

    def unlabelled_rows(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Pooled features and logits of the unlabelled images, augmented as the labelled ones are."""
        return self._answers(self._augmented(batch[UNLABELLED], batch, "augment unlabelled"))

    def _augmented(self, images: Tensor, batch: dict[str, Any], purpose: str) -> Tensor:
        augment = self.task.augment
        if augment is None or not augment.active:
            return images
        seed = derived_seed(self.task.seed, purpose, self.epoch, int(batch["number"]))
        params = augment.sample(batch["size"], torch.Generator().manual_seed(seed))
        own = slice(batch["first"], batch["first"] + len(images))
        with self.measured(AUGMENT):
            return augment.apply(images, params.take(own))

    def training_scores(self, sums: Tensor) -> dict[str, float]:
        """Loss and accuracy over the epoch, as they were when each batch was seen."""
        loss, right, count = sums.tolist()
        return {"train_loss": loss / count, "train_accuracy": right / count}

    def validation_part(self, batch: dict[str, Any]) -> Tensor:
        """Sums of loss, weight, hits and images of one batch of plain images."""
        labels = batch["labels"]
        if len(labels) == 0:
            return torch.zeros(4, dtype=torch.float64, device=self.device)
        logits = self(batch["images"])
        weights = self.factors[labels].double()
        losses = nn.functional.cross_entropy(logits, labels, reduction="none").double() * weights
        right = (logits.argmax(dim=1) == labels).double().sum()
        return torch.stack([losses.sum(), weights.sum(), right, right.new_tensor(len(labels))])

    def validation_scores(self) -> dict[str, float | None]:
        """Loss and accuracy of the last pass over the validation rows."""
        if self.validation_sums is None:
            return {"validation_loss": None, "validation_accuracy": None}
        loss, weight, right, count = self.validation_sums.tolist()
        return {"validation_loss": loss / max(weight, 1e-12), "validation_accuracy": right / count}

    def score(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """The validation loss."""
        return (math.inf if row["validation_loss"] is None else float(row["validation_loss"]),)
