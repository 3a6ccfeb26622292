"""Studies of segmentation: masks on volumes or images, a staged network under a 1×1×1 convolution."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mrtransfer.data.cases.store import CaseStore
from mrtransfer.data.harmonised import fit_on_cases
from mrtransfer.data.harmoniser import FittedHarmoniser, Harmoniser
from mrtransfer.data.split import Fold
from mrtransfer.models.segmentation import SegmentationNetwork, build_segmentation_network, pixel_head
from mrtransfer.study.harmonising import HarmonisingWorkshop
from mrtransfer.study.plan import Plan
from mrtransfer.study.recipe.segmentation import SegmentationArm, SegmentationRecipe
from mrtransfer.study.statistics.measures import SHARE, Measures, table_measures
from mrtransfer.study.tasks.detection import detection
from mrtransfer.study.tasks.starts import check_starts
from mrtransfer.study.tasks.volumes import Dims, Plans, VolumeDomain, open_volumes
from mrtransfer.study.tasks.whole_cases import TrainedOnVolumes, chosen_cleaning, score_subjects
from mrtransfer.study.workshop import Job, Scores
from mrtransfer.tasks.segmentation.metrics import (
    HIGHER_IS_BETTER,
    RANGES,
    SEGMENTATION_METRICS,
    WORDS,
)
from mrtransfer.tasks.segmentation.outputs import outputs
from mrtransfer.training.fit import TrainResult
from mrtransfer.training.fit_segmentation import precision_for_segmentation, train_segmenter
from mrtransfer.training.precision import Precision
from mrtransfer.training.problems import derived_seed
from mrtransfer.training.unlabelled import Unlabelled
from mrtransfer.transfer.method import NetworkMethod

Volumes = Job[SegmentationArm, VolumeDomain]


class SegmentationWorkshop(HarmonisingWorkshop[SegmentationArm, VolumeDomain, SegmentationNetwork]):
    """The tools of a segmentation study."""

    recipe: SegmentationRecipe
    target: VolumeDomain
    source: VolumeDomain | None

    def __init__(
        self,
        recipe: SegmentationRecipe,
        folder: Path,
        target: VolumeDomain,
        source: VolumeDomain | None,
        device: str = "auto",
    ) -> None:
        super().__init__(recipe, folder, target, source, device)
        self.plans = Plans(recipe, folder, target, source)

    @classmethod
    def open(cls, recipe: SegmentationRecipe, folder: Path, device: str = "auto") -> "SegmentationWorkshop":
        """Read the recipe's domains; pixels are prepared when a fold's plan is known."""
        by = recipe.target.split.by
        target = open_volumes(recipe.target, folder / "data", by)
        source = None
        if recipe.needs_source:
            assert recipe.source is not None
            source = open_volumes(recipe.source, folder / "data", by)
        return cls(recipe, folder, target, source, device)

    @property
    def measures(self) -> Measures:
        """Dice and its kin, per subject: of each region, and their means."""
        names = (*SEGMENTATION_METRICS, *self._region_metrics())
        return table_measures(
            names,
            higher_is_better={name: HIGHER_IS_BETTER[_metric(name)] for name in names},
            ranges={name: RANGES[_metric(name)] for name in names},
            words={name: _words(name) for name in names},
            units={name: "mm" if _metric(name) == "hd95" else SHARE for name in names},
        )

    def _region_metrics(self) -> list[str]:
        """The metrics of every single region, where there are several."""
        regions = self.target.mask_labels.region_names
        if len(regions) == 1:
            return []
        return [f"{region}/{metric}" for region in regions for metric in SEGMENTATION_METRICS]

    # Data

    def dims(self, arm: SegmentationArm) -> Dims:
        """2 or 3 where the arm's network says so; None where the data decide."""
        given: Dims = arm.network.options.get("dims")
        return given

    def store(self, domain: VolumeDomain, fold: int, arm: SegmentationArm) -> CaseStore:
        """The domain's pixels as the fold's plan prepares them, not harmonised."""
        return self.plans.store(domain, fold, self.dims(arm))

    def seen(self, job: Volumes, domain: VolumeDomain) -> CaseStore:
        """The pixels of ``domain`` as the job's network is shown them: harmonised, where the arm or the source is."""
        return self.plans.store(domain, job.fold, self.dims(job.arm), self.harmoniser(job, domain))

    def fit_harmoniser(self, how: Harmoniser, domain: VolumeDomain, rows: np.ndarray) -> FittedHarmoniser:
        """On scans as they lie in their files."""
        return fit_on_cases(how, domain.manifest, rows, cache=self.folder / "data" / "harmonisers")

    def defines(self, domain: VolumeDomain, fold: Fold, arm: SegmentationArm) -> dict[str, Any]:
        """Pixels, plan, mask classes, and how whole volumes are segmented."""
        return {
            "pixels": self.store(domain, fold.index, arm).content,
            "plan": self.plans.plan(domain, fold.index, self.dims(arm)).to_json(),
            "mask_labels": domain.mask_labels.to_json(),
            "inference": self.recipe.inference.model_dump(mode="json"),
            "batch": self._batch(arm, domain, fold.index),
            **self.reference(arm, fold),
        }

    def row_digests(self, domain: VolumeDomain, fold: int = 0) -> np.ndarray:
        """Digests of the pixels as the fold's plan for the first arm prepares them."""
        return self.store(domain, fold, next(iter(self.recipe.arms.values()))).row_digests

    def source_arm(self, arm: SegmentationArm) -> SegmentationArm:
        """The source's own settings, with the arm's network and loss."""
        spec = self.recipe.source
        assert spec is not None
        return SegmentationArm(
            network=arm.network, weights=spec.weights, method=spec.method, loss=arm.loss, augment=spec.augment,
            harmonise=spec.harmonise,
        )  # fmt: skip

    # Networks

    def build(self, arm: SegmentationArm, domain: VolumeDomain, fold: int, seed: int) -> SegmentationNetwork:
        """A network sized by the fold's plan, for the domain's channels."""
        plan = self.plans.plan(domain, fold, self.dims(arm))
        network = build_segmentation_network(
            arm.network.name,
            in_channels=len(self.store(domain, fold, arm).channels),
            dims=plan.dims,
            features=plan.features,
            strides=plan.strides,
            options={key: value for key, value in arm.network.options.items() if key != "dims"},
            seed=seed,
        )
        network.check_patch(plan.patch)
        return network

    def fresh_head(self, job: Volumes, network: SegmentationNetwork, record: dict[str, Any]) -> nn.Sequential:
        """The source model's head where that segments the same classes, otherwise a random one."""
        model = self.pretrained(job) if job.weights.until is None else None
        taken = (
            model is not None
            and self.same_outputs(job.arm, model.spec, job.domain)
            and model.network.features == network.features
        )
        record["head"] = "from the source model" if taken else "random"
        if taken:
            assert model is not None
            return model.head
        return pixel_head(
            network.features, outputs(job.arm.loss, job.domain.mask_labels), seed=derived_seed(job.seed, "head")
        )

    def same_outputs(self, arm: SegmentationArm, spec: dict[str, Any], domain: VolumeDomain | None = None) -> bool:
        """Whether the model was trained on the same classes with the same kind of output."""
        labels = (domain or self.target).mask_labels
        alike = spec["task"] == self.recipe.task and spec["mask_labels"]["names"] == list(labels.names)
        if alike and "region" in (arm.loss, spec["loss"]):
            return arm.loss == spec["loss"] and spec["mask_labels"]["regions"] == labels.to_json()["regions"]
        return alike

    def check_weights(self, plan: Plan) -> None:
        """As for any task; and that the source will fit the target, whatever it learns."""
        super().check_weights(plan)
        check_starts(self, plan.folds[0].index)

    def precision_key(self, arm: SegmentationArm) -> list[Any]:
        """Network, patch, batch and channels."""
        plan, store = self.plans.plan(self.target, 0, self.dims(arm)), self.store(self.target, 0, arm)
        return [arm.network.model_dump(), list(plan.patch), plan.batch, list(plan.features), len(store.channels)]

    def measure_precision(self, arm: SegmentationArm) -> tuple[dict[str, Any], Precision]:
        """A few training steps on patches in every candidate setting."""
        plan = self.plans.plan(self.target, 0, self.dims(arm))
        network = self.build(arm, self.target, 0, 0)
        head = pixel_head(network.features, outputs(arm.loss, self.target.mask_labels), seed=0)
        chosen = precision_for_segmentation(
            network, head, self.store(self.target, 0, arm), plan=plan,
            requested=self.recipe.precision, device=self.device,
        )  # fmt: skip
        return {"network": arm.network.model_dump(), "patch": list(plan.patch)}, chosen

    # Training and scores

    def fit(
        self, job: Volumes, network: SegmentationNetwork, head: nn.Sequential, precision: Precision, trace: Path | None
    ) -> TrainResult:
        """Train on patches: as many in a step as the plan says, where the method does not.

        With patches of the target beside those of the source, where the network is adapted to it.
        """
        method = job.arm.method
        assert isinstance(method, NetworkMethod)
        return train_segmenter(
            network,
            head,
            method.model_copy(update={"batch": self._batch(job.arm, job.domain, job.fold)}),
            self.seen(job, job.domain),
            job.train,
            job.validation,
            plan=self.plans.plan(job.domain, job.fold, self.dims(job.arm)),
            labels=job.domain.mask_labels,
            loss=job.arm.loss,
            augment=job.arm.augment,
            seed=job.seed,
            folder=job.checkpoints,
            precision=precision,
            device=self.device,
            devices=self.devices,
            profile=trace,
            adapt=None if job.unlabelled is None else Unlabelled(self.seen(job, self.target), job.unlabelled),
        )

    def _batch(self, arm: SegmentationArm, domain: VolumeDomain, fold: int) -> int:
        """Patches in a step: those of the arm's method, or the plan's where it does not say."""
        chosen = "batch" in arm.method.model_fields_set
        return int(arm.method.batch) if chosen else self.plans.plan(domain, fold, self.dims(arm)).batch  # type: ignore[attr-defined]

    def finish(self, trained: TrainedOnVolumes) -> None:
        """Choose on validation cases which small components to remove.

        What sees no label of the target keeps the source model's choice: validation cases of the source are not what a
        network that was adapted is good at.
        """
        job, record = trained.job, trained.record
        record["clean"] = None
        if self.recipe.inference.clean == "none":
            return
        if job.unlabelled is not None or not job.arm.method.learns:
            model = self.pretrained(job)
            assert model is not None  # the head came from it
            same = model.spec["mask_labels"]["regions"] == job.domain.mask_labels.to_json()["regions"]
            record["clean"] = model.spec["postprocess"] if same else None
        elif len(job.validation):
            cleaning = chosen_cleaning(self, trained)
            record["clean"] = cleaning.to_json() if cleaning else None

    def scores(self, trained: TrainedOnVolumes, domain: VolumeDomain, rows: np.ndarray) -> Scores:
        """One row of metrics per subject, in the place of its first case; masks and detected lesions are kept."""
        return score_subjects(self, trained, domain, rows)

    def described(
        self, arm: SegmentationArm, domain: VolumeDomain, fold: int, record: dict[str, Any]
    ) -> dict[str, Any]:
        """Plan, channels, mask classes, loss, inference, and what is cleaned away afterwards."""
        return {
            "plan": self.plans.plan(domain, fold, self.dims(arm)).to_json(),
            "channels": list(self.store(domain, fold, arm).channels),
            "mask_labels": domain.mask_labels.to_json(),
            "loss": arm.loss,
            "inference": self.recipe.inference.model_dump(mode="json"),
            "postprocess": record.get("clean"),
        }

    def findings(self, plan: Plan) -> dict[str, Any]:
        """FROC, where test subjects have lesions."""
        found = detection(self, plan)
        return {} if found is None else {"froc": found}

    def context(self, plan: Plan) -> Any:
        """Best, median and worst subjects in pictures, curves, FROC, the split, per-subject tables."""
        from mrtransfer.study.report.segmentation import build_context

        return build_context(self, plan)


def _metric(name: str) -> str:
    return name.rpartition("/")[2]


def _words(name: str) -> str:
    region, _, metric = name.rpartition("/")
    return f"{WORDS[metric]} ({region})" if region else WORDS[metric]
