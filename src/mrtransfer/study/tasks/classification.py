"""Studies of classification: one label per image, a network's pooled features under a head."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.data.audit import audit
from mrtransfer.data.harmonised import fit_on_images, harmonised_images
from mrtransfer.data.harmoniser import FittedHarmoniser, Harmoniser
from mrtransfer.data.masks import PreparedMasks, open_masks
from mrtransfer.data.split import Fold, units
from mrtransfer.data.store import Store, open_store
from mrtransfer.models.features import feature_matrix
from mrtransfer.models.network import Backbone, build_network
from mrtransfer.study.domain import Domain, read_dataset
from mrtransfer.study.harmonising import HarmonisingWorkshop
from mrtransfer.study.outcome import curves_of, load_outcome
from mrtransfer.study.plan import Plan, Run
from mrtransfer.study.probes import fit_heads, probe_all
from mrtransfer.study.recipe import Budget, ClassificationArm, ClassificationRecipe, DatasetSpec, InputSpec
from mrtransfer.study.report import ReportContext, build_context
from mrtransfer.study.report.localisation import heat_pictures
from mrtransfer.study.statistics.measures import CLASSIFICATION, Measures
from mrtransfer.study.tasks.localisation import localisation, look
from mrtransfer.study.tasks.starts import check_adaptation
from mrtransfer.study.workshop import Advance, Job, Scores, Trained
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.training.fit import TrainResult, predict, train
from mrtransfer.training.linear_probes import fit_linear_probes
from mrtransfer.training.precision import Precision, choose_device, precision_for_training
from mrtransfer.training.problems import Problem, derived_seed
from mrtransfer.training.unlabelled import Unlabelled
from mrtransfer.transfer.method import NetworkMethod
from mrtransfer.transfer.methods.linear_probe import LinearProbe

_PROBE_BATCH = 32


@dataclass(frozen=True)
class ImageDomain(Domain):
    """Images with one label each, decoded once."""

    store: Store


Images = Job[ClassificationArm, ImageDomain]


class ClassificationWorkshop(HarmonisingWorkshop[ClassificationArm, ImageDomain, Backbone]):
    """The tools of a classification study."""

    recipe: ClassificationRecipe
    target: ImageDomain
    source: ImageDomain | None

    @classmethod
    def open(cls, recipe: ClassificationRecipe, folder: Path, device: str = "auto") -> "ClassificationWorkshop":
        """Read, audit and decode the recipe's domains."""
        by = recipe.target.split.by
        target = open_images(recipe.target, recipe.input, folder / "data", by)
        source = None
        if recipe.needs_source:
            assert recipe.source is not None
            source = open_images(recipe.source, recipe.input, folder / "data", by)
        return cls(recipe, folder, target, source, device)

    @cached_property
    def unit(self) -> str:  # type: ignore[override]
        """Subjects where they are known, otherwise images or groups of copies."""
        return "subject" if self.target.manifest.table["subject"].notna().any() else "image"

    @property
    def measures(self) -> Measures:
        """Accuracy and its kin, of probabilities."""
        return CLASSIFICATION

    def defines(self, domain: ImageDomain, fold: Fold, arm: ClassificationArm) -> dict[str, Any]:
        """Pixels, labels, classes and channels."""
        return {
            "pixels": domain.store.content,
            "labels": domain.labels.tolist(),
            "classes": list(domain.manifest.classes),
            "channels": self.recipe.input.channels,
            **self.reference(arm, fold),
        }

    def fit_harmoniser(self, how: Harmoniser, domain: ImageDomain, rows: np.ndarray) -> FittedHarmoniser:
        """On stored pixels, each image by itself, as new images are seen when the model is used."""
        return fit_on_images(how, domain.store, rows)

    def seen(self, job: Images, domain: ImageDomain) -> Store:
        """The pixels of ``domain`` as the job's network is shown them: harmonised, where the arm or the source is."""
        fitted = self.harmoniser(job, domain)
        if fitted is None:
            return domain.store
        return harmonised_images(domain.store, fitted, self.folder / "data" / "harmonised")

    @cached_property
    def masks(self) -> PreparedMasks | None:
        """The target's masks on the grid of its images; None where it has none."""
        seen = self.recipe.input
        return open_masks(self.target.manifest, size=seen.size, fit=seen.fit, directory=self.folder / "data" / "masks")

    def asks(self, budget: Budget) -> dict[str, Any]:
        """At the largest budget, where there are masks: where does the network look?"""
        asked = budget == self.recipe.budgets[-1] and self.masks is not None and self.masks.filled.any()
        return {"where": self.masks.content} if asked and self.masks is not None else {}

    def row_digests(self, domain: ImageDomain, fold: int = 0) -> np.ndarray:
        """Digests of the stored pixels, the same for all folds."""
        return domain.store.row_digests

    def source_arm(self, arm: ClassificationArm) -> ClassificationArm:
        """The source's own settings; the images look as to the arm."""
        spec = self.recipe.source
        assert spec is not None
        return ClassificationArm(
            network=arm.network, weights=spec.weights, method=spec.method, normalise=arm.normalise,
            augment=spec.augment, harmonise=spec.harmonise,
        )  # fmt: skip

    def input_of(self, arm: ClassificationArm) -> dict[str, Any]:
        """How the network of ``arm`` sees the stored pixels."""
        return {"channels": self.recipe.input.channels, "normalise": arm.normalise}

    def precision_key(self, arm: ClassificationArm) -> list[Any]:
        """Network and size of its input."""
        return [arm.network.model_dump(), self.recipe.input.size, self.recipe.input.channels]

    def measure_precision(self, arm: ClassificationArm) -> tuple[dict[str, Any], Precision]:
        """A few training steps in every candidate setting."""
        network = self.build(arm, self.target, 0, 0)
        head = build_head("linear", network.features, len(self.target.manifest.classes))
        chosen = precision_for_training(
            network, head, self.target.store.images,
            input=self.input_of(arm), batch=_PROBE_BATCH, requested=self.recipe.precision, device=self.device,
        )  # fmt: skip
        return {"network": arm.network.model_dump(), "size": self.recipe.input.size}, chosen

    def build(self, arm: ClassificationArm, domain: ImageDomain, fold: int, seed: int) -> Backbone:
        """The arm's network without classifier; it does not depend on the fold."""
        return build_network(
            arm.network.name, in_channels=self.recipe.input.channels, until=arm.network.until, seed=seed
        )

    def features(
        self,
        arm: ClassificationArm,
        network: Backbone,
        domain: ImageDomain | None = None,
        *,
        store: Store | None = None,
    ) -> np.ndarray:
        """(V, N, D) pooled features of every image of the target (or ``domain``): one pass, kept on disk.

        ``store``: the domain's pixels as the arm is shown them (:meth:`seen`), where that is not as they are. With
        horizontal flips there are two views of every image.
        """
        precision = self.precision(arm)
        return feature_matrix(
            network,
            store or (domain or self.target).store,
            normalise=arm.normalise,
            precision=precision.dtype,
            channels_last=precision.channels_last,
            cache=self.folder / "features",
            device=choose_device(self.device),
            views=("plain", "hflip") if arm.augment.hflip and arm.method.cached else ("plain",),
        )

    def fresh_head(self, job: Images, network: Backbone, record: dict[str, Any]) -> nn.Sequential:
        """A linear probe of the initial features where the method wants one, otherwise random."""
        method, classes = job.arm.method, len(job.domain.manifest.classes)
        assert isinstance(method, NetworkMethod)
        if not method.starts_from_probe:
            return build_head(
                method.head, network.features, classes,
                hidden=method.hidden, dropout=method.dropout, seed=derived_seed(job.seed, "head"),
            )  # fmt: skip
        problem = Problem(job.train, job.validation, job.seed)
        features = self.features(job.arm, network, store=self.seen(job, job.domain))
        probe = fit_linear_probes(
            features, job.domain.labels, [problem], LinearProbe().l2, classes, class_weights=method.class_weights
        )[0]
        record["probe"] = {"l2": probe.l2, "validation": probe.validation}
        return probe.head()

    def fit(
        self, job: Images, network: Backbone, head: nn.Sequential, precision: Precision, trace: Path | None
    ) -> TrainResult:
        """Train on augmented images; with images of the target beside them, where the network is adapted to it."""
        assert isinstance(job.arm.method, NetworkMethod), f"{job.arm.method.name} does not train the network"
        return train(
            network,
            head,
            job.arm.method,
            self.seen(job, job.domain),
            job.domain.labels,
            job.train,
            job.validation,
            input=self.input_of(job.arm),
            augment=job.arm.augment,
            seed=job.seed,
            folder=job.checkpoints,
            precision=precision,
            device=self.device,
            devices=self.devices,
            profile=trace,
            adapt=None if job.unlabelled is None else Unlabelled(self.seen(job, self.target), job.unlabelled),
        )

    def scores(
        self, trained: Trained[ClassificationArm, ImageDomain, Backbone], domain: ImageDomain, rows: np.ndarray
    ) -> Scores:
        """Probabilities (n, classes) float32."""
        probabilities = predict(
            trained.network, trained.head, self.seen(trained.job, domain), rows,
            input=self.input_of(trained.job.arm), precision=trained.precision, device=self.device,
        )  # fmt: skip
        return Scores(rows, probabilities)

    def described(
        self, arm: ClassificationArm, domain: ImageDomain, fold: int, record: dict[str, Any]
    ) -> dict[str, Any]:
        """Classes, size, fit and normalisation."""
        return {
            "classes": list(domain.manifest.classes),
            "size": self.recipe.input.size,
            "fit": self.recipe.input.fit,
            "input": self.input_of(arm),
        }

    def same_outputs(self, arm: ClassificationArm, spec: dict[str, Any]) -> bool:
        """Whether the model was trained on the target's classes."""
        return spec["task"] == self.recipe.task and spec["classes"] == list(self.target.manifest.classes)

    def do_together(self, runs: list[Run], missing: set[str], advance: Advance) -> bool:
        """On frozen features: one pass of each distinct network, then all heads together."""
        if runs[0].spec.method.cached:
            probe_all(runs, missing, self, advance)
        return bool(runs[0].spec.method.cached)

    def illustrate(
        self, runs: Sequence[Run], network: Backbone, heads: Sequence[nn.Sequential]
    ) -> list[dict[str, Any]]:
        """Where the network sees what the test images show."""
        return look(self, runs, network, heads)

    def findings(self, plan: Plan) -> dict[str, Any]:
        """Localisation, where there are masks."""
        found = localisation(self, plan)
        return {} if found is None else {"localisation": found}

    def check_weights(self, plan: Plan) -> None:
        """As for any task; and that arms which adapt can, whatever the source learns."""
        super().check_weights(plan)
        for name, arm in self.recipe.arms.items():
            check_adaptation(self, name, arm, plan.folds[0].index)

    def make_model(self, run: Run, job: Images, folder: Path, record: dict[str, Any]) -> None:
        """As for any task; of a method on frozen features only the head is fitted."""
        if not run.spec.method.cached:
            return super().make_model(run, job, folder, record)
        network, _ = self.initial(run.spec, run.weights, run.source, self.target, run.fold, run.seed)
        features = self.features(run.spec, network, store=self.seen(job, self.target))
        head = fit_heads([run], features, self)[0].head()
        return self.save(folder, job, network, head, record)

    def context(self, plan: Plan) -> ReportContext:
        """Examples, wrong cases, curves, confusion, ROC, calibration, heat maps."""
        target = self.target
        context = build_context(
            [load_outcome(self.folder, run) for run in plan.runs],
            target.labels,
            classes=target.manifest.classes,
            samples=target.manifest.table["sample"].tolist(),
            images=target.store.images,
            curves=curves_of(plan, self),
            audit_pairs=target.audit_pairs,
            units=target.units,
        )
        context.heat_arm, context.heat_pictures = heat_pictures(self, plan)
        return context


def open_images(spec: DatasetSpec, seen: InputSpec, folder: Path, by: tuple[str, ...]) -> ImageDomain:
    """Read, audit and decode a domain once; what was computed before is found again in ``folder``."""
    manifest = read_dataset(spec)
    if spec.labels:
        manifest = manifest.map_labels(spec.labels)
    labelled = np.flatnonzero(manifest.labels >= 0)
    if len(labelled) < len(manifest):
        manifest = manifest.take(labelled)
    if len(manifest.classes) < 2 or len(set(manifest.labels.tolist())) < 2:
        found = ", ".join(manifest.classes) or "none"
        raise UserError(
            f"dataset {spec.dataset} at {spec.path}: classification needs two classes or more, found: {found}"
        )
    findings, pairs = None, []
    if not str(manifest.locations(0)[0]).startswith("phantom:"):
        report = audit(manifest, cache=folder / "audit")
        findings, pairs = report.to_json(), report.pairs
        manifest = manifest.with_groups(report.groups)
    store = open_store(manifest, size=seen.size, fit=seen.fit, directory=folder / "pixels")
    return ImageDomain(manifest, manifest.labels, units(manifest, by=by), findings, pairs, store)
