"""Train a classifier, or predict with it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from mrtransfer.augment.image import Augment
from mrtransfer.augment.prepare import to_input
from mrtransfer.models.network import Backbone
from mrtransfer.training.batches import image_batches, input_settings
from mrtransfer.training.classifier import ClassificationTask, Classifier
from mrtransfer.training.engine import CHECKPOINT, TrainResult, run_training
from mrtransfer.training.precision import FLOAT32, Precision, choose_device, placed
from mrtransfer.training.unlabelled import Unlabelled, check_channels
from mrtransfer.transfer.method import NetworkMethod

__all__ = ["CHECKPOINT", "Images", "TrainResult", "predict", "train"]


class Images(Protocol):
    """A store of pixels."""

    @property
    def images(self) -> np.ndarray:
        """uint8 (N, C, H, W), memory-mapped."""


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
    devices: int = 1,
    profile: Path | None = None,
    checkpoint_seconds: float = 30.0,
    advance: Callable[[int], None] | None = None,
    adapt: Unlabelled | None = None,
) -> TrainResult:
    """Train ``backbone`` and ``head`` in place; they end with the weights of the best (or last) epoch, on the CPU.

    ``labels`` (N,) of all rows of the ``store``. ``input``: ``channels`` and ``normalise``. The best epoch is the one
    of least validation loss, and the last where there are no validation rows; the state before training competes
    where the head came from a probe. ``folder``: a checkpoint ``last.ckpt`` is kept there, and a training that was
    interrupted at any moment ends with the same bytes as one that was not. A checkpoint of another training is
    ignored. ``advance`` is called with the number of images after every step.

    ``devices``: processes that share every batch (:mod:`~mrtransfer.training.distributed`); the same curves within
    rounding. ``profile``: a folder for traces and the table of times (:mod:`~mrtransfer.training.profile`).

    ``adapt``: for an :class:`~mrtransfer.transfer.method.Adaptation`, unlabelled images of the target, while everything
    else is the source's; network and head begin as the source's model.

    Raises :class:`UserError` where ``method.freeze`` is no stage of the network, where training diverges, where
    the checkpoint cannot be written, and where ``method`` and ``adapt`` do not go together.
    """
    if adapt is not None:
        check_channels(store.images.shape[1], adapt.store.images.shape[1])
    task = ClassificationTask(
        method=method,
        train=np.asarray(train_rows, dtype=np.int64),
        validation=np.asarray(validation_rows, dtype=np.int64),
        seed=seed,
        precision=precision,
        images=store.images,
        labels=np.asarray(labels),
        input=input_settings(input),
        augment=augment,
        adapt=adapt,
    )
    return run_training(
        Classifier,
        backbone,
        head,
        task,
        folder=folder,
        device=choose_device(device),
        devices=devices,
        profile=profile,
        checkpoint_seconds=checkpoint_seconds,
        advance=advance,
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


def _classes(head: nn.Module) -> int:
    return int(list(head.parameters())[-1].shape[0])
