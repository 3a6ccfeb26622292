"""Which arms of a study see no label of the target, and what they close of the gap to one that sees them all."""

from typing import TYPE_CHECKING, Any

from mrtransfer.models.weights import parse_weights
from mrtransfer.study.outcome import load_outcome
from mrtransfer.study.plan import Plan
from mrtransfer.study.recipe import ArmSpec, Recipe
from mrtransfer.study.statistics.gap import Gap, gaps_closed
from mrtransfer.study.statistics.words import named

if TYPE_CHECKING:
    from mrtransfer.study.workshop import AnyWorkshop


def gap_closed(workshop: "AnyWorkshop", plan: Plan) -> dict[str, Any] | None:
    """Entry ``gap`` of the results, ready for JSON; None where no arm adapts to the target without its labels."""
    recipe = workshop.recipe
    gaps, notes = gaps_of(recipe)
    if not gaps and not notes:
        return None
    found: dict[str, Any] = {"gaps": []}
    if gaps:
        wanted = {name for gap in gaps for name in (gap.source_only, gap.oracle, *gap.adapted)}
        found = gaps_closed(
            gaps,
            [load_outcome(workshop.folder, run) for run in plan.runs if run.arm in wanted],
            workshop.target.labels,
            workshop.target.units,
            measures=workshop.measures,
            main=recipe.metric,
            margin=recipe.margin,
            resamples=recipe.resamples,
            unit=workshop.unit,
        )
    return found | {"notes": notes}


def gaps_of(recipe: Recipe) -> tuple[list[Gap], list[str]]:
    """Who is measured against whom, and sentences about arms for which the recipe has nobody.

    Measured are the arms that adapt, and source models that are shown harmonised scans. Source-only is the same network
    with the same weights as it is (``zero_shot``). The oracle learns from labels of the target on the same network:
    from the same weights where an arm does, tuned rather than probed, not harmonised, and of several alike the first.
    """
    found: dict[tuple[str, str], list[str]] = {}
    notes = []
    for name, arm in recipe.arms.items():
        if not _without_labels(arm):
            continue
        source_only, oracle = _source_only(recipe, arm), _oracle(recipe, arm)
        if source_only is None or oracle is None:
            lacking = (
                f"of the source model as it is (weights: {_word(arm)}, method: zero_shot)"
                if source_only is None
                else "that learns from the target's labels (an oracle, such as method: fine_tune)"
            )
            notes.append(f"What {named(name)} closes of the gap is not told: its network has no arm {lacking}.")
        else:
            found.setdefault((source_only, oracle), []).append(name)
    return [Gap(source_only, oracle, tuple(names)) for (source_only, oracle), names in found.items()], notes


def _without_labels(arm: ArmSpec) -> bool:
    """Whether the arm does something about the target without its labels."""
    return not arm.method.labels or (_is_harmonised(arm) and _is_as_it_is(arm))


def _is_harmonised(arm: ArmSpec) -> bool:
    return getattr(arm, "harmonise", None) is not None


def _is_as_it_is(arm: ArmSpec) -> bool:
    return not arm.method.learns and arm.method.needs_weights


def _source_only(recipe: Recipe, like: ArmSpec) -> str | None:
    for name, arm in recipe.arms.items():
        alike = arm.network == like.network and _start(arm) == _start(like)
        if alike and _is_as_it_is(arm) and not _is_harmonised(arm):
            return name
    return None


def _oracle(recipe: Recipe, like: ArmSpec) -> str | None:
    learn = {name: arm for name, arm in recipe.arms.items() if arm.method.learns and arm.method.labels}
    alike = [name for name, arm in learn.items() if arm.network == like.network]

    def lacks(name: str) -> tuple[bool, bool, bool]:
        arm = learn[name]
        return _start(arm) != _start(like), arm.method.cached, _is_harmonised(arm)

    return min(alike, key=lacks, default=None)


def _start(arm: ArmSpec) -> Any:
    return parse_weights(arm.weights)


def _word(arm: ArmSpec) -> str:
    return "source" if arm.starts_from_source else str(_start(arm).file)
