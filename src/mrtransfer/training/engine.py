"""One training from its checkpoint, or its beginning, to its end: Lightning does the epochs."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812  (Lightning's own convention)
import torch
from torch import nn

from mrtransfer.common.files import digest
from mrtransfer.models.network import StagedNetwork
from mrtransfer.training.checkpoint import load_checkpoint, save_checkpoint
from mrtransfer.training.module import Progress, Task, Trainee, copied
from mrtransfer.training.precision import Precision, placed
from mrtransfer.transfer.freeze import frozen_stages, recalibrate

CHECKPOINT = "last.ckpt"
_FORMAT = 2  # of checkpoints: those of another format are not used


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves beside the weights.

    ``curves``: one row per epoch with ``train_loss``, ``train_accuracy``, ``validation_loss`` and
    ``validation_accuracy``, for segmentation also ``train_dice`` and ``validation_dice``, and a row of epoch 0, before
    training, where there are validation rows. ``best_epoch``: the one whose weights were kept.
    ``seconds``: over all interruptions. ``resumed_at``: epochs that an earlier process had done.
    ``images_per_second``: images, or patches, that this process trained on.
    """

    curves: list[dict[str, Any]]
    best_epoch: int
    seconds: float
    images_per_second: float
    resumed_at: int
    precision: Precision
    device: str


def run_training(
    make: type[Trainee],
    network: StagedNetwork,
    head: nn.Module,
    task: Task,
    *,
    folder: Path | None,
    device: str,
    checkpoint_seconds: float,
    advance: Callable[[int], None] | None,
) -> TrainResult:
    """Train in place; ``network`` and ``head`` end with the weights of the best (or last) epoch, on the CPU."""
    method = task.method
    frozen_stages(method, 0, network.stage_names)  # refuses an unknown stage before any work is done
    key = _key(task, network, head)
    path = None if folder is None else Path(folder) / CHECKPOINT
    saved = None if path is None else load_checkpoint(path, key)
    progress = Progress() if saved is None else _restore(saved, network, head)
    done_before = progress.epoch
    trained = [0]

    def count(images: int) -> None:
        trained[0] += images
        if advance:
            advance(images)

    module = make(network, head, task, progress, checkpoint=_writer(path, key, checkpoint_seconds), advance=count)
    with _quiet(), torch.random.fork_rng(), placed(task.precision, device, network, head):
        trainer = _trainer(device, method.epochs - done_before, validates=len(task.validation) > 0)
        if saved is None:
            _before_training(module, trainer, device)
        if done_before < method.epochs:
            trainer.fit(module)
    if progress.best is not None:
        module.load_state_dict(progress.best)
    took = time.monotonic() - module.begun_at
    return TrainResult(
        curves=progress.curves,
        best_epoch=progress.best_epoch if task.chooses else progress.epoch,
        seconds=progress.seconds + took,
        images_per_second=trained[0] / max(took, 1e-9),
        resumed_at=done_before,
        precision=task.precision,
        device=device,
    )


def _before_training(module: Trainee, trainer: L.Trainer, device: str) -> None:
    """Recalibrate batch norm where asked for, and score the state before training."""
    task = module.task
    if task.method.batch_norm == "recalibrate":
        module.to(device)
        with task.precision.autocast(device):
            recalibrate(module.network, module.plain_inputs())
    if len(task.validation) > 0:
        trainer.validate(module, verbose=False)
        row = {"epoch": 0, **dict.fromkeys(module.training_columns), **module.validation_scores()}
        module.progress.curves.append(row)
        if task.method.starts_from_probe:
            module.keep_best(row)


def _writer(path: Path | None, key: str, seconds: float) -> Callable[[Trainee], None]:
    """What to do at an epoch's end: write ``path``, but not more often than every ``seconds``."""
    last = time.monotonic()

    def write(module: Trainee) -> None:
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
                "best_score": progress.best_score,
                "best": progress.best,
                "seconds": progress.seconds + time.monotonic() - module.begun_at,
                "weights": copied(module.state_dict()),
                "optimizer": module.optimizers().optimizer.state_dict(),  # type: ignore[union-attr]
            },
        )
        last = time.monotonic()

    return write


def _restore(saved: Mapping[str, Any], network: nn.Module, head: nn.Module) -> Progress:
    """Put saved weights into the modules; the rest is what :class:`Progress` holds."""
    for name, module in (("network.", network), ("head.", head)):
        module.load_state_dict({k.removeprefix(name): v for k, v in saved["weights"].items() if k.startswith(name)})
    names = ("epoch", "curves", "best_epoch", "best_score", "best", "seconds", "optimizer")
    return Progress(**{name: saved[name] for name in names})


def _key(task: Task, network: nn.Module, head: nn.Module) -> str:
    """What a checkpoint must agree on: settings, data, seed, arithmetic, format, and the initial weights."""
    weights = [
        [name, list(tensor.shape), digest(tensor.detach().cpu().contiguous().numpy().tobytes())]
        for module in (network, head)
        for name, tensor in module.state_dict().items()
    ]
    return digest(
        {
            **task.describe(),
            "format": _FORMAT,
            "method": task.method.model_dump(),
            "train": digest(task.train.tobytes()),
            "validation": digest(task.validation.tobytes()),
            "seed": task.seed,
            "precision": task.precision.name,
            "weights": weights,
        }
    )


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
