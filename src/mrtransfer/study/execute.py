"""Execution on this machine: what is there already is kept; sources first, then every run that is missing."""

import time
from dataclasses import replace
from itertools import groupby
from typing import Any

from mrtransfer.study.outcome import is_done, save_run
from mrtransfer.study.plan import Plan, Run
from mrtransfer.study.workshop import Advance, AnyWorkshop, Job
from mrtransfer.training.precision import choose_device
from mrtransfer.training.profile import profiled


def execute(plan: Plan, workshop: AnyWorkshop, advance: Advance) -> None:
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
        if workshop.do_together(arm_runs, missing, advance):
            continue
        for run in arm_runs:
            if run.key in missing:
                _train(run, workshop)
                advance(1)


def job_of(run: Run, workshop: AnyWorkshop) -> Job[Any, Any]:
    """The training that a run asks for: on the target's labels, or on the source's with the target's images beside."""
    checkpoints = workshop.folder / "unfinished" / run.key
    if run.unlabelled is None:
        return Job(
            run.spec, run.weights, run.source, workshop.target, run.drawn.train, run.drawn.validation,
            run.fold, run.seed, checkpoints,
        )  # fmt: skip
    assert run.source is not None, "an arm that adapts has rows of the source"
    return Job(
        run.spec, run.weights, run.source, workshop.source, run.source.train, run.source.validation,
        run.fold, run.seed, checkpoints, run.unlabelled,
    )  # fmt: skip


def _train(run: Run, workshop: AnyWorkshop) -> None:
    """A run that trains the network itself; interrupted, it goes on from its last checkpoint."""
    started = time.perf_counter()
    trained = workshop.train(job_of(run, workshop))
    with profiled(trained.trace, "predict", choose_device(workshop.device)):
        test = workshop.scores(trained, workshop.target, run.test)
    kept = workshop.illustrate([run], trained.network, [trained.head])[0]
    validation = workshop.scores(trained, workshop.target, run.drawn.validation)
    parts = {
        "validation": replace(validation, kept={}),  # the report shows test rows
        "test": replace(test, kept=test.kept | kept),
    }
    save_run(workshop.folder, run, parts, record=trained.record, seconds=time.perf_counter() - started)
    trained.discard_checkpoints()
