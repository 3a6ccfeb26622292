"""The model that is handed over: the best arm, chosen on validation data, trained on all the labels there are."""

import shutil
from typing import Any

import numpy as np

from mrtransfer.common.files import digest, read_json
from mrtransfer.data.split import draw
from mrtransfer.study.execute import fit_heads
from mrtransfer.study.outcome import load_probabilities
from mrtransfer.study.plan import Plan, Run
from mrtransfer.study.workshop import Workshop
from mrtransfer.tasks.classification.metrics import HIGHER_IS_BETTER, evaluate


def best_arm(plan: Plan, workshop: Workshop) -> str:
    """The arm with the best mean validation score at the largest budget; the test sets have no say.

    Without validation rows the first arm of the recipe is taken.
    """
    recipe = workshop.recipe
    scores: dict[str, list[float]] = {name: [] for name in recipe.arms}
    for run in plan.runs:
        if run.budget == recipe.budgets[-1] and len(run.drawn.validation):
            probabilities = load_probabilities(workshop.folder, run.key)["validation"]
            value = evaluate(workshop.target.labels[run.drawn.validation], probabilities)[recipe.metric]
            if value is not None and np.isfinite(value):
                scores[run.arm].append(value if HIGHER_IS_BETTER[recipe.metric] else -value)
    return max(scores, key=lambda name: float(np.mean(scores[name])) if scores[name] else -np.inf)


def train_final(arm: str, plan: Plan, workshop: Workshop, results: dict[str, Any]) -> dict[str, Any]:
    """Train ``arm`` once more, for use, and write the model folder ``model``; returns its part of the results.

    In a cross-validation it learns from every sample: its expected performance is the arm's cross-validated one. With a
    held-out or published test set it never sees that.
    """
    target, recipe = workshop.target, workshop.recipe
    rows = np.arange(len(target.labels)) if len(plan.folds) > 1 else plan.folds[0].development
    like = next(run for run in plan.runs if run.arm == arm)
    seed = recipe.seeds[0]
    drawn = draw(target.labels, target.units, rows, budget="all", validation=recipe.target.split.validation, seed=seed)
    key = digest(["final", like.key, digest(drawn.train.tolist()), digest(drawn.validation.tolist())])
    run = Run(arm, like.spec, like.weights, like.source, "all", seed, -1, drawn, np.zeros(0, dtype=int), key)
    expected = next(e for e in reversed(results["arms"]) if e["arm"] == arm)
    described = {"arm": arm, "labelled": drawn.units, "expected": expected["metrics"], "key": key}
    folder = workshop.folder / "model"
    if (folder / "model.json").is_file() and read_json(folder / "model.json")["record"].get("key") == key:
        return described
    record = {**described, "question": recipe.question}
    fresh = workshop.folder / "unfinished" / f"model-{key}"
    parts = [drawn.train, drawn.validation]
    if like.spec.method.cached:
        initial = workshop.initial(run.spec, run.weights, run.source, seed)
        head = fit_heads([run], workshop.features(run.spec, initial), workshop)[0].head()
        workshop.save(fresh, run.spec, initial.backbone, head, target, parts, record)
    else:
        trained = workshop.train(
            run.spec,
            run.weights,
            run.source,
            target,
            *parts,
            seed=seed,
            checkpoints=workshop.folder / "unfinished" / key,
        )
        workshop.save(fresh, run.spec, trained.backbone, trained.head, target, parts, record)
        trained.discard_checkpoints()
    shutil.rmtree(folder, ignore_errors=True)  # only now: a full disk must not cost the former model
    fresh.replace(folder)
    return described
