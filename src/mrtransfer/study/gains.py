"""What transferred weights gained: each arm that starts from some, against its like that starts at random."""

from typing import Any

from mrtransfer.models.weights import parse_weights
from mrtransfer.study.outcome import load_outcome
from mrtransfer.study.plan import Plan
from mrtransfer.study.recipe import ArmSpec, Recipe
from mrtransfer.study.statistics.bootstrap import Bootstrap
from mrtransfer.study.statistics.compare import compare_arms
from mrtransfer.study.statistics.pool import pool
from mrtransfer.study.workshop import AnyWorkshop

TRANSFERRED = ("imagenet", "source", "file")
"""Kinds of weights that carry what was learned elsewhere."""


def transferred(recipe: Recipe) -> list[str]:
    """The arms that start from such weights."""
    return [name for name, arm in recipe.arms.items() if parse_weights(arm.weights).kind in TRANSFERRED]


def counterparts(recipe: Recipe) -> dict[str, str]:
    """Arms that start from transferred weights, and the arm without that each is to be compared with.

    That is one of the same network that learns from labels after a random start: one that the recipe compares it with,
    or else one of the method ``scratch``; and of several the one that is most like it.
    """
    random = [name for name, arm in recipe.arms.items() if parse_weights(arm.weights).kind == "random"]
    compared = {frozenset(pair) for pair in recipe.comparisons}
    found = {}
    for name in transferred(recipe):
        own = recipe.arms[name].network
        able = [other for other in random if recipe.arms[other].network == own and _learns(recipe.arms[other])]
        if able:
            found[name] = min(able, key=lambda other: _distance_of(recipe, compared, name, other))
    return found


def _learns(arm: ArmSpec) -> bool:
    return arm.method.learns and getattr(arm.method, "labels", True)


def _distance_of(recipe: Recipe, compared: set[frozenset[str]], name: str, other: str) -> tuple[bool, bool, int]:
    first, second = (recipe.arms[arm].model_dump(mode="json", exclude={"weights", "method"}) for arm in (name, other))
    unlike = sum(first[key] != second.get(key) for key in first)
    return frozenset((name, other)) not in compared, recipe.arms[other].method.name != "scratch", unlike


def gains_of(
    workshop: AnyWorkshop, plan: Plan, results: dict[str, Any], pairs: dict[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """For each arm, budget by budget, the difference to its counterpart, positive where the arm is better."""
    main = results["design"]["main"]
    entries = [entry for entry in results["comparisons"] if entry["primary"]]
    known = {frozenset((entry["a"], entry["b"])) for entry in entries}
    others = [(a, b) for a, b in pairs.items() if frozenset((a, b)) not in known]
    if others:
        wanted = {arm for pair in others for arm in pair}
        outcomes = [load_outcome(workshop.folder, run) for run in plan.runs if run.arm in wanted]
        pooled = pool(outcomes, workshop.target.labels, workshop.target.units)
        bootstrap = Bootstrap(pooled, workshop.measures, [main], results["design"]["resamples"], 0)
        entries += compare_arms(bootstrap, others, [main], main, results["design"]["margin"])
    gains: dict[str, list[dict[str, Any]]] = {name: [] for name in pairs}
    for entry in entries:
        for name, other, sign in ((entry["a"], entry["b"], 1), (entry["b"], entry["a"], -1)):
            if pairs.get(name) == other:
                gains[name].append(_gain(entry, sign * workshop.measures.sign(main)))
    return gains


def _gain(entry: dict[str, Any], sign: int) -> dict[str, Any]:
    ends = [None if entry[key] is None else sign * entry[key] for key in ("low", "high")][::sign]
    return {
        "budget": entry["budget"],
        "labelled": entry["labelled"],
        "gain": None if entry["difference"] is None else sign * entry["difference"],
        "low": ends[0],
        "high": ends[1],
    }
