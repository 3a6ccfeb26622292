"""The model that is handed over: the best arm, chosen on validation data, trained on all the labels there are."""

import shutil
from typing import Any

import numpy as np

from mrtransfer.common.files import digest, read_json
from mrtransfer.study.execute import job_of
from mrtransfer.study.outcome import load_scores
from mrtransfer.study.plan import ALL, Plan, Run, labelled
from mrtransfer.study.workshop import AnyWorkshop, Scores


def best_arm(plan: Plan, workshop: AnyWorkshop) -> str:
    """The arm with the best mean validation score at the largest budget; the test sets have no say.

    Without validation rows it is the arm that the recipe asks about, the first of its ``compare``; or its first arm.
    """
    recipe = workshop.recipe
    asked_about = [pair[0] for pair in recipe.compare[:1]]
    scores: dict[str, list[float]] = {name: [] for name in (*asked_about, *recipe.arms)}
    sign = workshop.measures.sign(recipe.metric)
    for run in plan.runs:
        if run.budget == recipe.budgets[-1]:
            value = _value(load_scores(workshop.folder, run.key, "validation"), workshop)
            if np.isfinite(value):
                scores[run.arm].append(sign * value)
    return max(scores, key=lambda name: float(np.mean(scores[name])) if scores[name] else -np.inf)


def _value(scores: Scores, workshop: AnyWorkshop) -> float:
    """The recipe's metric on these rows; NaN where there are none."""
    if not len(scores.rows):
        return float("nan")
    metric, labels = workshop.recipe.metric, workshop.target.labels[scores.rows]
    found = workshop.measures.resampled(labels, scores.values, np.ones((1, len(labels))), metrics=[metric])
    return float(found[metric][0])


def train_final(arm: str, plan: Plan, workshop: AnyWorkshop, results: dict[str, Any]) -> dict[str, Any]:
    """Train ``arm`` once more, for use, and write the model folder ``model``; returns its part of the results.

    In a cross-validation it learns from every sample: its expected performance is the arm's cross-validated one. With a
    held-out or published test set it never sees that.
    """
    target, recipe = workshop.target, workshop.recipe
    rows = np.arange(len(target.labels)) if len(plan.folds) > 1 else plan.folds[0].development
    like = next(run for run in plan.runs if run.arm == arm)
    seed = recipe.seeds[0]
    drawn = labelled(recipe, target, rows, "all", seed)
    key = digest(["final", like.key, digest(drawn.train.tolist()), digest(drawn.validation.tolist())])
    unlabelled = None if like.unlabelled is None else rows
    nobody = np.zeros(0, dtype=int)
    run = Run(arm, like.spec, like.weights, like.source, "all", seed, ALL, drawn, nobody, key, unlabelled)
    expected = next(e for e in reversed(results["arms"]) if e["arm"] == arm)
    described = {"arm": arm, "labelled": run.labelled, "expected": expected["metrics"], "key": key}
    folder = workshop.folder / "model"
    if (folder / "model.json").is_file() and read_json(folder / "model.json")["record"].get("key") == key:
        return described
    record = {**described, "question": recipe.question}
    fresh = workshop.folder / "unfinished" / f"model-{key}"
    workshop.make_model(run, job_of(run, workshop), fresh, record)
    shutil.rmtree(folder, ignore_errors=True)  # only now: a full disk must not cost the former model
    fresh.replace(folder)
    return described
