"""From the outcomes of all runs to a study's numbers: arms, paired comparisons, labels saved, verdict."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.plain import plain
from mrtransfer.study.statistics.bootstrap import Bootstrap
from mrtransfer.study.statistics.compare import ALPHA, FEWEST_SEEDS, FEWEST_UNITS, compare_arms
from mrtransfer.study.statistics.measures import CLASSIFICATION, Measures
from mrtransfer.study.statistics.pool import Outcome, Pool, pool
from mrtransfer.study.statistics.saving import label_saving
from mrtransfer.study.statistics.verdict import pair_verdict, study_verdict
from mrtransfer.study.statistics.words import Words, count_of, sentence


def analyse(
    outcomes: Sequence[Outcome],
    labels: np.ndarray,
    units: np.ndarray,
    *,
    measures: Measures = CLASSIFICATION,
    metrics: Sequence[str] | None = None,
    main: str | None = None,
    margin: float,
    compare: Sequence[tuple[str, str]],
    resamples: int = 2000,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    unit: str = "subject",
    topic: str = "Transfer",
) -> dict[str, Any]:
    """The statistics of a study, ready for JSON (no NaN: what is undefined is None).

    Args:
        outcomes: one per run and fold, in the order in which the study names its arms.
        labels: integer class (N,) of every row of the manifest; measures of a table do not look at it.
        units: what is resampled, one value (N,) per row: subject, or duplicate cluster.
        measures: the task's metrics; outcomes hold the values that they want.
        metrics: which of them to report, by default all; ``main``, by default the first, is the one that decides.
        margin: a smaller difference in ``main`` would not matter, as a share (0.01 is one point).
        compare: pairs (a, b), each asking whether a is better than b; the first pair gives the study's verdict.
        resamples: bootstrap resamples; raised where Holm's correction over many comparisons needs more to reach 5 %.
        seed: of the resampling.
        classes: names of the classes, for notes.
        unit: the word for one unit in sentences.
        topic: what is being tried, as a sentence begins with it.

    Returns:
        ``design``, ``arms``, ``comparisons``, ``label_saving``, ``verdict`` and ``notes``.
    """
    main = main or measures.names[0]
    names = _checked_metrics(measures, metrics, main)
    if margin < 0:
        raise UserError(f"margin: {margin} is negative; right is the smallest difference that matters, such as 0.01")
    pooled = pool(outcomes, labels, units)
    pairs = _checked_pairs(compare, pooled)
    family = sum(len(pooled.compared(a, b)) for a, b in pairs)
    resamples = max(resamples, 80 * family)  # so that the smallest corrected p, 2 × family / resamples, is ≤ 0.025
    bootstrap = Bootstrap(pooled, measures, names, resamples, seed)
    words = Words(measures, main, margin, unit, topic)

    comparisons = compare_arms(bootstrap, pairs, names, main, margin)
    savings, verdicts = [], []
    for a, b in pairs:
        saving = label_saving(bootstrap, a, b, main)
        if saving is not None:
            savings.append(saving | {"sentence": sentence(words.saving(saving))})
        own = [entry for entry in comparisons if entry["primary"] and (entry["a"], entry["b"]) == (a, b)]
        if own:
            verdicts.append(pair_verdict(a, b, own, saving, words))
    found = {
        "design": _design(bootstrap, family, main, margin, unit),
        "arms": _arms(bootstrap, names),
        "comparisons": comparisons,
        "label_saving": savings,
        "verdict": study_verdict(verdicts, words),
        "notes": _notes(bootstrap, names, classes, unit),
    }
    return plain(found)


def _checked_metrics(measures: Measures, metrics: Sequence[str] | None, main: str) -> list[str]:
    wanted = list(dict.fromkeys([*(measures.names if metrics is None else metrics), main]))
    for name in wanted:
        measures.check(name)
    return wanted


def _checked_pairs(compare: Sequence[tuple[str, str]], pooled: Pool) -> list[tuple[str, str]]:
    pairs = list(dict.fromkeys((a, b) for a, b in compare))
    for name in (name for pair in pairs for name in pair):
        if name not in pooled.arms:
            raise unknown_name("arm", name, pooled.arms)
    for a, b in pairs:
        if a == b:
            raise UserError(f"compare: {a!r} is compared with itself; name two different arms")
    return pairs


def _arms(bootstrap: Bootstrap, metrics: list[str]) -> list[dict[str, Any]]:
    """Every arm at every budget: mean over seeds with 95 % interval, metric by metric."""
    entries = []
    for arm in bootstrap.pool.arms:
        for budget in bootstrap.pool.budgets(arm):
            cell = (arm, budget)
            seeds = bootstrap.pool.seeds(cell)
            described = {}
            for metric in metrics:
                found = bootstrap.estimate(bootstrap.values(cell, metric, seeds), metric)
                described[metric] = {
                    "mean": found.value,
                    "low": found.low,
                    "high": found.high,
                    "per_seed": found.per_seed.tolist(),
                }
            entries.append(
                {
                    "arm": arm,
                    "budget": budget,
                    "labelled": bootstrap.pool.labelled[cell],
                    "seeds": seeds,
                    "metrics": described,
                }
            )
    return entries


def _design(bootstrap: Bootstrap, family: int, main: str, margin: float, unit: str) -> dict[str, Any]:
    """What the study was able to show before it began."""
    pooled = bootstrap.pool
    seeds = min(len(runs) for runs in pooled.runs.values())
    units = pooled.unit_count
    return {
        "main": main,
        "margin": margin,
        "alpha": ALPHA,
        "unit": unit,
        "units": units,
        "samples": len(pooled.labels),
        "seeds": seeds,
        "resamples": bootstrap.resamples,
        "comparisons": family,
        "smallest_p": max(2 / (bootstrap.resamples + 1), 2.0 ** (1 - units)),
        "smallest_p_seeds_alone": 2.0 ** (1 - seeds),
        "conclusive": seeds >= FEWEST_SEEDS and units >= FEWEST_UNITS,
    }


def _notes(bootstrap: Bootstrap, metrics: list[str], classes: Sequence[str] | None, unit: str) -> list[str]:
    """Sentences about what limits these numbers."""
    pooled = bootstrap.pool
    every = [values for runs in pooled.runs.values() for values in runs.values()]
    notes = bootstrap.measures.notes(pooled.labels, every, metrics, classes)
    single = [f"{arm} ({budget})" for (arm, budget), runs in pooled.runs.items() if len(runs) < FEWEST_SEEDS]
    if single:
        shown = ", ".join(single[:4]) + (f" and {len(single) - 4} more" if len(single) > 4 else "")
        notes.append(
            f"One seed only for {shown}: the intervals cover the choice of test {unit}s and not the chance in training."
        )
    if pooled.unit_count < FEWEST_UNITS:
        notes.append(
            f"Only {count_of(pooled.unit_count, f'independent test {unit}')}: "
            f"no verdict is possible with fewer than {FEWEST_UNITS}."
        )
    return notes
