"""What reports of tasks with a score per subject or volume share: per-subject tables, who is shown, the split."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrtransfer.study.plan import Plan, Run
from mrtransfer.study.recipe import Recipe
from mrtransfer.study.report.context import SubjectTable
from mrtransfer.study.statistics.measures import Measures
from mrtransfer.study.statistics.pool import Pool

PLACES = ("best", "median", "worst")


def per_row(pooled: Pool, arm: str, metric: str, measures: Measures) -> np.ndarray:
    """(n,) the metric of each pooled row at the arm's largest budget, mean over seeds."""
    cell = (arm, pooled.budgets(arm)[-1])
    column = measures.names.index(metric)
    return np.mean([pooled.runs[cell][seed][:, column] for seed in pooled.seeds(cell)], axis=0)


def best_of(scores: Mapping[str, np.ndarray], metric: str, measures: Measures) -> str:
    """The arm with the best mean of its ``scores``."""
    return max(scores, key=lambda arm: measures.sign(metric) * float(np.nanmean(scores[arm])))


def placed(scores: np.ndarray, metric: str, measures: Measures) -> dict[str, int]:
    """Where in ``scores`` (n,) the best, the median and the worst are, each place once; none where none is known."""
    order = np.argsort(-measures.sign(metric) * scores, kind="stable")
    order = order[np.isfinite(scores[order])]
    if not len(order):
        return {}
    chosen = zip(PLACES, (order[0], order[len(order) // 2], order[-1]), strict=True)
    found: dict[int, str] = {}
    for name, at in chosen:
        found.setdefault(int(at), name)
    return {name: at for at, name in found.items()}


def subject_table(
    names: Sequence[str], scores: Mapping[str, np.ndarray], metric: str, measures: Measures, unit: str | None = None
) -> SubjectTable:
    """Every row's score in every arm, the worst of the first arm first; ``unit``: what a row is."""
    first = next(iter(scores.values()))
    order = np.argsort(measures.sign(metric) * first, kind="stable")
    rows = [(names[at], [measures.number(float(own[at]), metric) for own in scores.values()]) for at in order]
    sign = measures.units.get(metric, "")
    return SubjectTable(f"{measures.words[metric]}{f' ({sign})' if sign else ''}", list(scores), rows, unit)


def split_counts(recipe: Recipe, plan: Plan, units: np.ndarray) -> list[dict[str, Any]]:
    """Units for training, validation and test in each fold, at the largest budget."""
    found = {}
    for run in plan.runs:
        if run.budget == recipe.budgets[-1] and run.fold not in found:
            parts = {"training": run.drawn.train, "validation": run.drawn.validation, "test": run.test}
            found[run.fold] = {name: len(np.unique(units[rows])) for name, rows in parts.items()}
    return [{"fold": fold + 1, **counts} for fold, counts in sorted(found.items())]


def run_of(recipe: Recipe, plan: Plan, arm: str, row: int) -> Run:
    """The arm's run of the first seed and the largest budget that tested ``row``."""
    return next(
        run
        for run in plan.runs
        if (run.arm, run.seed, run.budget) == (arm, recipe.seeds[0], recipe.budgets[-1]) and row in run.test
    )
