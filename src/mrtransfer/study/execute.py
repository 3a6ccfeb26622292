"""Execution on this machine: what is there already is kept, frozen work is done once, heads are fitted together."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np

from mrtransfer.study.outcome import is_done, save_run
from mrtransfer.study.plan import Plan, Run
from mrtransfer.study.workshop import Initial, Workshop
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
    runs = list({run.key: run for run in plan.runs}.values())
    missing = {run.key for run in runs if not is_done(workshop.folder, run.key)}
    advance(len(plan.runs) - len(missing))
    wanted = {run.source.key for run in runs if run.source is not None and run.key in missing}
    for source in plan.sources:
        if source.key in wanted:
            workshop.train_source(source)
    for _, of_arm in groupby(runs, key=lambda run: run.arm):
        arm_runs = list(of_arm)
        if arm_runs[0].spec.method.cached:
            _probe_all(arm_runs, missing, workshop, advance)
        else:
            for run in arm_runs:
                if run.key in missing:
                    _train(run, workshop)
                    advance(1)


def _probe_all(runs: list[Run], missing: set[str], workshop: Workshop, advance: Advance) -> None:
    """Runs whose backbone stays as it is: one pass of each distinct backbone, then all their heads together.

    The groups are those of the whole plan, also where only some of a group is missing: heads that are fitted in step
    can differ in the last bit from the same heads in other company, and an interrupted study must not.
    """
    for same in _by_backbone(runs):
        groups = [same[start : start + TOGETHER] for start in range(0, len(same), TOGETHER)]
        groups = [group for group in groups if any(run.key in missing for run in group)]
        if not groups:
            continue
        started = time.perf_counter()
        first = same[0]
        initial = workshop.initial(first.spec, first.weights, first.source, first.seed)
        features = workshop.features(first.spec, initial)
        passed = (time.perf_counter() - started) / len(same)
        for group in groups:
            started = time.perf_counter()
            heads = fit_heads(group, features, workshop)
            each = passed + (time.perf_counter() - started) / len(group)
            for run, head in zip(group, heads, strict=True):
                if run.key in missing:
                    _keep(run, head, features, initial, each, workshop)
                    advance(1)


def _keep(
    run: Run,
    head: FittedLinear | FittedMlp,
    features: np.ndarray,
    initial: Initial,
    seconds: float,
    workshop: Workshop,
) -> None:
    save_run(
        workshop.folder,
        run,
        test=head.probabilities(features[0][run.test]),
        validation=head.probabilities(features[0][run.drawn.validation]),
        record={**head_record(head), "weights": initial.report.to_json()},
        seconds=seconds,
    )


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
