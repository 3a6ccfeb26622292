"""One training from its checkpoint, or its beginning, to its end: Lightning does the epochs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mrtransfer.common.files import digest
from mrtransfer.models.network import StagedNetwork
from mrtransfer.training.checkpoint import load_checkpoint, save_checkpoint
from mrtransfer.training.distributed import launched, team_of
from mrtransfer.training.module import Progress, Task, Trainee, copied
from mrtransfer.training.part import Part
from mrtransfer.training.pooled_norm import pooled_batch_norm
from mrtransfer.training.precision import Precision, placed
from mrtransfer.training.profile import TrainingProfiler
from mrtransfer.training.team import Team
from mrtransfer.training.trainer import build_trainer, quiet
from mrtransfer.training.unlabelled import check_unlabelled
from mrtransfer.transfer.freeze import apply_freeze, frozen_stages, recalibrate
from mrtransfer.transfer.method import Adaptation, NetworkMethod

CHECKPOINT = "last.ckpt"
_FORMAT = 2  # of checkpoints: those of another format are not used


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves beside the weights.

    ``curves``: one row per epoch with ``train_loss``, ``train_accuracy``, ``validation_loss`` and
    ``validation_accuracy``, for segmentation also ``train_dice`` and ``validation_dice``, for an adaptation also
    ``train_penalty``, and a row of epoch 0, before training, where there are validation rows.
    ``best_epoch``: the one whose weights were kept. ``seconds``: over all interruptions.
    ``resumed_at``: epochs that an earlier process had done.
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
    devices: int,
    profile: Path | None,
    checkpoint_seconds: float,
    advance: Callable[[int], None] | None,
) -> TrainResult:
    """Train in place; ``network`` and ``head`` end with the weights of the best (or last) epoch, on the CPU.

    In a program that ``torchrun`` runs several times, all of its processes end with the same weights and result.
    """
    frozen_stages(task.method, 0, network.stage_names)  # refuses an unknown stage before any work is done
    check_unlabelled(task.method, task.adapt, network, max(devices, launched().world))
    with team_of(devices, device) as team:
        if team.part.rank > 0:
            return _follow(team, network, head)
        key = _key(task, network, head)
        path = None if folder is None else Path(folder) / CHECKPOINT
        saved = None if path is None else load_checkpoint(path, key)
        progress = Progress() if saved is None else _restore(saved, network, head)
        work = _Training(make, network, head, task, progress, progress.epoch)
        if saved is None and _estimates_statistics(task.method):
            work.recalibrate(team)
        if team.part.world > 1:
            team.lead(work)
        return work.run(team, checkpoint=_writer(path, key, checkpoint_seconds), advance=advance, profile=profile)


def _estimates_statistics(method: NetworkMethod) -> bool:
    """Whether batch norm's are estimated before training; an adaptation's are the target's from the start."""
    return method.batch_norm == "recalibrate" or (isinstance(method, Adaptation) and method.batch_norm == "train")


def _follow(team: Team, network: nn.Module, head: nn.Module) -> TrainResult:
    """Take part in what the leader does, and end with its weights."""
    work = team.follow()
    assert isinstance(work, _Training)
    result = work(team)
    network.load_state_dict(work.network.state_dict())
    head.load_state_dict(work.head.state_dict())
    return result


@dataclass(frozen=True)
class _Training:
    """What a training starts from, in this process or in others."""

    make: type[Trainee]
    network: StagedNetwork
    head: nn.Module
    task: Task
    progress: Progress
    resumed_at: int

    def __call__(self, team: Team) -> TrainResult:
        return self.run(team)

    def recalibrate(self, team: Team) -> None:
        """Estimate the statistics of batch norm anew."""
        precision = self.task.precision
        with quiet(), placed(precision, team.device, self.network, self.head):
            module = self.make(self.network, self.head, self.task, self.progress)
            with precision.autocast(team.device):
                recalibrate(self.network, module.to(team.device).plain_inputs())

    def run(
        self,
        team: Team,
        *,
        checkpoint: Callable[[Trainee], None] | None = None,
        advance: Callable[[int], None] | None = None,
        profile: Path | None = None,
    ) -> TrainResult:
        """All epochs that are missing, the state before training first."""
        task, progress = self.task, self.progress
        trained = [0]

        def count(samples: int) -> None:
            trained[0] += samples
            if advance:
                advance(samples)

        module = self.make(
            self.network, self.head, task, progress, part=team.part, checkpoint=checkpoint, advance=count
        )
        profiler = None
        if profile is not None:
            profiler = TrainingProfiler(profile, team.device, module.steps, lambda: module.read_seconds)
        with (
            quiet(),
            torch.random.fork_rng(),
            placed(task.precision, team.device, self.network, self.head),
            pooled_batch_norm(self.network, team.part),
        ):
            if progress.epoch == 0 and len(task.validation) > 0:
                _score_the_start(module, team)
            for end in _legs(task.method, progress.epoch, team.part):
                apply_freeze(self.network, task.method, progress.epoch)
                validates = len(task.validation) > 0
                trainer = build_trainer(team, end - progress.epoch, validates=validates, profiler=profiler)
                trainer.fit(module)
                progress.optimizer = trainer.optimizers[0].state_dict()
        if profiler is not None:
            profiler.finish()
        if progress.best is not None:
            module.load_state_dict(progress.best)
        took = time.monotonic() - module.begun_at
        return TrainResult(
            curves=progress.curves,
            best_epoch=progress.best_epoch if task.chooses else progress.epoch,
            seconds=progress.seconds + took,
            images_per_second=trained[0] / max(took, 1e-9),
            resumed_at=self.resumed_at,
            precision=task.precision,
            device=team.device,
        )


def _score_the_start(module: Trainee, team: Team) -> None:
    """The row of epoch 0; the state before training competes where its head is not random."""
    build_trainer(team, 0, validates=True).validate(module, verbose=False)
    row = {"epoch": 0, **dict.fromkeys(module.training_columns), **module.validation_scores()}
    module.progress.curves.append(row)
    if module.task.method.starts_from_probe:
        module.keep_best(row)


def _legs(method: NetworkMethod, done: int, part: Part) -> list[int]:
    """The epochs at which Lightning is started anew, and the last.

    Several processes agree at the start which gradients they exchange, so when stages thaw they have to start anew;
    that this changes nothing is what a training that was interrupted there relies on.
    """
    thaw = method.freeze_epochs if method.freeze is not None and part.world > 1 else None
    return [end for end in (thaw, method.epochs) if end is not None and done < end <= method.epochs]


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
    critic = {k.removeprefix("critic."): v for k, v in saved["weights"].items() if k.startswith("critic.")}
    return Progress(**{name: saved[name] for name in names}, critic=critic or None)


def _key(task: Task, network: nn.Module, head: nn.Module) -> str:
    """What a checkpoint must agree on: settings, data, seed, arithmetic, format, and the initial weights."""
    weights = [
        [name, list(tensor.shape), digest(tensor.detach().cpu().contiguous().numpy().tobytes())]
        for module in (network, head)
        for name, tensor in module.state_dict().items()
    ]
    adapt = {} if task.adapt is None else {"adapt": task.adapt.describe()}
    return digest(
        {
            **task.describe(),
            **adapt,
            "format": _FORMAT,
            "method": task.method.model_dump(),
            "train": digest(task.train.tobytes()),
            "validation": digest(task.validation.tobytes()),
            "seed": task.seed,
            "precision": task.precision.name,
            "weights": weights,
        }
    )
