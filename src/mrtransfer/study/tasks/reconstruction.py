"""Studies of reconstruction: k-space that the recipe's masks undersample, and what finds the image behind it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mrtransfer.data.split import Fold
from mrtransfer.models.reconstruction import ReconstructionNetwork, build_reconstruction_network
from mrtransfer.study.plan import Plan, Run
from mrtransfer.study.recipe import Budget
from mrtransfer.study.recipe.reconstruction import AS_ARM, ReconstructionArm, ReconstructionRecipe
from mrtransfer.study.statistics.measures import Measures, table_measures
from mrtransfer.study.tasks.kspace import KspaceDomain, open_volumes
from mrtransfer.study.tasks.starts import check_stages, check_takes_source
from mrtransfer.study.tasks.whole_volumes import TrainedOnKspace, kept_slices, score_volumes, try_out
from mrtransfer.study.workshop import Job, Scores, Workshop
from mrtransfer.tasks.reconstruction.metrics import HIGHER_IS_BETTER, RANGES, RECONSTRUCTION_METRICS, UNITS, WORDS
from mrtransfer.training.fit import TrainResult
from mrtransfer.training.fit_reconstruction import precision_for_reconstruction, train_reconstructor
from mrtransfer.training.precision import Precision
from mrtransfer.training.reconstruct import check_volume
from mrtransfer.transfer.method import NetworkMethod

KspaceJob = Job[ReconstructionArm, KspaceDomain]


class ReconstructionWorkshop(Workshop[ReconstructionArm, KspaceDomain, ReconstructionNetwork]):
    """The tools of a reconstruction study. Heads are empty: a reconstruction network gives images."""

    recipe: ReconstructionRecipe
    target: KspaceDomain
    source: KspaceDomain | None

    @classmethod
    def open(cls, recipe: ReconstructionRecipe, folder: Path, device: str = "auto") -> "ReconstructionWorkshop":
        """Read the recipe's domains; k-space is read by slice when it is needed."""
        by = recipe.target.split.by
        target = open_volumes(recipe.target, recipe.sampling, folder / "data", by)
        source = None
        if recipe.needs_source:
            assert recipe.source is not None
            source = open_volumes(recipe.source, recipe.sampling, folder / "data", by)
        return cls(recipe, folder, target, source, device)

    @property
    def unit(self) -> str:  # type: ignore[override]
        """Volumes, where no subject has several."""
        return "volume" if len(np.unique(self.target.units)) == len(self.target.units) else "subject"

    @property
    def measures(self) -> Measures:
        """SSIM, PSNR and NMSE per volume: means over accelerations, and where there are several each (``4x/ssim``)."""
        names = (*RECONSTRUCTION_METRICS, *self._by_acceleration())
        return table_measures(
            names,
            higher_is_better={name: HIGHER_IS_BETTER[_metric(name)] for name in names},
            ranges={name: RANGES[_metric(name)] for name in names},
            words={name: _words(name) for name in names},
            units={name: UNITS[_metric(name)] for name in names if _metric(name) in UNITS},
        )

    def _by_acceleration(self) -> list[str]:
        accelerations = self.recipe.sampling.acceleration
        if len(accelerations) == 1:
            return []
        return [f"{value:g}x/{metric}" for value in accelerations for metric in RECONSTRUCTION_METRICS]

    # Data

    def defines(self, domain: KspaceDomain, fold: Fold, arm: ReconstructionArm) -> dict[str, Any]:
        """K-space, targets, the names that masks are drawn by, and how k-space is undersampled."""
        return {
            "kspace": domain.store.content,
            "names": domain.names,
            "sampling": self.recipe.sampling.model_dump(mode="json"),
        }

    def asks(self, budget: Budget) -> dict[str, Any]:
        """At the largest budget: slices for the report's pictures."""
        return {"slices": "middle"} if budget == self.recipe.budgets[-1] else {}

    def row_digests(self, domain: KspaceDomain, fold: int = 0) -> np.ndarray:
        """Digests of the volumes' k-space, the same for all folds."""
        return domain.store.row_digests

    def source_arm(self, arm: ReconstructionArm) -> ReconstructionArm:
        """The source's own settings, with the arm's network and loss; and its augmentation, unless the source says."""
        spec = self.recipe.source
        assert spec is not None
        augment = arm.augment if spec.augment == AS_ARM else spec.augment
        return ReconstructionArm(
            network=arm.network, weights=spec.weights, method=spec.method, loss=arm.loss, augment=augment
        )

    # Networks

    def build(self, arm: ReconstructionArm, domain: KspaceDomain, fold: int, seed: int) -> ReconstructionNetwork:
        """The arm's network; :class:`UserError` that names the first volume of ``domain`` that it cannot take."""
        network = build_reconstruction_network(arm.network.name, options=arm.network.options, seed=seed)
        for row in range(len(domain.store)):
            check_volume(network, domain.store.volume(row))
        return network

    def fresh_head(self, job: KspaceJob, network: ReconstructionNetwork, record: dict[str, Any]) -> nn.Sequential:
        """Nothing."""
        return nn.Sequential()

    def head_as_it_is(self, job: KspaceJob) -> nn.Sequential:
        """Nothing: what has no parameters, or has a trained model's, is ready, from whatever file these came."""
        return nn.Sequential()

    def same_outputs(self, arm: ReconstructionArm, spec: dict[str, Any]) -> bool:
        """Whether the model gives images at all."""
        return bool(spec["task"] == self.recipe.task)

    def check_weights(self, plan: Plan) -> None:
        """As for any task; and that every arm can do its part, as far as that is known before sources are learned.

        Frozen stages exist, weights of the source will fit, and classical methods find in k-space what they need.
        """
        super().check_weights(plan)
        fold, seed = plan.folds[0].index, self.recipe.seeds[0]
        done: set[str] = set()
        for name, arm in self.recipe.arms.items():
            about = repr([arm.network, arm.weights, getattr(arm.method, "freeze", None)])
            if about in done:
                continue
            done.add(about)
            network = self.build(arm, self.target, fold, seed)
            check_stages(network, arm.method, f"arms.{name}")
            if not network.learns:
                try_out(self, network, f"arms.{name}")
            if arm.starts_from_source:
                assert self.source is not None
                learned = self.source_arm(arm)
                untrained = self.build(learned, self.source, fold, seed)
                check_stages(untrained, learned.method, "source")
                check_takes_source(network, untrained, arm.weights, f"arms.{name}")

    def precision_key(self, arm: ReconstructionArm) -> list[Any]:
        """Network, and the coils and matrix that it is measured on."""
        store = self.target.store
        return [arm.network.model_dump(), int(store.coils[0]), store.matrices[0].tolist()]

    def measure_precision(self, arm: ReconstructionArm) -> tuple[dict[str, Any], Precision]:
        """A few training steps on a slice in every candidate setting; what has no parameters computes in float32."""
        chosen = precision_for_reconstruction(
            self.build(arm, self.target, 0, 0), self.target.store, sampling=self.recipe.sampling,
            requested=self.recipe.precision, device=self.device,
        )  # fmt: skip
        return {"network": arm.network.model_dump(), "matrix": self.target.store.matrices[0].tolist()}, chosen

    # Training and scores

    def fit(
        self,
        job: KspaceJob,
        network: ReconstructionNetwork,
        head: nn.Sequential,
        precision: Precision,
        trace: Path | None,
    ) -> TrainResult:
        """Train on slices, undersampled anew at every visit."""
        assert isinstance(job.arm.method, NetworkMethod)
        return train_reconstructor(
            network,
            job.arm.method,
            job.domain.store,
            job.train,
            job.validation,
            sampling=self.recipe.sampling,
            loss=job.arm.loss,
            augment=job.arm.augment,
            seed=job.seed,
            folder=job.checkpoints,
            precision=precision,
            device=self.device,
            devices=self.devices,
            profile=trace,
        )

    def scores(self, trained: TrainedOnKspace, domain: KspaceDomain, rows: np.ndarray) -> Scores:
        """One row of metrics per volume."""
        return score_volumes(self, trained, domain, rows)

    def illustrate(
        self, runs: Sequence[Run], network: ReconstructionNetwork, heads: Sequence[nn.Sequential]
    ) -> list[dict[str, Any]]:
        """Of the first seed, slices for the report's pictures."""
        first = self.recipe.seeds[0]
        shown = [self.asks(run.budget) and (run.seed == first or not run.spec.method.learns) for run in runs]
        return [kept_slices(self, run, network) if asked else {} for run, asked in zip(runs, shown, strict=True)]

    def described(
        self, arm: ReconstructionArm, domain: KspaceDomain, fold: int, record: dict[str, Any]
    ) -> dict[str, Any]:
        """How k-space was undersampled, the loss, augmentation, and what the volumes were."""
        store = domain.store
        return {
            "sampling": self.recipe.sampling.model_dump(mode="json"),
            "loss": arm.loss,
            "augment": arm.augment.model_dump(mode="json") if arm.augment is not None else None,
            "coils": sorted(set(store.coils.tolist())),
            "matrix": sorted({(int(rows), int(columns)) for rows, columns in store.matrices}),
            "acquisitions": sorted({store.volume(row).acquisition for row in range(len(store))} - {""}),
        }

    def context(self, plan: Plan) -> Any:
        """Best, median and worst volumes in pictures, curves of all arms in one plot, per-volume tables."""
        from mrtransfer.study.report.reconstruction import build_context

        return build_context(self, plan)


def _metric(name: str) -> str:
    return name.rpartition("/")[2]


def _words(name: str) -> str:
    acceleration, _, metric = name.rpartition("/")
    return f"{WORDS[metric]} ({acceleration})" if acceleration else WORDS[metric]
