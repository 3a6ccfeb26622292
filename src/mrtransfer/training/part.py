"""One process's part of a data-parallel training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from mrtransfer.common.errors import UserError


@dataclass(frozen=True)
class Part:
    """Process ``rank`` of ``world``."""

    rank: int = 0
    world: int = 1

    def share(self, count: int) -> slice:
        """This process's share of ``count`` samples: neighbours, as many as the others have, or one more or less."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def deal(self, rows: Sequence[int]) -> list[int]:
        """This process's share of ``rows``, dealt one by one; -1 fills it up to as many as any process has."""
        own = list(rows[self.rank :: self.world])
        return own + [-1] * (-(-len(rows) // self.world) - len(own))

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same in each."""
        if self.world == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values

    def check_batch(self, count: int) -> None:
        """Raise :class:`UserError` where a batch of ``count`` samples leaves a process without any."""
        if count < self.world:
            raise UserError(
                f"batch: one of an epoch has {count} images, fewer than the {self.world} processes that share it; "
                "choose another batch, or fewer devices"
            )


ALONE = Part()
