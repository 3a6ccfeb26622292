"""Train a segmentation network on patches of prepared cases."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.augment.volume import VolumeAugment
from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.plan import SegmentationPlan
from mrtransfer.data.cases.store import CaseStore
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.models.segmentation import SegmentationNetwork
from mrtransfer.tasks.segmentation.outputs import by_region
from mrtransfer.training.engine import TrainResult, run_training
from mrtransfer.training.precision import (
    FLOAT32,
    Precision,
    Requested,
    choose_device,
    choose_precision,
    training_steps,
)
from mrtransfer.training.segmenter import SegmentationTask, Segmenter, check_cases
from mrtransfer.training.unlabelled import Unlabelled, check_channels
from mrtransfer.training.windows import cut
from mrtransfer.transfer.method import Adaptation, NetworkMethod

_PROBE_VOXELS = 2**18
"""In the patches that number formats are compared on: enough to tell them apart, and seconds on a CPU."""


def train_segmenter(
    network: SegmentationNetwork,
    head: nn.Module,
    method: NetworkMethod,
    cases: CaseStore,
    train_rows: np.ndarray,
    validation_rows: np.ndarray,
    *,
    plan: SegmentationPlan,
    labels: MaskLabels,
    loss: str = "dice_ce",
    augment: VolumeAugment | None = None,
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
    """Train ``network`` and ``head`` in place; they end with the weights of the best (or last) epoch, on the CPU.

    A step sees ``method.batch`` patches of ``plan.patch`` voxels; an epoch has ``method.steps`` of them, by default as
    many as visit every training case once. Every ``method.validate_every`` epochs the whole validation cases are
    segmented; the best epoch is the one of highest Dice, and the last where there are no validation rows. The state
    before training is scored too (epoch 0), and competes where ``method`` starts from a probe's or a source's head.
    ``folder``, ``devices``, ``profile``, ``advance`` and interruptions: as in :func:`~mrtransfer.training.fit.train`.
    ``adapt``: as there, unlabelled cases of the target, prepared by the same plan.

    Raises :class:`UserError` where ``method.freeze`` is no stage of the network, ``plan.patch`` does not fit it, a
    case has no mask, a setting is only for classification, where training diverges, and where ``method`` and ``adapt``
    do not go together.
    """
    network.check_patch(plan.patch)
    if method.class_weights is not None:
        raise UserError(
            "class_weights: is for classification; for segmentation choose a loss that is fair to small classes, "
            "such as dice_ce or focal_tversky"
        )
    if method.head != "linear":
        raise UserError(
            f"head: {method.head} is for classification; segmentation has a 1×1×1 convolution: leave it out"
        )
    if adapt is not None:
        check_channels(len(cases.channels), len(adapt.store.channels))
    if isinstance(method, Adaptation) and method.exclusive and by_region(loss):
        raise UserError(
            f"method {method.name}: needs classes that exclude each other, and loss {loss} has one sigmoid per region; "
            "choose dice_ce"
        )
    task = SegmentationTask(
        method=method,
        train=np.asarray(train_rows, dtype=np.int64),
        validation=np.asarray(validation_rows, dtype=np.int64),
        seed=seed,
        precision=precision,
        cases=cases,
        plan=plan,
        labels=labels,
        loss=loss,
        augment=augment,
        adapt=adapt,
    )
    check_cases(task)
    return run_training(
        Segmenter,
        network,
        head,
        task,
        folder=folder,
        device=choose_device(device),
        devices=devices,
        profile=profile,
        checkpoint_seconds=checkpoint_seconds,
        advance=advance,
    )


def precision_for_segmentation(
    network: SegmentationNetwork,
    head: nn.Module,
    cases: CaseStore,
    *,
    plan: SegmentationPlan,
    requested: Requested = "auto",
    device: str = "auto",
) -> Precision:
    """The setting in which to train these modules on patches of ``cases``; as ``precision_for_training``.

    Large patches are halved for it, as far as the network allows.
    """
    device = choose_device(device)
    if requested != "auto":
        return choose_precision(lambda _: lambda: torch.zeros(0), requested, device)
    return choose_precision(training_steps(network, head, _probe_patches(network, cases, plan), device), "auto", device)


def _probe_patches(network: SegmentationNetwork, cases: CaseStore, plan: SegmentationPlan) -> Tensor:
    """Patches (B, C, X, Y, Z) float32 from the middle of the first cases."""
    patch = list(plan.patch)
    while np.prod(patch) > _PROBE_VOXELS:
        longest = int(np.argmax(patch))
        smaller = [length // 2 if axis == longest else length for axis, length in enumerate(patch)]
        try:
            network.check_patch(smaller)
        except UserError:
            break
        patch = smaller
    count = min(max(_PROBE_VOXELS // int(np.prod(patch)), 2), plan.batch)
    patches = []
    for row in range(count):
        image = cases.image(row % len(cases))
        start = [(size - length) // 2 for size, length in zip(image.shape[1:], patch, strict=True)]
        patches.append(cut(image, start, patch, cases.padding(row % len(cases)).astype(np.float32)))
    return torch.from_numpy(np.stack(patches))
