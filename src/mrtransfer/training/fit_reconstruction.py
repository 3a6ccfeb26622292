"""Train a reconstruction network on slices of fully sampled k-space."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.augment.kspace import MRAugment
from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace import KspaceStore
from mrtransfer.models.reconstruction import ReconstructionNetwork
from mrtransfer.physics.coils import rss
from mrtransfer.physics.fourier import ifft2c
from mrtransfer.physics.masks import Sampling, apply_mask, restrict
from mrtransfer.tasks.reconstruction.crop import center_crop
from mrtransfer.tasks.reconstruction.losses import DEFAULT, build_loss
from mrtransfer.tasks.reconstruction.similarity import structural_similarity
from mrtransfer.training.engine import TrainResult, run_training
from mrtransfer.training.precision import FLOAT32, Precision, Requested, choose_device, choose_precision
from mrtransfer.training.reconstruct import columns_by_name
from mrtransfer.training.reconstructor import ReconstructionTrainee
from mrtransfer.training.slices import ReconstructionTask, check_volumes
from mrtransfer.transfer.freeze import frozen_stages, normalisation_layers
from mrtransfer.transfer.method import NetworkMethod

AGREEMENT = 0.001
"""How far from that of float32 the SSIM of a chosen number format may be."""
_PROBE_SIDE = 128  # rows and columns that a CPU compares number formats on: enough to tell them apart in seconds


def train_reconstructor(
    network: ReconstructionNetwork,
    method: NetworkMethod,
    volumes: KspaceStore,
    train_rows: np.ndarray,
    validation_rows: np.ndarray,
    *,
    sampling: Sampling,
    loss: str | Mapping[str, float] = DEFAULT,
    augment: MRAugment | None = None,
    seed: int = 0,
    folder: Path | None = None,
    precision: Precision = FLOAT32,
    device: str = "auto",
    devices: int = 1,
    profile: Path | None = None,
    checkpoint_seconds: float = 30.0,
    advance: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train ``network`` in place; it ends with the weights of the best (or last) epoch, on the CPU.

    A step sees ``method.batch`` slices (one, where that was not chosen) of one matrix and number of coils; an epoch has
    ``method.steps`` steps, by default as many as visit every slice of the training volumes once. At every visit a slice
    is augmented anew and then undersampled anew by ``sampling``. Every ``method.validate_every`` epochs the whole
    validation volumes are reconstructed under masks that their names fix; the best epoch is the one of highest SSIM
    (mean over volumes), and the last where there are no validation rows. The state before training is scored too (epoch
    0), and competes where ``method`` starts from a source's weights (``head_start: probe``, as fine_tune does).
    ``loss``: as :func:`~mrtransfer.tasks.reconstruction.losses.build_loss` takes it.
    ``folder``, ``devices``, ``profile``, ``advance`` and interruptions: as in :func:`~mrtransfer.training.fit.train`.

    Raises :class:`UserError` where the network has nothing to train or cannot take a volume, a training volume is not
    fully sampled, a validation volume has no targets, ``sampling`` does not fit their widths, a slice holds NaN, a
    setting is only for other tasks, and where training diverges.
    """
    method = method.model_copy(update={"batch": slices_per_step(method)})
    _check_method(network, method)
    task = ReconstructionTask(
        method=method,
        train=np.asarray(train_rows, dtype=np.int64),
        validation=np.asarray(validation_rows, dtype=np.int64),
        seed=seed,
        precision=precision,
        volumes=volumes,
        sampling=sampling,
        loss=build_loss(loss).weights,
        augment=augment if augment is not None and augment.active else None,
    )
    check_volumes(network, task)
    return run_training(
        ReconstructionTrainee,
        network,
        nn.Sequential(),
        task,
        folder=folder,
        device=choose_device(device),
        devices=devices,
        profile=profile,
        checkpoint_seconds=checkpoint_seconds,
        advance=advance,
    )


def slices_per_step(method: NetworkMethod) -> int:
    """``method.batch`` where it was chosen, else 1: what other tasks take by default is too much k-space."""
    return method.batch if "batch" in method.model_fields_set else 1


def _check_method(network: ReconstructionNetwork, method: NetworkMethod) -> None:
    """Raise :class:`UserError` where ``method`` does not go with reconstruction, or leaves nothing to train."""
    if not network.learns:
        raise UserError(f"network {network.name}: has nothing to train; use the method classical")
    if method.class_weights is not None:
        raise UserError("class_weights: is for classification; a reconstruction has no classes, so leave it out")
    if method.head != "linear":
        raise UserError(f"head: {method.head} is for classification; a reconstruction has no head, so leave it out")
    if len(frozen_stages(method, 0, network.stage_names)) == len(network.stages):
        raise UserError(
            f"freeze: {method.freeze} leaves nothing to train, as a reconstruction has no head; name an earlier stage, "
            "or use the method zero_shot"
        )
    if method.batch_norm == "recalibrate" and normalisation_layers(network):
        raise UserError("batch_norm: recalibrate is not for reconstruction; choose freeze or train")


def precision_for_reconstruction(
    network: ReconstructionNetwork,
    volumes: KspaceStore,
    *,
    sampling: Sampling,
    requested: Requested = "auto",
    device: str = "auto",
) -> Precision:
    """The setting in which to train ``network`` on slices of ``volumes``; as ``precision_for_training``.

    Measured on the middle slice of the first volume; a CPU sees no more than the centre of its k-space. What is chosen
    has the SSIM of float32 to :data:`AGREEMENT`: errors that a class survives are seen in an image.
    """
    device = choose_device(device)
    if not network.learns:
        return FLOAT32
    if requested != "auto":
        return choose_precision(lambda _: lambda: torch.zeros(0), requested, device)
    kspace, columns = _probe_slice(network, volumes, sampling, device)
    images: dict[str, Tensor] = {}
    chosen = choose_precision(_training_steps(network, apply_mask(kspace, columns), columns, images), "auto", device)
    target = rss(ifft2c(kspace)).cpu()
    scores = {name: structural_similarity(found, target, target.amax()).item() for name, found in images.items()}
    measured = {**chosen.measured, "ssim": {name: round(value, 6) for name, value in scores.items()}}
    agrees = abs(scores[chosen.name] - scores[FLOAT32.name]) <= AGREEMENT  # false where not a number
    return replace(chosen if agrees else FLOAT32, measured={**measured, "ssim_tolerance": AGREEMENT})


def _probe_slice(
    network: ReconstructionNetwork, volumes: KspaceStore, sampling: Sampling, device: str
) -> tuple[Tensor, Tensor]:
    """K-space (1, C, H, W) on ``device``, and the columns (1, W) of it that are to be kept."""
    volume = volumes.volume(0)
    kspace = torch.from_numpy(volume.read(volume.slices // 2, target=False).kspace)[None]
    sampled = volume.columns if volume.columns is not None else columns_by_name(sampling, volume).columns
    columns = torch.from_numpy(restrict(sampled, volume.padding))[None]
    if torch.device(device).type == "cpu":
        side = max(_PROBE_SIDE, network.smallest)
        size = min(side, volume.matrix[0]), min(side, volume.matrix[1])
        kspace, columns = center_crop(kspace, size).contiguous(), center_crop(columns[None], (1, size[1]))[0]
    return kspace.to(device), columns.to(device)


def _training_steps(
    network: ReconstructionNetwork, kspace: Tensor, columns: Tensor, images: dict[str, Tensor]
) -> Callable[[Precision], Callable[[], Tensor]]:
    """``make_step`` for :func:`choose_precision`: forward, a loss, backward of a copy of the network.

    What each setting reconstructs is kept in ``images``.
    """

    def make(precision: Precision) -> Callable[[], Tensor]:
        model = deepcopy(network).to(kspace.device, memory_format=precision.memory_format)  # type: ignore[call-overload]
        model.train().requires_grad_(True)

        def step() -> Tensor:
            with precision.autocast(kspace.device):
                found = model(kspace, columns).float()
            model.zero_grad(set_to_none=True)
            (found / found.detach().amax()).square().mean().backward()
            images[precision.name] = found.detach().cpu()
            return images[precision.name]

        return step

    return make
