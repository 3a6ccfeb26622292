"""Lightning's trainer as it is used here: silent, without files, in one process or in several that are connected."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L  # noqa: N812  (Lightning's own convention)
import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from mrtransfer.training.part import Part
from mrtransfer.training.profile import TrainingProfiler
from mrtransfer.training.team import Team


def build_trainer(team: Team, epochs: int, *, validates: bool, profiler: TrainingProfiler | None = None) -> L.Trainer:
    """A trainer that does nothing of its own accord: no logs, no files, no bars."""
    device = torch.device(team.device)
    together: dict[str, Any] = {}
    if team.part.world > 1:
        # Frozen parameters ask for no gradient when this wraps the module, so none is ever waited for; and buffers are
        # the same everywhere, because batch norm pools its statistics.
        strategy = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
        together = {"strategy": strategy, "num_nodes": team.part.world, "use_distributed_sampler": False}
    return L.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=1 if device.index is None else [device.index],
        max_epochs=max(epochs, 0),
        reload_dataloaders_every_n_epochs=1,  # every epoch has its own order
        limit_val_batches=1.0 if validates else 0,
        num_sanity_val_steps=0,
        inference_mode=False,
        deterministic="warn" if device.type == "cuda" else False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        profiler=profiler,
        plugins=[Connected(team.part)],
        **together,
    )


@contextmanager
def quiet() -> Iterator[None]:
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


class Connected(ClusterEnvironment):
    """What Lightning asks about processes that are connected already; each counts as a machine with one device."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part

    @property
    def creates_processes_externally(self) -> bool:
        """Nothing is to be started."""
        return True

    @property
    def main_address(self) -> str:
        """Not asked for: the processes are connected."""
        return "localhost"

    @property
    def main_port(self) -> int:
        """Not asked for: the processes are connected."""
        return 0

    @staticmethod
    def detect() -> bool:
        """Never chosen by Lightning itself."""
        return False

    def world_size(self) -> int:
        """How many processes there are."""
        return self.part.world

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        """Which process this is."""
        return self.part.rank

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        """The only one of its machine."""
        return 0

    def node_rank(self) -> int:
        """Which process this is."""
        return self.part.rank
