"""What all runs of a study share, whatever the task: initial weights, training, model folders, and the leak check."""

import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import atomic_path, digest, read_json, write_json
from mrtransfer.data.harmoniser import FittedHarmoniser
from mrtransfer.data.split import Fold
from mrtransfer.models.load_report import LoadReport
from mrtransfer.models.network import StagedNetwork
from mrtransfer.models.package import LoadedModel, load_model, save_model
from mrtransfer.models.state_files import read_state
from mrtransfer.models.weights import SourceState, WeightsSpec, apply_weights, parse_weights, splits_in
from mrtransfer.study.domain import Domain
from mrtransfer.study.plan import Plan, Run, SourceRun
from mrtransfer.study.provenance import refuse_seen
from mrtransfer.study.recipe import ArmSpec, Budget, Recipe
from mrtransfer.study.statistics.measures import Measures
from mrtransfer.training.fit import TrainResult
from mrtransfer.training.precision import Precision, choose_device
from mrtransfer.training.profile import TABLE

Advance = Callable[[int], None]
A = TypeVar("A", bound=ArmSpec)
D = TypeVar("D", bound=Domain)
N = TypeVar("N", bound=StagedNetwork)


@dataclass(frozen=True)
class Job(Generic[A, D]):
    """One training: an arm on rows of a domain, as seen on a fold."""

    arm: A
    weights: WeightsSpec
    source: SourceRun | None
    domain: D
    train: np.ndarray
    validation: np.ndarray
    fold: int
    seed: int
    checkpoints: Path
    """Where an interrupted training is continued from."""
    unlabelled: np.ndarray | None = None
    """Rows of the target that the network is adapted to, without their labels; ``domain`` is then the source."""


@dataclass(frozen=True)
class Trained(Generic[A, D, N]):
    """A trained network and head on the CPU, and the record of the training."""

    job: Job[A, D]
    network: N
    head: nn.Sequential
    precision: Precision
    record: dict[str, Any]
    trace: Path | None = None
    """Where a trace of its predictions goes."""

    def discard_checkpoints(self) -> None:
        """Remove what only an interrupted training needs."""
        shutil.rmtree(self.job.checkpoints, ignore_errors=True)


@dataclass(frozen=True)
class Scores:
    """What the statistics are made of: ``rows`` (n,) of the manifest and ``values`` (n, …) as the measures want them.

    ``kept``: further arrays for the report, by name.
    """

    rows: np.ndarray
    values: np.ndarray
    kept: dict[str, np.ndarray] = field(default_factory=dict)


class Workshop(ABC, Generic[A, D, N]):
    """The tools of one study in one folder. Each task fills in how its data are read, trained on and scored."""

    unit = "subject"
    """What the statistics count."""

    def __init__(self, recipe: Recipe, folder: Path, target: D, source: D | None, device: str = "auto"):
        self.recipe, self.folder, self.device = recipe, folder, device
        self.target, self.source = target, source
        self.devices = 1
        """Processes that share every batch."""
        self.traces: Path | None = None
        """Where traces of the first training of every arm go, if they are wanted."""
        self._precisions: dict[str, Precision] = {}
        self._seen_before: WeakKeyDictionary[nn.Module, Mapping[str, Any]] = WeakKeyDictionary()

    # What a task fills in

    @classmethod
    @abstractmethod
    def open(cls, recipe: Any, folder: Path, device: str = "auto") -> "Workshop[A, D, N]":
        """Read the recipe's domains; what was computed before is found again in ``folder``."""

    @property
    @abstractmethod
    def measures(self) -> Measures:
        """What is measured, on :class:`Scores`."""

    @abstractmethod
    def defines(self, domain: D, fold: Fold, arm: A) -> dict[str, Any]:
        """The pixels and labels of ``domain`` as the arm sees them on ``fold``, for the keys of runs."""

    @abstractmethod
    def row_digests(self, domain: D, fold: int = 0) -> np.ndarray:
        """(N,) str: the same for samples of the same pixels, as they are prepared for ``fold``."""

    @abstractmethod
    def source_arm(self, arm: A) -> A:
        """How the source is learned for ``arm``."""

    @abstractmethod
    def build(self, arm: A, domain: D, fold: int, seed: int) -> N:
        """The arm's network for the domain's channels, with random weights."""

    @abstractmethod
    def fresh_head(self, job: Job[A, D], network: N, record: dict[str, Any]) -> nn.Sequential:
        """The head that training starts with; what was found out on the way goes to ``record``."""

    @abstractmethod
    def fit(
        self, job: Job[A, D], network: N, head: nn.Sequential, precision: Precision, trace: Path | None
    ) -> TrainResult:
        """Train both in place; ``trace`` is a folder for traces."""

    @abstractmethod
    def measure_precision(self, arm: A) -> tuple[dict[str, Any], Precision]:
        """What the choice was made for, and the choice."""

    @abstractmethod
    def precision_key(self, arm: A) -> list[Any]:
        """What the choice of number format and layout depends on, beside the machine."""

    @abstractmethod
    def scores(self, trained: Trained[A, D, N], domain: D, rows: np.ndarray) -> Scores:
        """Predict ``rows`` of ``domain`` and compare with the truth as far as statistics want it."""

    @abstractmethod
    def described(self, arm: A, domain: D, fold: int, record: dict[str, Any]) -> dict[str, Any]:
        """The part of ``model.json`` that says how inputs are prepared and outputs are read."""

    @abstractmethod
    def same_outputs(self, arm: A, spec: dict[str, Any]) -> bool:
        """Whether the head of the model that ``spec`` describes predicts just what ``arm`` is to predict."""

    @abstractmethod
    def context(self, plan: Plan) -> Any:
        """What the report shows beside the statistics."""

    # What a task may add

    def do_together(self, runs: list[Run], missing: set[str], advance: Advance) -> bool:
        """Do the ``missing`` of an arm's runs at once, where they share work; False where each is trained by itself."""
        return False

    def asks(self, budget: Budget) -> dict[str, Any]:
        """What a run at ``budget`` must leave behind beside its scores, for its key."""
        return {}

    def illustrate(self, runs: Sequence[Run], network: N, heads: Sequence[nn.Sequential]) -> list[dict[str, Any]]:
        """For runs of one arm on one trained network, a head each: arrays that are kept with their test scores."""
        return [{} for _ in runs]

    def findings(self, plan: Plan) -> dict[str, Any]:
        """Entries of the results beside the statistics of :attr:`measures`."""
        return {}

    def harmoniser(self, job: Job[A, D], domain: D) -> FittedHarmoniser | None:
        """What images of ``domain`` pass through before the job's network sees them; None where they stay as they are.

        For tasks whose recipes can harmonise: :class:`~mrtransfer.study.harmonising.HarmonisingWorkshop`.
        """
        return None

    # What all tasks share

    def precision(self, arm: A) -> Precision:
        """Number format and layout for the arm's network, measured once per network and kept in the study's folder.

        A study that is continued uses what was measured at first: the arithmetic is part of what defines a run.
        """
        name = digest([*self.precision_key(arm), self.recipe.precision, choose_device(self.device)])
        path = self.folder / "precision" / f"{name}.json"
        if name not in self._precisions and path.is_file():
            self._precisions[name] = Precision.from_json(read_json(path)["precision"])
        if name not in self._precisions:
            about, self._precisions[name] = self.measure_precision(arm)
            write_json(path, {**about, "precision": self._precisions[name].to_json()})
        return self._precisions[name]

    def arithmetic(self, arm: A) -> str:
        """The name of the arm's precision."""
        return self.precision(arm).name

    def initial(
        self, arm: A, weights: WeightsSpec, source: SourceRun | None, domain: D, fold: int, seed: int
    ) -> tuple[N, LoadReport]:
        """The arm's network for ``domain`` with its initial weights, and what happened to each tensor."""
        network = self.build(arm, domain, fold, seed)

        def trained_on_source() -> SourceState:
            assert source is not None
            folder = self.source_folder(source)
            return read_state(folder)[0], read_json(folder / "model.json")["provenance"]

        report = apply_weights(network, weights, seed=seed, resolve_source=trained_on_source)
        self._seen_before[network] = report.provenance.get("trained_on", {})
        return network, report

    def train(self, job: Job[A, D]) -> Trained[A, D, N]:
        """Train the arm's network on rows of the domain; continues where it was interrupted."""
        network, report = self.initial(job.arm, job.weights, job.source, job.domain, job.fold, job.seed)
        record: dict[str, Any] = {"weights": report.to_json()}
        precision, trace = self.precision(job.arm), self.trace_of(job)
        if job.arm.method.learns:
            adapts = job.unlabelled is not None
            head = self.head_as_it_is(job) if adapts else self.fresh_head(job, network, record)
            result = self.fit(job, network, head, precision, trace)
            record |= {"curves": result.curves, "best_epoch": result.best_epoch}
        else:
            head = self.head_as_it_is(job)
            record |= {"curves": [], "best_epoch": 0}
        trained = Trained(job, network, head, precision, record, trace)
        self.finish(trained)
        return trained

    def finish(self, trained: Trained[A, D, N]) -> None:
        """What a task chooses on the validation rows once the network is trained; goes to its record."""

    def trace_of(self, job: Job[A, D]) -> Path | None:
        """The folder for a trace of this training; None where none is wanted, or the arm has its trace already."""
        arms: Mapping[str, Any] = self.recipe.arms
        name = next((name for name, arm in arms.items() if arm is job.arm), "source")
        folder = None if self.traces is None else self.traces / re.sub(r"[^\w.-]+", "-", name)
        return None if folder is None or (folder / TABLE).is_file() else folder

    def pretrained(self, job: Job[A, D]) -> LoadedModel | None:
        """The whole model that the job's weights come from: a source training's, or a model folder; None otherwise."""
        if job.weights.kind == "source":
            assert job.source is not None
            return load_model(self.source_folder(job.source))
        file = Path(job.weights.file) if job.weights.kind == "file" and job.weights.file else None
        return load_model(file) if file is not None and file.is_dir() else None

    def head_as_it_is(self, job: Job[A, D]) -> nn.Sequential:
        """The head of the model that the weights come from; :class:`UserError` where it predicts something else."""
        model = self.pretrained(job)
        if model is None:
            raise UserError(
                f"method {job.arm.method.name}: needs a trained model; set weights: source, or name a model folder"
            )
        if not self.same_outputs(job.arm, model.spec):
            raise UserError(
                f"method {job.arm.method.name}: the source model predicts other classes than the target has; "
                "bring both to the same with labels, or tune it"
            )
        return model.head

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
            Job(
                run.arm, parse_weights(run.arm.weights), None, self.source, run.train, run.validation,
                run.fold, run.seed, self.folder / "unfinished" / run.key,
            )
        )  # fmt: skip
        self.save(folder, trained.job, trained.network, trained.head, trained.record)
        trained.discard_checkpoints()

    def save(self, folder: Path, job: Job[A, D], network: N, head: nn.Sequential, record: dict[str, Any]) -> None:
        """Write a model folder: weights, how inputs must be prepared, the classes, and what it was trained on.

        What its initial weights were trained on counts too: a model tuned on one domain has seen the subjects of both.
        So do images without labels; a model that was adapted to them is for the target.
        """
        arm, domain, before = job.arm, job.domain, self._seen_before.get(network, {})
        shown = [(domain, np.concatenate([job.train, job.validation]))]
        if job.unlabelled is not None:
            domain = self.target
            shown.append((domain, job.unlabelled))
        subjects, digests = set(before.get("subjects", ())), set(before.get("row_digests", ()))
        for own, rows in shown:
            subjects |= {name for name in own.subjects[rows] if name}
            digests |= set(self.row_digests(own, job.fold)[rows].tolist())
        splits = splits_in(before, self.target.manifest.name)
        fitted = self.harmoniser(job, domain)
        spec = {
            "task": self.recipe.task,
            **self.described(arm, domain, job.fold, record),
            **({"harmonise": fitted.to_json()} if fitted is not None else {}),
            "provenance": {
                "dataset": domain.manifest.name,
                "subjects": sorted(subjects),
                "row_digests": sorted(digests),
                **({"splits": splits} if splits else {}),
                "weights": arm.weights,
            },
            "record": record,
        }
        with atomic_path(folder) as temporary:
            save_model(temporary, network, head, spec)

    def make_model(self, run: Run, job: Job[A, D], folder: Path, record: dict[str, Any]) -> None:
        """Train the model that is handed over, and write it to ``folder``."""
        trained = self.train(job)
        self.save(folder, job, trained.network, trained.head, trained.record | record)
        trained.discard_checkpoints()

    def check_weights(self, plan: Plan) -> None:
        """Load every arm's initial weights once, before anything is trained, and see what they were trained on.

        Raises :class:`UserError` where a file does not fit its network, or its weights were trained on what the study
        would test on. (Source trainings leave the test subjects out: see the plan.)
        """
        tested = np.unique(np.concatenate([fold.test for fold in plan.folds]))
        digests = self.row_digests(self.target)
        arms: Mapping[str, Any] = self.recipe.arms
        starts = [(f"arms.{name}", arm, self.target) for name, arm in arms.items()]
        starts += [("source", run.arm, self.source) for run in plan.sources if self.source is not None]
        for name, arm, domain in starts:
            weights = parse_weights(arm.weights)
            if weights.kind not in ("random", "source"):
                _, report = self.initial(arm, weights, None, domain, plan.folds[0].index, self.recipe.seeds[0])
                seen = report.provenance.get("trained_on", {})
                refuse_seen(seen, self.target, digests, tested, f"{name}.weights")


AnyWorkshop = Workshop[Any, Any, Any]
