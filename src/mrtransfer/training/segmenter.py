"""Segmentation: patches of volumes and their masks, any of the losses, Dice of whole cases."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mrtransfer.augment.volume import VolumeAugment
from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.patches import PatchSampler
from mrtransfer.data.cases.plan import SegmentationPlan
from mrtransfer.data.cases.store import CaseStore
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.models.segmentation import SegmentationNetwork
from mrtransfer.tasks.segmentation.losses import build_loss
from mrtransfer.tasks.segmentation.outputs import by_region, region_counts
from mrtransfer.training.batches import Numbered, Prefetched
from mrtransfer.training.module import Progress, Task, Trainee
from mrtransfer.training.part import ALONE, Part
from mrtransfer.training.problems import derived_seed
from mrtransfer.training.profile import AUGMENT
from mrtransfer.training.sliding import predict_case
from mrtransfer.training.unlabelled import UNLABELLED, PatchHalves, WithUnlabelled, unlabelled_sampler
from mrtransfer.transfer.method import Adaptation

_LEAST = 1e-7  # probabilities are kept this far from 0 and 1, so that their logits are finite


@dataclass(frozen=True)
class SegmentationTask(Task):
    """What a segmenter learns from: prepared cases, and the plan that says how patches are cut from them."""

    cases: CaseStore
    plan: SegmentationPlan
    labels: MaskLabels
    loss: str
    augment: VolumeAugment | None

    def describe(self) -> dict[str, Any]:
        """Voxels, plan, classes, loss, augmentation."""
        return {
            "cases": self.cases.content,
            "plan": self.plan.to_json(),
            "mask_labels": self.labels.to_json(),
            "loss": self.loss,
            "augment": self.augment.model_dump() if self.augment is not None else None,
        }

    def sampler(self) -> PatchSampler:
        """The training patches of every epoch."""
        return PatchSampler(
            self.cases,
            self.train,
            patch=self.plan.patch,
            batch=self.method.batch,
            foreground=self.plan.foreground,
            seed=derived_seed(self.seed, "patches"),
            steps=self.method.steps,
        )

    def unlabelled(self, steps: int | None) -> PatchSampler:
        """The unlabelled patches of every epoch of ``steps``; by default one visit to every case."""
        assert self.adapt is not None
        return unlabelled_sampler(
            self.adapt, patch=self.plan.patch, batch=self.method.batch, seed=self.seed, steps=steps
        )


class EpochPatches:
    """The batches of one epoch of a sampler, or one process's part of each."""

    def __init__(self, sampler: PatchSampler, epoch: int, part: Part = ALONE) -> None:
        self.sampler, self.epoch = sampler.part(part.rank, part.world), epoch
        self.place = {"first": part.share(sampler.size).start, "size": sampler.size}

    def __len__(self) -> int:
        return self.sampler.steps

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.sampler.batch(self.epoch, number) | self.place


class Segmenter(Trainee):
    """Network and head that tell the class of every voxel; the best epoch is the one of highest validation Dice.

    Dice is the mean over the scored regions, of voxels pooled over all patches of the epoch, or over all validation
    cases; a region that is in neither reference nor prediction has 1.
    """

    training_columns = ("train_loss", "train_dice", "train_accuracy")
    task: SegmentationTask

    def __init__(
        self, network: SegmentationNetwork, head: nn.Module, task: SegmentationTask, progress: Progress, **options: Any
    ) -> None:
        super().__init__(network, head, task, progress, **options)
        self.loss = build_loss(task.loss, task.labels)
        self.sampler = task.sampler()
        self.steps = self.sampler.steps
        spacing = task.plan.spacing or (1.0, 1.0, 1.0)
        self.spacing = tuple(float(size) for size in spacing)

    def train_dataloader(self) -> Iterable[dict[str, Any]]:
        """This epoch's patches."""
        patches: Numbered = EpochPatches(self.sampler, self.epoch, self.part)
        if self.task.adapt is not None:
            patches = WithUnlabelled(patches, PatchHalves(self.task.unlabelled(self.steps), self.epoch))
        return Prefetched(patches, self.note_reading)

    def val_dataloader(self) -> list[int]:
        """This process's validation cases; -1 for none."""
        return self.part.deal(self.task.validation.tolist()) if self.validates else []

    def plain_inputs(self) -> Iterator[Tensor]:
        """The patches of one pass over the training cases, or the unlabelled ones."""
        sampler = self.sampler if self.task.adapt is None else self.task.unlabelled(self.task.method.steps)
        for batch in Prefetched(EpochPatches(sampler, 0)):
            yield self.task.precision.lay_out(batch["images"].to(self.device).float())

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K, X, Y, Z) float32 of patches (N, C, X, Y, Z)."""
        return self._answers(images)[1]

    def _answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The last feature maps (N, F, X, Y, Z) as they are, and logits (N, K, X, Y, Z) float32."""
        inputs = self.task.precision.lay_out(images)
        with self.task.precision.autocast(inputs.device):
            maps = self.network(inputs)
            return maps, self.head(maps).float()

    def step_loss(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss of augmented patches, with what an adaptation adds, and what the epoch's sums grow by.

        These are sums of loss, patches, right and all voxels, and the counts of each region.
        """
        with self.measured(AUGMENT):
            images, masks = self._augmented(batch["images"].float(), batch["masks"], batch, "augment")
        with self.source_statistics():
            maps, logits = self._answers(images)
        loss = self.loss(logits, masks)
        with torch.no_grad():
            sums = self._sums(loss.detach(), logits.detach(), masks)
        if self.task.adapt is None:
            return loss, sums
        return self.adapted(loss, self._drawn(maps, batch, "voxels"), batch), sums

    def unlabelled_rows(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Features and logits of voxels drawn from the unlabelled patches, augmented as the labelled ones are.

        Features are the last maps, which every segmentation network has and all its layers contribute to; bringing only
        the lowest level's together would leave what passes by it, through the skip connections, as it is.
        """
        images = batch[UNLABELLED].float()
        nothing = torch.zeros((len(images), *images.shape[2:]), dtype=torch.uint8, device=images.device)
        with self.measured(AUGMENT):
            images, _ = self._augmented(images, nothing, batch, "augment unlabelled")
        maps, logits = self._answers(images)
        return tuple(self._drawn(values, batch, "unlabelled voxels") for values in (maps, logits))  # type: ignore[return-value]

    def _drawn(self, maps: Tensor, batch: dict[str, Any], purpose: str) -> Tensor:
        """Values (N · k, F) float32 of voxels of maps (N, F, X, Y, Z): the same places for the same ``purpose``."""
        assert isinstance(self.task.method, Adaptation)
        flat = maps.flatten(2)
        random = np.random.default_rng(derived_seed(self.task.seed, purpose, self.epoch, int(batch["number"])))
        number = min(self.task.method.voxels, flat.shape[2])
        places = np.stack([random.choice(flat.shape[2], number, replace=False, shuffle=False) for _ in flat])
        index = torch.from_numpy(places).to(maps.device)[:, None].expand(-1, flat.shape[1], -1)
        return flat.gather(2, index).movedim(1, 2).flatten(0, 1).float()

    def _augmented(self, images: Tensor, masks: Tensor, batch: dict[str, Any], purpose: str) -> tuple[Tensor, Tensor]:
        augment = self.task.augment
        if augment is None or not augment.active:
            return images, masks
        seed = derived_seed(self.task.seed, purpose, self.epoch, int(batch["number"]))
        params = augment.sample(batch["size"], torch.Generator().manual_seed(seed), images.shape[1])
        own = slice(batch["first"], batch["first"] + len(images))
        least = images.amin(dim=(2, 3, 4))
        cut_out = torch.tensor([name == "zscore_nonzero" for name in self.task.plan.normalise], device=images.device)
        outside = torch.where(cut_out, torch.zeros_like(least), least)
        return augment.apply(images, masks, params.take(own), spacing=self.spacing, outside=outside)

    def _sums(self, loss: Tensor, logits: Tensor, masks: Tensor) -> Tensor:
        tally = _tally_regions if by_region(self.task.loss) else _tally_classes
        counts, right = tally(logits, masks, self.task.labels)
        head = [loss.double() * len(masks), right.new_tensor(len(masks)), right.new_tensor(masks.numel()), right]
        return torch.cat([torch.stack(head), counts.flatten()])

    def _scores(self, sums: Tensor) -> dict[str, float]:
        loss, samples, voxels, right, *counts = sums.tolist()
        dice = [
            2 * both / max(2 * both + predicted + reference, 1) if both + predicted + reference else 1.0
            for both, predicted, reference in np.reshape(counts, (-1, 3)).tolist()
        ]
        return {"loss": loss / samples, "dice": float(np.mean(dice)), "accuracy": right / voxels}

    def training_scores(self, sums: Tensor) -> dict[str, float]:
        """Loss, Dice and voxel accuracy over the epoch's augmented patches, as they were when each was seen."""
        return {f"train_{name}": value for name, value in self._scores(sums).items()}

    def validation_part(self, batch: Any) -> Tensor:
        """Sums of one whole case, from windows that do not overlap."""
        row = int(batch)
        if row < 0:
            return torch.zeros(4 + 3 * len(self.task.labels.regions), dtype=torch.float64, device=self.device)
        probabilities = predict_case(
            self.network,
            self.head,
            self.task.cases.image(row),
            plan=self.task.plan,
            loss=self.task.loss,
            precision=self.task.precision,
            device=self.device,
            overlap=0.0,
        )
        found = torch.from_numpy(np.asarray(probabilities))[None].to(self.device)
        # The sigmoid or softmax of these gives the probabilities again.
        logits = torch.logit(found, _LEAST) if by_region(self.task.loss) else found.clamp_min(_LEAST).log()
        mask = self.task.cases.mask(row)
        assert mask is not None  # checked before training
        masks = torch.from_numpy(np.array(mask))[None].to(self.device)
        return self._sums(self.loss(logits, masks), logits, masks)

    def validation_scores(self) -> dict[str, float | None]:
        """Mean loss of the validation cases, Dice of all of them, and voxel accuracy."""
        if self.validation_sums is None:
            return {"validation_loss": None, "validation_dice": None, "validation_accuracy": None}
        return {f"validation_{name}": value for name, value in self._scores(self.validation_sums).items()}

    def score(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """Minus the validation Dice; where that is equal, as long as few subjects have nothing found, the loss."""
        if row["validation_dice"] is None:
            return (math.inf,)
        return -float(row["validation_dice"]), float(row["validation_loss"])


def _tally_classes(logits: Tensor, masks: Tensor, labels: MaskLabels) -> tuple[Tensor, Tensor]:
    """Voxels of each region (R, 3): in both, predicted only, reference only; and voxels of the right class; float64."""
    number = len(labels.names)
    pairs = torch.bincount((masks.long() * number + logits.argmax(dim=1)).flatten(), minlength=number * number)
    table = pairs.reshape(number, number).double()  # reference × predicted
    member = torch.from_numpy(labels.membership).to(table)
    both = torch.einsum("rt,tp,rp->r", member, table, member)
    return torch.stack([both, member @ table.sum(0) - both, member @ table.sum(1) - both], dim=1), table.trace()


def _tally_regions(logits: Tensor, masks: Tensor, labels: MaskLabels) -> tuple[Tensor, Tensor]:
    """The same for one sigmoid per region; a voxel is right where all its regions are."""
    counts = region_counts(logits, masks, "region", labels).sum(dim=0).double()
    there = torch.from_numpy(labels.membership).to(logits.device)[:, masks.long()].transpose(0, 1)
    return counts, ((logits > 0) == there).all(dim=1).sum().double()


def check_cases(task: SegmentationTask) -> None:
    """Raise :class:`UserError` where a training or validation case has no mask."""
    for rows, kind in ((task.train, "training"), (task.validation, "validation")):
        missing = [int(row) for row in rows if task.cases.mask(int(row)) is None]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(rows)} {kind} cases have no mask (the first is case {missing[0]} of its "
                "table); leave them out, or add their masks"
            )
