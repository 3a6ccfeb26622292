"""The plan: every run of a study, who is trained on and tested in it, and the key that names its folder.

A key is the digest of everything that defines a run's result: the pixels, the labels, the rows, the arm's settings, the
digest of the initial weights' file or source run, the seed, and the arithmetic. Same key, same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import digest
from mrtransfer.data.split import Draw, Fold, draw, holdout, make_folds, published
from mrtransfer.models.weights import WeightsSpec, parse_weights
from mrtransfer.study.domain import Domain
from mrtransfer.study.recipe import ArmSpec, Budget, Recipe

FORMAT = 2
"""Raised when the same settings would give other results than an earlier version did."""

ALL = -1
"""The number of the fold in which everything is trained on: that of the model that is handed over."""


@dataclass(frozen=True)
class SourceRun:
    """One training on the source domain; arms and folds that want the same one share it."""

    arm: Any
    """An arm of the task: how the source is learned, and seen, for the arms that want it."""
    seed: int
    fold: int
    """The first fold that wants it; what a task derives from a fold's training data is the same for all that do."""
    train: np.ndarray
    validation: np.ndarray
    excluded: int
    """Source samples left out because their subject or pixels are among the target's test samples."""
    key: str


@dataclass(frozen=True)
class Run:
    """One arm at one budget with one seed on one fold."""

    arm: str
    spec: Any
    """The arm's settings, of the class that its task has for arms."""
    weights: WeightsSpec
    source: SourceRun | None
    """Where its weights come from, and whose rows an arm that adapts learns from."""
    budget: Budget
    seed: int
    fold: int
    drawn: Draw
    test: np.ndarray
    key: str
    unlabelled: np.ndarray | None = None
    """Rows of the target that are learned from without their labels; None where the arm does not adapt."""

    @cached_property
    def labelled(self) -> int:
        """Labelled units of the target used, training and validation together."""
        return self.drawn.units if self.spec.method.learns and self.spec.method.labels else 0


@dataclass(frozen=True)
class Plan:
    """All runs of a study, and the folds they share."""

    folds: list[Fold]
    runs: list[Run]
    sources: list[SourceRun]
    """Those that give weights. An arm that adapts a model folder has the rows of one, which need not be trained."""

    def to_json(self) -> dict[str, Any]:
        """The plan as a readable table."""
        return {
            "folds": [{"development": len(f.development), "test": len(f.test)} for f in self.folds],
            "sources": [
                {"key": s.key, "network": s.arm.network.name, "train": len(s.train), "excluded": s.excluded}
                for s in self.sources
            ],
            "runs": [
                {
                    "key": r.key,
                    "arm": r.arm,
                    "budget": r.budget,
                    "labelled": r.labelled,
                    "seed": r.seed,
                    "fold": r.fold,
                    "train": len(r.drawn.train),
                    "validation": len(r.drawn.validation),
                    "test": len(r.test),
                }
                for r in self.runs
            ],
        }


def make_folds_of(recipe: Recipe, target: Domain) -> list[Fold]:
    """The test sets of the study, fixed before anything is trained."""
    split = recipe.target.split
    if split.published is not None:
        return published(target.manifest, target.units, leaks=split.published)
    if split.test == 1:
        return [Fold(0, np.zeros(0, dtype=np.int64), np.arange(len(target.labels)))]
    if split.test is not None:
        return holdout(target.labels, target.units, test=split.test, seed=split.seed)
    return make_folds(target.labels, target.units, folds=split.fold_count, seed=split.seed)


class Desk(Protocol):
    """What a task tells the plan: everything that, beside rows and settings, decides a run's result."""

    def arithmetic(self, arm: Any) -> str:
        """The precision in which the arm is computed."""

    def defines(self, domain: Any, fold: Fold, arm: Any) -> dict[str, Any]:
        """The pixels and labels of ``domain`` as the arm sees them on ``fold``."""

    def row_digests(self, domain: Any) -> np.ndarray:
        """(N,) str: the same for samples of the same pixels."""

    def source_arm(self, arm: Any) -> Any:
        """How the source is learned for ``arm``: the recipe's source settings on the arm's network."""

    def asks(self, budget: Budget) -> dict[str, Any]:
        """What a run at ``budget`` must leave behind beside its scores; empty where that is all."""


def make_plan(recipe: Recipe, target: Domain, source: Domain | None, desk: Desk) -> Plan:
    """Lay out all runs.

    Raises :class:`UserError` where a budget is larger than the data or a class has no subject to train on, before
    anything is computed. Runs of a method that learns nothing differ in neither budget nor seed: they share one key,
    and are validated on the rows of the last. Those of a method that adapts without labels differ in the seed alone;
    their unlabelled rows are all of the fold's development.
    """
    folds = make_folds_of(recipe, target)
    weights = {name: parse_weights(arm.weights) for name, arm in recipe.arms.items()}
    files = {name: spec.file_digest() for name, spec in weights.items()}
    draws = _draws(recipe, target, folds)
    sources: dict[str, SourceRun] = {}
    runs = []
    for name, arm in recipe.arms.items():
        for fold in folds:
            wanted = None
            if arm.needs_source:
                assert source is not None
                wanted = _source_run(recipe, arm, source, target, fold, desk)
            if wanted is not None and weights[name].kind == "source":
                wanted = sources.setdefault(wanted.key, wanted)
            common = {
                "format": FORMAT,
                "task": recipe.task,
                "data": desk.defines(target, fold, arm),
                "arm": _settings(arm, "weights", "method"),
                "method": arm.method.model_dump(mode="json"),
                "weights": weights[name].model_dump(mode="json", exclude={"file", "trained_on"}),
                "weights_file": files[name],
                "source": wanted.key if wanted else None,
                "arithmetic": desk.arithmetic(arm),
            }
            unlabelled = None if arm.method.labels else fold.development
            for (budget, seed), drawn in draws[fold.index].items():
                key = digest(common | _own(recipe, arm, fold, draws[fold.index], budget, seed, desk))
                runs.append(
                    Run(name, arm, weights[name], wanted, budget, seed, fold.index, drawn, fold.test, key, unlabelled)
                )
    return Plan(folds, runs, list(sources.values()))


def _own(
    recipe: Recipe,
    arm: ArmSpec,
    fold: Fold,
    draws: Mapping[tuple[Budget, int], Draw],
    budget: Budget,
    seed: int,
    desk: Desk,
) -> dict[str, Any]:
    """What of a run's key its budget and seed decide, as far as they make a difference to the arm."""
    most = recipe.budgets[-1]
    rows: tuple[np.ndarray, ...]
    if not arm.method.learns:
        rows = draws[most, recipe.seeds[-1]].validation, fold.test
    elif arm.method.labels:
        rows = draws[budget, seed].train, draws[budget, seed].validation, fold.test
    else:
        rows = fold.development, draws[most, seed].validation, fold.test
    spends = arm.method.learns and arm.method.labels
    own = {"rows": [digest(part.tolist()) for part in rows], "seed": seed if arm.method.learns else None}
    return own | desk.asks(budget if spends else most)


def _settings(arm: ArmSpec, *without: str) -> dict[str, Any]:
    """The arm's own settings; where nothing is harmonised, as they were before there was harmonising."""
    settings = arm.model_dump(mode="json", exclude=set(without))
    return {key: value for key, value in settings.items() if key != "harmonise" or value is not None}


def _draws(recipe: Recipe, target: Domain, folds: list[Fold]) -> list[dict[tuple[Budget, int], Draw]]:
    """For each fold, who is labelled at each (budget, seed): the same subjects in every arm."""
    return [
        {
            (budget, seed): labelled(recipe, target, fold.development, budget, seed)
            for budget in recipe.budgets
            for seed in recipe.seeds
        }
        for fold in folds
    ]


def labelled(recipe: Recipe, target: Domain, rows: np.ndarray, budget: Budget, seed: int) -> Draw:
    """Who of ``rows`` is labelled at ``budget``; nobody, where there are none because everything is tested."""
    if not len(rows):
        return Draw(rows, rows, budget, 0)
    validation = recipe.target.split.validation
    return draw(target.labels, target.units, rows, budget=budget, validation=validation, seed=seed)


def _source_run(
    recipe: Recipe, wanted_by: ArmSpec, source: Domain, target: Domain, fold: Fold, desk: Desk
) -> SourceRun:
    """The source training whose weights may be judged on this fold: without the fold's test subjects and images."""
    spec = recipe.source
    assert spec is not None
    known = _known(source, fold.test, target, desk)
    rows = np.flatnonzero(~known)
    if not len(rows):
        raise UserError("source: every sample's subject is also in the target's test set; nothing is left to train on")
    drawn = draw(source.labels, source.units, rows, budget="all", validation=spec.validation, seed=spec.seed)
    arm = desk.source_arm(wanted_by)
    settings = {
        "format": FORMAT,
        "data": desk.defines(source, fold, arm),
        "rows": [digest(part.tolist()) for part in (drawn.train, drawn.validation)],
        "arm": _settings(arm),
        "weights_file": parse_weights(spec.weights).file_digest(),
        "seed": spec.seed,
        "arithmetic": desk.arithmetic(arm),
    }
    return SourceRun(arm, spec.seed, fold.index, drawn.train, drawn.validation, int(known.sum()), digest(settings))


def _known(source: Domain, test: np.ndarray, target: Domain, desk: Desk) -> np.ndarray:
    """(N_source,) True where a sample shares its unit with a test sample's subject, or its pixels with a test image."""
    subjects = {name for name in target.subjects[test] if name}
    same = np.isin(source.subjects, list(subjects)) if subjects else np.zeros(len(source.labels), bool)
    same |= np.isin(desk.row_digests(source), desk.row_digests(target)[test])
    return np.isin(source.units, np.unique(source.units[same]))
