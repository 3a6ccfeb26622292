"""The half of every batch that has no labels: images or patches of the domain that a network is adapted to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import digest
from mrtransfer.data.cases.patches import PatchSampler
from mrtransfer.models.network import StagedNetwork
from mrtransfer.training.batches import Numbered, batch_bounds, epoch_order, gather
from mrtransfer.training.problems import derived_seed
from mrtransfer.transfer.method import Adaptation, NetworkMethod

UNLABELLED = "unlabelled"
"""Under which name a batch holds its half without labels."""


class Named(Protocol):
    """Pixels or cases whose rows have names: the same image has the same name, whatever its label."""

    @property
    def row_digests(self) -> np.ndarray:
        """(N,) str."""


class UnlabelledImages(Named, Protocol):
    """What of a store of pixels is read; :class:`~mrtransfer.data.store.Store` is one."""

    @property
    def images(self) -> np.ndarray:
        """uint8 (N, C, H, W), memory-mapped."""


class UnlabelledCases(Named, Protocol):
    """What of prepared cases is read: no mask. :class:`~mrtransfer.data.cases.store.CaseStore` is one."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""

    def image(self, row: int) -> np.ndarray:
        """float16 (C, x, y, z)."""

    def padding(self, row: int) -> np.ndarray:
        """float16 (C,): what surrounds the case."""

    def release(self) -> None:
        """Let go of what was read."""


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """The rows of the target that may be learned from without labels.

    ``store``: of pixels for classification, of prepared cases for segmentation; neither a label nor a mask is asked of
    it. ``rows``: (n,) indices into it.
    """

    store: Any
    rows: np.ndarray

    def describe(self) -> str:
        """A digest of the images, which a checkpoint must agree on."""
        store: Named = self.store
        return digest([str(name) for name in np.asarray(store.row_digests)[self.rows]])


def check_unlabelled(method: NetworkMethod, adapt: Unlabelled | None, network: StagedNetwork, processes: int) -> None:
    """Raise :class:`UserError` where ``method`` and ``adapt`` do not go together, or not with the network.

    Batches of both domains are compared as a whole, so they cannot be shared by several ``processes``.
    """
    if not isinstance(method, Adaptation):
        if adapt is not None:
            raise UserError(
                f"method {method.name}: learns from labels only; to learn from unlabelled rows choose dann, dan, "
                "deep_coral, mcc or adaptive_batch_norm"
            )
        return
    if adapt is None or len(adapt.rows) == 0:
        raise UserError(
            f"method {method.name}: there are no unlabelled rows of a target to adapt to; give at least one"
        )
    if processes > 1:
        raise UserError(
            f"devices: is {processes}, but {method.name} compares whole batches of two domains, which several "
            "processes cannot share; use 1"
        )
    method.check(network)


def check_channels(source: int, target: int) -> None:
    """Raise :class:`UserError` where the two domains have different numbers of channels."""
    if source != target:
        raise UserError(
            f"channels: the source has {source} and the unlabelled target has {target}; it must have as many"
        )


class WithUnlabelled:
    """Batches with as large a half without labels."""

    def __init__(self, labelled: Numbered, unlabelled: "ImageHalves | PatchHalves") -> None:
        self.labelled, self.unlabelled = labelled, unlabelled

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.labelled[number] | {UNLABELLED: self.unlabelled[number]}


class ImageHalves:
    """The unlabelled images (B, C, H, W) uint8 of one epoch's batches, of the sizes that ``count`` labelled rows give.

    The order is a function of (``seed``, ``epoch``); it goes on over epochs, so that every row is seen equally often.
    """

    def __init__(self, adapt: Unlabelled, *, count: int, batch: int, seed: int, epoch: int) -> None:
        store: UnlabelledImages = adapt.store
        self.images = store.images
        self.rows = epoch_order(np.asarray(adapt.rows), derived_seed(seed, UNLABELLED), epoch, count)
        self.bounds = batch_bounds(count, batch)

    def __getitem__(self, number: int) -> Tensor:
        start, end = self.bounds[number]
        return gather(self.images, self.rows[start:end])


class PatchHalves:
    """The unlabelled patches (B, C, X, Y, Z) float16 of one epoch's batches, cut anywhere."""

    def __init__(self, sampler: PatchSampler, epoch: int) -> None:
        self.sampler, self.epoch = sampler, epoch

    def __len__(self) -> int:
        return self.sampler.steps

    def __getitem__(self, number: int) -> Tensor:
        images: Tensor = self.sampler.batch(self.epoch, number)["images"]
        return images


def unlabelled_sampler(
    adapt: Unlabelled, *, patch: Sequence[int], batch: int, seed: int, steps: int | None
) -> PatchSampler:
    """Patches of cases that lie anywhere, as nobody says where a class is."""
    view = _WithoutMasks(adapt.store)
    return PatchSampler(
        view, adapt.rows, patch=patch, batch=batch, foreground=0.0, seed=derived_seed(seed, UNLABELLED), steps=steps
    )


class _WithoutMasks:
    """Cases as a sampler asks for them, with masks in which nothing is marked; they take no memory."""

    def __init__(self, cases: UnlabelledCases) -> None:
        self.cases = cases
        self.image, self.padding, self.release = cases.image, cases.padding, cases.release
        self.channels = cases.channels
        self.classes_in: Sequence[Sequence[int]] = [()] * len(cases.row_digests)

    def mask(self, row: int) -> np.ndarray:
        """(x, y, z) of zeros."""
        return np.broadcast_to(np.uint8(0), self.cases.image(row).shape[1:])

    def foreground(self, row: int, cls: int) -> np.ndarray:
        """Nowhere."""
        return np.zeros((0, 3), dtype=np.int32)
