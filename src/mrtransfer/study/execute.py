"""Execution on this machine: what is there already is kept, frozen work is done once, heads are fitted together."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np

from mrtransfer.study.outcome import is_done, save_run
from mrtransfer.study.plan import Plan, Run
from mrtransfer.study.workshop import Workshop
from mrtransfer.training.linear_probes import FittedLinear, fit_linear_probes
from mrtransfer.training.mlp_probes import FittedMlp, fit_mlp_probes
from mrtransfer.training.problems import Problem, derived_seed
from mrtransfer.transfer.methods.linear_probe import LinearProbe
from mrtransfer.transfer.methods.mlp_probe import MlpProbe

TOGETHER = 128
"""Probes fitted in one go: bounds the memory, and what a kill can cost."""

Advance = Callable[[int], None]


def execute(plan: Plan, workshop: Workshop, advance: Advance) -> None:
    """Do every run that is not done yet; ``advance`` is told how many became done, those found done at once."""
    todo: dict[str, Run] = {}
    for run in plan.runs:
        if not is_done(workshop.folder, run.key):
            todo.setdefault(run.key, run)
    advance(len(plan.runs) - len(todo))
    wanted = {run.source.key for run in todo.values() if run.source is not None}
    for source in plan.sources:
        if source.key in wanted:
            workshop.train_source(source)
    for _, runs in groupby(todo.values(), key=lambda run: run.arm):
        arm_runs = list(runs)
        if arm_runs[0].spec.method.cached:
            _probe_all(arm_runs, workshop, advance)
        else:
            for run in arm_runs:
                _train(run, workshop)
                advance(1)


def _probe_all(runs: list[Run], workshop: Workshop, advance: Advance) -> None:
    """Runs whose backbone stays as it is: one pass of each distinct backbone, then all their heads together."""
    for same in _by_backbone(runs):
        started = time.perf_counter()
        first = same[0]
        initial = workshop.initial(first.spec, first.weights, first.source, first.seed)
        features = workshop.features(first.spec, initial)
        passed = (time.perf_counter() - started) / len(same)
        for start in range(0, len(same), TOGETHER):
            group = same[start : start + TOGETHER]
            started = time.perf_counter()
            heads = fit_heads(group, features, workshop)
            each = passed + (time.perf_counter() - started) / len(group)
            for run, head in zip(group, heads, strict=True):
                save_run(
                    workshop.folder,
                    run,
                    test=head.probabilities(features[0][run.test]),
                    validation=head.probabilities(features[0][run.drawn.validation]),
                    record={**head_record(head), "weights": initial.report.to_json()},
                    seconds=each,
                )
            advance(len(group))


def _by_backbone(runs: list[Run]) -> Iterator[list[Run]]:
    """Runs that share the initial weights of their backbone: all seeds do, where nothing in it is drawn at random."""

    def identity(run: Run) -> tuple[str, int]:
        return (run.source.key if run.source else "", run.seed if run.weights.is_random(run.spec.network) else -1)

    for _, same in groupby(sorted(runs, key=identity), key=identity):
        yield list(same)


def fit_heads(runs: list[Run], features: np.ndarray, workshop: Workshop) -> Sequence[FittedLinear | FittedMlp]:
    """The heads of ``runs`` (one arm) on the features (V, N, D) of their backbone."""
    method = runs[0].spec.method
    problems = [
        Problem(run.drawn.train, run.drawn.validation, derived_seed(run.seed, run.fold, "head")) for run in runs
    ]
    classes = len(workshop.target.manifest.classes)
    if isinstance(method, LinearProbe):
        return fit_linear_probes(
            features, workshop.target.labels, problems, method.l2, classes, class_weights=method.class_weights
        )
    assert isinstance(method, MlpProbe), f"{method.name} is not fitted on features"
    return fit_mlp_probes(features, workshop.target.labels, problems, method, classes)


def head_record(head: FittedLinear | FittedMlp) -> dict[str, object]:
    """What fitting a head found out, for the run's record."""
    if isinstance(head, FittedLinear):
        return {"l2": head.l2, "validation": head.validation, "converged": head.converged, "curves": []}
    return {"curves": head.curves, "best_epoch": head.best_epoch}


def _train(run: Run, workshop: Workshop) -> None:
    """A run that trains the network itself; interrupted, it goes on from its last checkpoint."""
    started = time.perf_counter()
    target = workshop.target
    trained = workshop.train(
        run.spec,
        run.weights,
        run.source,
        target,
        run.drawn.train,
        run.drawn.validation,
        seed=run.seed,
        checkpoints=workshop.folder / "unfinished" / run.key,
    )
    save_run(
        workshop.folder,
        run,
        test=trained.probabilities(target, run.test),
        validation=trained.probabilities(target, run.drawn.validation),
        record=trained.record,
        seconds=time.perf_counter() - started,
    )
    trained.discard_checkpoints()
