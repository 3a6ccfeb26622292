"""Probes: heads on networks that stay as they are. One pass of each distinct network, then all its heads together."""

import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from mrtransfer.models.load_report import LoadReport
from mrtransfer.study.execute import job_of
from mrtransfer.study.outcome import save_run
from mrtransfer.study.plan import Run
from mrtransfer.study.workshop import Advance, Scores
from mrtransfer.training.linear_probes import FittedLinear, fit_linear_probes
from mrtransfer.training.mlp_probes import FittedMlp, fit_mlp_probes
from mrtransfer.training.problems import Problem, derived_seed
from mrtransfer.transfer.methods.linear_probe import LinearProbe
from mrtransfer.transfer.methods.mlp_probe import MlpProbe

if TYPE_CHECKING:
    from mrtransfer.study.tasks.classification import ClassificationWorkshop

TOGETHER = 128
"""Probes fitted in one go: bounds the memory, and what a kill can cost."""


def probe_all(runs: list[Run], missing: set[str], workshop: "ClassificationWorkshop", advance: Advance) -> None:
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
        network, report = workshop.initial(
            first.spec, first.weights, first.source, workshop.target, first.fold, first.seed
        )
        store = workshop.seen(job_of(first, workshop), workshop.target)
        features = workshop.features(first.spec, network, store=store)
        passed = (time.perf_counter() - started) / len(same)
        for group in groups:
            started = time.perf_counter()
            heads = fit_heads(group, features, workshop)
            illustrated = workshop.illustrate(group, network, [head.head() for head in heads])
            each = passed + (time.perf_counter() - started) / len(group)
            for run, head, kept in zip(group, heads, illustrated, strict=True):
                if run.key in missing:
                    _keep(run, head, features, kept, report, each, workshop)
                    advance(1)


def _keep(
    run: Run,
    head: FittedLinear | FittedMlp,
    features: np.ndarray,
    kept: dict[str, np.ndarray],
    report: LoadReport,
    seconds: float,
    workshop: "ClassificationWorkshop",
) -> None:
    parts = {
        name: Scores(rows, head.probabilities(features[0][rows]).astype(np.float32), beside)
        for name, rows, beside in (("test", run.test, kept), ("validation", run.drawn.validation, {}))
    }
    save_run(workshop.folder, run, parts, record={**head_record(head), "weights": report.to_json()}, seconds=seconds)


def _by_backbone(runs: list[Run]) -> Iterator[list[Run]]:
    """Runs that share the initial weights of their backbone: all seeds do, where nothing in it is drawn at random.

    And its images: those that are harmonised to the target's own development rows differ from fold to fold.
    """

    def identity(run: Run) -> tuple[str, int, int]:
        own_images = run.spec.harmonise is not None and run.source is None
        seed = run.seed if run.weights.is_random(run.spec.network) else -1
        return run.source.key if run.source else "", seed, run.fold if own_images else -1

    for _, same in groupby(sorted(runs, key=identity), key=identity):
        yield list(same)


def fit_heads(
    runs: list[Run], features: np.ndarray, workshop: "ClassificationWorkshop"
) -> Sequence[FittedLinear | FittedMlp]:
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
