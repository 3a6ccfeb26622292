"""Reconstruction: slices that are undersampled anew at every visit, and SSIM of whole volumes."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.augment.kspace import acquired, augmented
from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace import KspaceVolume
from mrtransfer.models.reconstruction import ReconstructionNetwork
from mrtransfer.physics.masks import apply_mask, restrict
from mrtransfer.tasks.reconstruction.crop import center_crop
from mrtransfer.tasks.reconstruction.losses import build_loss
from mrtransfer.tasks.reconstruction.metrics import psnr, ssim
from mrtransfer.tasks.reconstruction.similarity import structural_similarity
from mrtransfer.training.batches import Prefetched
from mrtransfer.training.module import Progress, Trainee
from mrtransfer.training.profile import AUGMENT
from mrtransfer.training.reconstruct import columns_by_name, reconstructed
from mrtransfer.training.slices import EpochSlices, ReconstructionTask, SliceBatches


class ReconstructionTrainee(Trainee):
    """A network that learns to reconstruct; the best epoch is the one of highest validation SSIM.

    ``head`` is empty: a reconstruction network gives images. SSIM in training is that of single slices with the data
    range of their volumes; in validation it is that of whole volumes, and its mean over volumes is what counts.
    """

    training_columns = ("train_loss", "train_ssim")
    network: ReconstructionNetwork
    task: ReconstructionTask

    def __init__(
        self,
        network: ReconstructionNetwork,
        head: nn.Module,
        task: ReconstructionTask,
        progress: Progress,
        **options: Any,
    ) -> None:
        super().__init__(network, head, task, progress, **options)
        self.loss = build_loss(task.loss)
        self.slices = SliceBatches(task.volumes, task.train, task.method.batch, task.seed)
        self.steps = task.method.steps or len(self.slices)
        self.part.check_batch(task.method.batch)

    def train_dataloader(self) -> Iterable[dict[str, Any]]:
        """This epoch's slices."""
        return Prefetched(EpochSlices(self.task, self.slices, self.steps, self.epoch, self.part), self.note_reading)

    def val_dataloader(self) -> list[int]:
        """This process's validation volumes; -1 for none."""
        return self.part.deal(self.task.validation.tolist()) if self.validates else []

    def plain_inputs(self) -> Iterator[Tensor]:
        """Nothing: reconstruction networks with running statistics to estimate are refused before."""
        return iter(())

    def forward(self, kspace: Tensor, columns: Tensor, centre: Tensor) -> Tensor:
        """Magnitudes (N, H, W) float32 of undersampled k-space (N, C, H, W)."""
        with self.task.precision.autocast(kspace.device):
            images: Tensor = self.network(kspace, columns, centre)
        return images.float()

    def step_loss(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss of undersampled slices; sums of loss, SSIM and slices."""
        count = len(batch["images"])
        if count == 0:
            return self._idle_loss(), torch.zeros(3, dtype=torch.float64, device=self.device)
        with self.measured(AUGMENT):
            kspace, columns, targets, max_values = self._undersampled(batch)
        images = center_crop(self(kspace, columns, batch["centre"]), batch["crop"])
        loss = self.loss(images, targets, max_values)
        with torch.no_grad():
            similarity = structural_similarity(images, targets, max_values).double().sum()
            return loss, torch.stack([loss.double() * count, similarity, similarity.new_tensor(count)])

    def _idle_loss(self) -> Tensor:
        """0, for a process whose part of a last, smaller batch is empty: the others wait for its gradients."""
        return torch.stack([value.sum() for value in self.network.parameters() if value.requires_grad]).sum() * 0

    def _undersampled(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """K-space (n, C, H, W), columns (n, W), targets (n, h, w), data ranges (n,); first augmented, then masked."""
        kspace, max_values, windows = batch["images"], batch["max_values"], batch["padding"]
        augment = self.task.augment
        if augment is None:
            targets = batch["targets"]
        else:
            strength = augment.probability(self.epoch, self.task.method.epochs)
            params = augment.sample_each(batch["seeds"], kspace.shape[-2:], strength)
            kspace, targets, ranges = augmented(kspace, params, batch["crop"], max_value=max_values)
            max_values = torch.where(ranges > 0, ranges, max_values)  # all that was bright may have left the crop
            windows = acquired(params, windows, kspace.shape[-1])
        kept = [restrict(columns, window) for columns, window in zip(batch["columns"], windows, strict=True)]
        columns = torch.from_numpy(np.stack(kept)).to(kspace.device)
        return apply_mask(kspace, columns), columns, targets, max_values

    def training_scores(self, sums: Tensor) -> dict[str, float]:
        """Loss and SSIM of the epoch's augmented slices, as they were when each was seen."""
        loss, similarity, count = sums.tolist()
        return {"train_loss": loss / count, "train_ssim": similarity / count}

    def validation_part(self, batch: Any) -> Tensor:
        """Sums of one whole volume: its mean loss over slices, its SSIM and PSNR, and 1."""
        row = int(batch)
        if row < 0:
            return torch.zeros(4, dtype=torch.float64, device=self.device)
        volume = self.task.volumes.volume(row)
        images, targets = self._reconstructed(volume)
        largest = float(volume.max_value or 0)
        loss = self.loss(images, targets, images.new_full((len(images),), largest))
        scores = torch.stack([ssim(images, targets, largest), psnr(images, targets, largest)])
        return torch.cat([loss.double()[None], scores.double(), scores.new_ones(1).double()])

    def _reconstructed(self, volume: KspaceVolume) -> tuple[Tensor, Tensor]:
        """Images and targets (S, h, w) of a volume under the mask that its name fixes."""
        drawn = columns_by_name(self.task.sampling, volume) if volume.fully_sampled else None
        images, targets = [], []
        for found, wanted in reconstructed(
            self.network,
            volume,
            columns_of=None if drawn is None else lambda _: drawn,
            precision=self.task.precision,
            device=self.device,
            batch=self.task.method.batch,
            targets=True,
        ):
            assert wanted is not None  # checked before training
            images.append(found)
            targets.append(wanted)
        return torch.cat(images), torch.cat(targets)

    def validation_scores(self) -> dict[str, float | None]:
        """Loss, SSIM and PSNR, each the mean over the validation volumes."""
        names = ("validation_loss", "validation_ssim", "validation_psnr")
        if self.validation_sums is None:
            return dict.fromkeys(names)
        *sums, count = self.validation_sums.tolist()
        if not math.isfinite(sums[0]):
            when = f"training diverged in epoch {self.epoch}" if self.epoch else "before training"
            raise UserError(f"{when}: the validation images are not numbers; lower the rate, or give other weights")
        return {name: value / count for name, value in zip(names, sums, strict=True)}

    def score(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """Minus the validation SSIM; the loss, where that is equal."""
        if row["validation_ssim"] is None:
            return (math.inf,)
        return -float(row["validation_ssim"]), float(row["validation_loss"])
