"""Train a network, or predict with it."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lightning as L  # noqa: N812  (Lightning's own convention)
import numpy as np
import torch
from torch import nn

from mrtransfer.augment.image import Augment
from mrtransfer.augment.prepare import to_input
from mrtransfer.common.files import digest
from mrtransfer.models.network import Backbone
from mrtransfer.training.batches import image_batches, input_settings
from mrtransfer.training.checkpoint import load_checkpoint
from mrtransfer.training.module import Classifier, Progress, Task, checkpoint_writer
from mrtransfer.training.precision import FLOAT32, Precision, choose_device, placed
from mrtransfer.transfer.freeze import frozen_stages, recalibrate
from mrtransfer.transfer.method import NetworkMethod

CHECKPOINT = "last.ckpt"


class Images(Protocol):
    """A store of pixels."""

    @property
    def images(self) -> np.ndarray:
        """uint8 (N, C, H, W), memory-mapped."""


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves beside the weights.

    ``curves``: one row per epoch with ``train_loss``, ``train_accuracy``, ``validation_loss`` and
    ``validation_accuracy``, and a row of epoch 0, before training, where there are validation rows. ``best_epoch``: the
    one whose weights were kept.
    ``seconds``: over all interruptions. ``resumed_at``: epochs that an earlier process had done.
    """

    curves: list[dict[str, Any]]
    best_epoch: int
    seconds: float
    images_per_second: float
    resumed_at: int
    precision: Precision
    device: str


def train(
    backbone: Backbone,
    head: nn.Module,
    method: NetworkMethod,
    store: Images,
    labels: np.ndarray,
    train_rows: np.ndarray,
    validation_rows: np.ndarray,
    *,
    input: Mapping[str, Any],  # noqa: A002  (the recipe's word)
    augment: Augment | None = None,
    seed: int = 0,
    folder: Path | None = None,
    precision: Precision = FLOAT32,
    device: str = "auto",
    checkpoint_seconds: float = 30.0,
    advance: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train ``backbone`` and ``head`` in place; they end with the weights of the best (or last) epoch, on the CPU.

    ``labels`` (N,) of all rows of the ``store``. ``input``: ``channels`` and ``normalise``. The best epoch is the one
    of least validation loss, and the last where there are no validation rows; the state before training competes
    where the head came from a probe. ``folder``: a checkpoint ``last.ckpt`` is kept there, and a training that was
    interrupted at any moment ends with the same bytes as one that was not. A checkpoint of another training is
    ignored. ``advance`` is called with the number of images after every step.

    Raises :class:`UserError` where ``method.freeze`` is no stage of the network, where training diverges, and where
    the checkpoint cannot be written.
    """
    device = choose_device(device)
    frozen_stages(method, 0, backbone.stage_names)  # refuses an unknown stage before any work is done
    task = Task(
        method,
        store.images,
        np.asarray(labels),
        np.asarray(train_rows, dtype=np.int64),
        np.asarray(validation_rows, dtype=np.int64),
        input_settings(input),
        augment,
        seed,
        precision,
    )
    key = _key(task, backbone, head)
    path = None if folder is None else Path(folder) / CHECKPOINT
    saved = None if path is None else load_checkpoint(path, key)
    progress = Progress() if saved is None else _restore(saved, backbone, head)
    done_before = progress.epoch
    module = Classifier(
        backbone, head, task, progress, checkpoint=checkpoint_writer(path, key, checkpoint_seconds), advance=advance
    )
    with _quiet(), torch.random.fork_rng(), placed(precision, device, backbone, head):
        trainer = _trainer(device, method.epochs - done_before, validates=len(task.validation) > 0)
        if saved is None:
            _before_training(module, trainer, device)
        if done_before < method.epochs:
            trainer.fit(module)
    if progress.best is not None:
        module.load_state_dict(progress.best)
    took = time.monotonic() - module.begun_at
    trained = (method.epochs - done_before) * len(task.train)
    return TrainResult(
        curves=progress.curves,
        best_epoch=progress.best_epoch if task.chooses else progress.epoch,
        seconds=progress.seconds + took,
        images_per_second=trained / max(took, 1e-9),
        resumed_at=done_before,
        precision=precision,
        device=device,
    )


def predict(
    backbone: nn.Module,
    head: nn.Module,
    store: Images,
    rows: np.ndarray,
    *,
    input: Mapping[str, Any],  # noqa: A002  (the recipe's word)
    precision: Precision = FLOAT32,
    device: str = "auto",
    batch: int = 64,
    advance: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Probabilities (n, classes) float32 of ``rows`` of the store. The modules end in evaluation mode, on the CPU."""
    device = choose_device(device)
    settings = input_settings(input)
    backbone.eval()
    head.eval()
    parts = []
    with torch.no_grad(), placed(precision, device, backbone, head):
        for images in image_batches(store.images, np.asarray(rows, dtype=np.int64), batch):
            inputs = to_input(images.to(device), **settings).contiguous(memory_format=precision.memory_format)
            with precision.autocast(device):
                logits = head(backbone(inputs))
            parts.append(logits.float().softmax(dim=1).cpu().numpy())
            if advance:
                advance(len(images))
    return np.concatenate(parts) if parts else np.zeros((0, _classes(head)), dtype=np.float32)


def _before_training(module: Classifier, trainer: L.Trainer, device: str) -> None:
    """Recalibrate batch norm where asked for, and score the state before training."""
    task = module.task
    if task.method.batch_norm == "recalibrate":
        batches = image_batches(task.images, np.sort(task.train), task.method.batch)
        with task.precision.autocast(device):
            recalibrate(
                module.backbone,
                (
                    to_input(images.to(device), **task.input).contiguous(memory_format=task.precision.memory_format)
                    for images in batches
                ),
            )
    if len(task.validation) > 0:
        trainer.validate(module, verbose=False)
        row = {"epoch": 0, "train_loss": None, "train_accuracy": None, **module.validation_scores()}
        module.progress.curves.append(row)
        if task.method.starts_from_probe:
            module.keep_best(row)


def _restore(saved: Mapping[str, Any], backbone: nn.Module, head: nn.Module) -> Progress:
    """Put saved weights into the modules; the rest is what :class:`Progress` holds."""
    for name, module in (("backbone.", backbone), ("head.", head)):
        module.load_state_dict({k.removeprefix(name): v for k, v in saved["weights"].items() if k.startswith(name)})
    names = ("epoch", "curves", "best_epoch", "best_loss", "best", "seconds", "optimizer")
    return Progress(**{name: saved[name] for name in names})


def _key(task: Task, backbone: nn.Module, head: nn.Module) -> str:
    """What a checkpoint must agree on: settings, rows, seed, format, and the initial weights."""
    weights = [
        [name, list(tensor.shape), digest(tensor.detach().cpu().contiguous().numpy().tobytes())]
        for module in (backbone, head)
        for name, tensor in module.state_dict().items()
    ]
    return digest(
        {
            "method": task.method.model_dump(),
            "train": digest(task.train.tobytes()),
            "validation": digest(task.validation.tobytes()),
            "labels": digest(np.ascontiguousarray(task.labels).tobytes()),
            "images": list(task.images.shape),
            "input": {"channels": task.input["channels"], "normalise": str(task.input["normalise"])},
            "augment": task.augment.model_dump() if task.augment is not None else None,
            "seed": task.seed,
            "precision": task.precision.name,
            "weights": weights,
        }
    )


def _classes(head: nn.Module) -> int:
    return int(list(head.parameters())[-1].shape[0])


def _trainer(device: str, epochs: int, *, validates: bool) -> L.Trainer:
    """A trainer that does nothing of its own accord: no logs, no files, no bars."""
    kind = torch.device(device).type
    return L.Trainer(
        accelerator="gpu" if kind == "cuda" else kind,
        devices=1,
        max_epochs=max(epochs, 0),
        reload_dataloaders_every_n_epochs=1,  # every epoch has its own order
        limit_val_batches=1.0 if validates else 0,
        num_sanity_val_steps=0,
        inference_mode=False,
        deterministic="warn" if kind == "cuda" else False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's remarks about hardware and workers to itself; its errors are still raised."""
    loggers = [
        logging.getLogger(name)
        for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", message=".*deterministic.*", category=UserWarning)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
