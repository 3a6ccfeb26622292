"""What all runs of a study share: domains, precision, initial weights, cached features, training."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import atomic_path, digest, read_json, write_json
from mrtransfer.models.features import feature_matrix
from mrtransfer.models.load_report import LoadReport
from mrtransfer.models.network import Backbone, build_network
from mrtransfer.models.package import save_model
from mrtransfer.models.state_files import read_state
from mrtransfer.models.weights import SourceState, WeightsSpec, apply_weights, parse_weights
from mrtransfer.study.domain import Domain
from mrtransfer.study.plan import Plan, SourceRun
from mrtransfer.study.recipe import ArmSpec, Recipe
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.training.fit import predict, train
from mrtransfer.training.linear_probes import fit_linear_probes
from mrtransfer.training.precision import Precision, choose_device, precision_for_training
from mrtransfer.training.problems import Problem, derived_seed
from mrtransfer.transfer.method import NetworkMethod
from mrtransfer.transfer.methods.linear_probe import LinearProbe

_PROBE_BATCH = 32


@dataclass(frozen=True)
class Initial:
    """A backbone with its initial weights, and what happened to each tensor."""

    backbone: Backbone
    report: LoadReport


@dataclass(frozen=True)
class Trained:
    """A trained network on the CPU, how it sees images, and the record of its training."""

    backbone: Backbone
    head: nn.Sequential
    input: dict[str, Any]
    precision: Precision
    record: dict[str, Any]
    device: str
    checkpoints: Path

    def probabilities(self, domain: Domain, rows: np.ndarray) -> np.ndarray:
        """(n, classes) float32 for ``rows`` of a domain."""
        return predict(
            self.backbone, self.head, domain.store, rows,
            input=self.input, precision=self.precision, device=self.device,
        )  # fmt: skip

    def discard_checkpoints(self) -> None:
        """Remove what only an interrupted training needs."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)


@dataclass(frozen=True)
class Workshop:
    """The tools of one study in one folder."""

    recipe: Recipe
    folder: Path
    target: Domain
    source: Domain | None
    device: str = "auto"
    _chosen: dict[str, Precision] = field(default_factory=dict)

    def input_of(self, arm: ArmSpec) -> dict[str, Any]:
        """How the network of ``arm`` sees the stored pixels."""
        return {"channels": self.recipe.input.channels, "normalise": arm.normalise}

    def precision(self, arm: ArmSpec) -> Precision:
        """Number format and layout for the arm's network, measured once per network and kept in the study's folder.

        A study that is continued uses what was measured at first: the arithmetic is part of what defines a run.
        """
        size, channels = self.recipe.input.size, self.recipe.input.channels
        network = arm.network.model_dump()
        name = digest([network, size, channels, self.recipe.precision, choose_device(self.device)])
        path = self.folder / "precision" / f"{name}.json"
        if name not in self._chosen and path.is_file():
            self._chosen[name] = Precision.from_json(read_json(path)["precision"])
        if name not in self._chosen:
            self._chosen[name] = self._measure(arm)
            write_json(path, {"network": network, "size": size, "precision": self._chosen[name].to_json()})
        return self._chosen[name]

    def _measure(self, arm: ArmSpec) -> Precision:
        backbone = build_network(arm.network.name, in_channels=self.recipe.input.channels, until=arm.network.until)
        head = build_head("linear", backbone.features, len(self.target.manifest.classes))
        return precision_for_training(
            backbone,
            head,
            self.target.store.images,
            input=self.input_of(arm),
            batch=_PROBE_BATCH,
            requested=self.recipe.precision,
            device=self.device,
        )

    def initial(self, arm: ArmSpec, weights: WeightsSpec, source: SourceRun | None, seed: int) -> Initial:
        """The arm's backbone with its initial weights; what is random in them is drawn from ``seed``."""
        backbone = build_network(
            arm.network.name, in_channels=self.recipe.input.channels, until=arm.network.until, seed=seed
        )

        def trained_on_source() -> SourceState:
            assert source is not None
            folder = self.source_folder(source)
            return read_state(folder)[0], read_json(folder / "model.json")["provenance"]

        return Initial(backbone, apply_weights(backbone, weights, seed=seed, resolve_source=trained_on_source))

    def features(self, arm: ArmSpec, initial: Initial, domain: Domain | None = None) -> np.ndarray:
        """(V, N, D) pooled features of every image of the target (or ``domain``): one pass, kept on disk.

        With horizontal flips there are two views of every image.
        """
        precision = self.precision(arm)
        return feature_matrix(
            initial.backbone,
            (domain or self.target).store,
            normalise=arm.normalise,
            precision=precision.dtype,
            channels_last=precision.channels_last,
            cache=self.folder / "features",
            device=choose_device(self.device),
            views=("plain", "hflip") if arm.augment.hflip and arm.method.cached else ("plain",),
        )

    def train(
        self,
        arm: ArmSpec,
        weights: WeightsSpec,
        source: SourceRun | None,
        domain: Domain,
        train_rows: np.ndarray,
        validation_rows: np.ndarray,
        *,
        seed: int,
        checkpoints: Path,
    ) -> Trained:
        """Train the arm's network on rows of ``domain``; continues from ``checkpoints`` where it was interrupted."""
        method = arm.method
        assert isinstance(method, NetworkMethod), f"{method.name} does not train the network"
        initial = self.initial(arm, weights, source, seed)
        classes = len(domain.manifest.classes)
        record: dict[str, Any] = {"weights": initial.report.to_json()}
        if method.starts_from_probe:
            problem = Problem(train_rows, validation_rows, seed)
            features = self.features(arm, initial, domain)
            l2 = LinearProbe().l2
            probe = fit_linear_probes(
                features, domain.labels, [problem], l2, classes, class_weights=method.class_weights
            )[0]
            head = probe.head()
            record["probe"] = {"l2": probe.l2, "validation": probe.validation}
        else:
            head = build_head(
                method.head, initial.backbone.features, classes,
                hidden=method.hidden, dropout=method.dropout, seed=derived_seed(seed, "head"),
            )  # fmt: skip
        precision = self.precision(arm)
        result = train(
            initial.backbone,
            head,
            method,
            domain.store,
            domain.labels,
            train_rows,
            validation_rows,
            input=self.input_of(arm),
            augment=arm.augment,
            seed=seed,
            folder=checkpoints,
            precision=precision,
            device=self.device,
        )
        record |= {"curves": result.curves, "best_epoch": result.best_epoch}
        return Trained(initial.backbone, head, self.input_of(arm), precision, record, self.device, checkpoints)

    def source_folder(self, run: SourceRun) -> Path:
        """Where the model of a source training lies."""
        return self.folder / "sources" / run.key

    def train_source(self, run: SourceRun) -> None:
        """Train on the source domain, once, and keep the model with what it was trained on."""
        folder = self.source_folder(run)
        if (folder / "model.json").is_file():
            return
        assert self.source is not None
        trained = self.train(
            run.arm, parse_weights(run.arm.weights), None, self.source, run.train, run.validation,
            seed=run.seed, checkpoints=self.folder / "unfinished" / run.key,
        )  # fmt: skip
        self.save(
            folder, run.arm, trained.backbone, trained.head, self.source, [run.train, run.validation], trained.record
        )
        trained.discard_checkpoints()

    def save(
        self,
        folder: Path,
        arm: ArmSpec,
        backbone: Backbone,
        head: nn.Sequential,
        domain: Domain,
        rows: list[np.ndarray],
        record: dict[str, Any],
    ) -> None:
        """Write a model folder: weights, how images must be prepared, the classes, and what it was trained on."""
        seen = np.concatenate(rows)
        spec = {
            "task": self.recipe.task,
            "classes": list(domain.manifest.classes),
            "size": self.recipe.input.size,
            "fit": self.recipe.input.fit,
            "input": self.input_of(arm),
            "provenance": {
                "dataset": domain.manifest.name,
                "subjects": sorted({name for name in domain.subjects[seen] if name}),
                "row_digests": sorted(set(domain.store.row_digests[seen].tolist())),
                "weights": arm.weights,
            },
            "record": record,
        }
        with atomic_path(folder) as temporary:
            save_model(temporary, backbone, head, spec)

    def check_weights(self, plan: Plan) -> None:
        """Load every arm's initial weights once, before anything is trained, and see what they were trained on.

        Raises :class:`UserError` where a file does not fit its network, or its weights were trained on what the study
        would test on. (Source trainings leave the test subjects out: see the plan.)
        """
        tested = np.unique(np.concatenate([fold.test for fold in plan.folds]))
        subjects = {name for name in self.target.subjects[tested] if name}
        digests = set(self.target.store.row_digests[tested].tolist())
        for name, arm in self.recipe.arms.items():
            weights = parse_weights(arm.weights)
            if weights.kind in ("random", "source"):
                continue
            seen = self.initial(arm, weights, None, self.recipe.seeds[0]).report.provenance.get("trained_on", {})
            known = subjects & set(seen.get("subjects", ())), digests & set(seen.get("row_digests", ()))
            if any(known):
                what = f"{len(known[0])} of the test subjects" if known[0] else f"{len(known[1])} of the test images"
                raise UserError(
                    f"arms.{name}.weights: these weights were trained on {what}, so a score on them would be void; "
                    "use weights that never saw them, or test on other subjects"
                )
