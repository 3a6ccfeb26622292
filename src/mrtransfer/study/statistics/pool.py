"""What the runs predicted, put together: the folds of one arm, budget and seed test every sample exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mrtransfer.common.errors import UserError

Budget = int | Literal["all"]
Cell = tuple[str, Budget]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one run predicted for the test rows of its fold, or how well."""

    arm: str
    budget: Budget
    seed: int
    fold: int
    rows: np.ndarray  # (n,) rows of the manifest
    values: np.ndarray  # (n, …) as the task's measures want them: probabilities, or a table of scores
    labelled: int  # labelled units really used; what 'all' stands for; 0 of arms that see no label


@dataclass(frozen=True, eq=False)
class Pool:
    """All predictions on one common set of test rows; arms and budgets in the order of the study."""

    rows: np.ndarray  # (n,) rows of the manifest, rising
    labels: np.ndarray  # (n,)
    units: np.ndarray  # (n,) 0 … U−1
    runs: dict[Cell, dict[int, np.ndarray]]  # (arm, budget) -> seed -> values (n, …)
    labelled: dict[Cell, int]  # mean over folds and seeds

    @property
    def unit_count(self) -> int:
        """How many independent units are tested."""
        return int(self.units.max()) + 1

    @property
    def arms(self) -> list[str]:
        """Arms in order of first appearance."""
        return list(dict.fromkeys(arm for arm, _ in self.runs))

    def budgets(self, *arms: str) -> list[Budget]:
        """Budgets that every one of ``arms`` has, from few labels to many."""
        shared = set.intersection(*({budget for name, budget in self.runs if name == arm} for arm in arms))
        return sorted(shared, key=_size)

    def compared(self, a: str, b: str) -> list[Budget]:
        """The budgets at which ``a`` and ``b`` are compared: all that both have.

        Only the largest where neither has learned from any, as there is one difference then, and not one for each.
        """
        shared = self.budgets(a, b)
        return shared if self.learns(a) or self.learns(b) else shared[-1:]

    def learns(self, arm: str) -> bool:
        """Whether any seed's predictions depend on the budget."""
        first, *others = (self.runs[arm, budget] for budget in self.budgets(arm))
        return any(
            not np.array_equal(values, first[seed], equal_nan=True)
            for other in others
            for seed, values in other.items()
            if seed in first
        )

    def spends(self, arm: str) -> bool:
        """Whether ``arm`` may owe its scores to labels: not where it has the same ones at all of several budgets."""
        budgets = self.budgets(arm)
        if not any(self.labelled[arm, budget] for budget in budgets):
            return False
        return len(budgets) < 2 or self.learns(arm)

    def seeds(self, *cells: Cell) -> list[int]:
        """Seeds that every one of ``cells`` has, rising."""
        return sorted(set.intersection(*(set(self.runs[cell]) for cell in cells)))


def _size(budget: Budget) -> float:
    return float("inf") if budget == "all" else float(budget)


def pool(outcomes: Sequence[Outcome], labels: np.ndarray, units: np.ndarray) -> Pool:
    """Join the folds of each run; raises :class:`UserError` where runs were not tested on the same rows."""
    if not outcomes:
        raise UserError("study: no run has finished yet, so there is nothing to analyse; run the study first")
    parts: dict[tuple[str, Budget, int], list[Outcome]] = {}
    for outcome in outcomes:
        parts.setdefault((outcome.arm, outcome.budget, outcome.seed), []).append(outcome)

    rows: np.ndarray | None = None
    runs: dict[Cell, dict[int, np.ndarray]] = {}
    used: dict[Cell, list[int]] = {}
    for (arm, budget, seed), folds in parts.items():
        found = np.concatenate([fold.rows for fold in folds])
        order = np.argsort(found, kind="stable")
        found = found[order]
        rows = found if rows is None else rows
        if len(np.unique(found)) != len(found) or not np.array_equal(found, rows):
            raise UserError(
                f"arm {arm!r}, budget {budget}, seed {seed}: tested on {len(found)} rows that are not the "
                f"{len(rows)} rows of the first run; every run must test each of the same rows once"
            )
        runs.setdefault((arm, budget), {})[seed] = np.concatenate([fold.values for fold in folds])[order]
        used.setdefault((arm, budget), []).extend(fold.labelled for fold in folds)
    assert rows is not None
    return Pool(
        rows=rows,
        labels=np.asarray(labels)[rows],
        units=np.unique(np.asarray(units)[rows], return_inverse=True)[1].reshape(-1),
        runs=runs,
        labelled={cell: round(float(np.mean(counts))) for cell, counts in used.items()},
    )
