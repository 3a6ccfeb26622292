"""Would anything have told beforehand which weights help? Scores and distances against the gains that were measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import digest
from mrtransfer.common.multiplicity import holm
from mrtransfer.common.plain import plain
from mrtransfer.common.progress import progress
from mrtransfer.shift.rank_correlation import RankCorrelation, rank_correlation
from mrtransfer.shift.score import Evidence, Score, parse_score
from mrtransfer.shift.scores import SCORES
from mrtransfer.study.evidence import MOST_SAMPLES, evidence_of
from mrtransfer.study.gains import counterparts, gains_of, transferred
from mrtransfer.study.plan import Plan, Run
from mrtransfer.study.statistics.words import count_of
from mrtransfer.study.transferability_words import sentence_of
from mrtransfer.study.workshop import AnyWorkshop


@dataclass(frozen=True)
class _Start:
    """One initial network: what is known of it, and its scores."""

    network: str
    weights: str
    scores: dict[str, float]
    missing: dict[str, str]


def transferability(workshop: AnyWorkshop, plan: Plan, results: dict[str, Any]) -> dict[str, Any] | None:
    """For ``results["transferability"]``; None where no arm starts from weights and has a counterpart without.

    The gain of an arm is its difference to an arm of the same network with random weights, in the study's main metric,
    positive where transfer helps: as the comparisons have it, or else worked out in the same way. Its scores are those
    of its initial network on the first fold's development rows, never on its test rows. Distances are those of
    ``results["shift"]``, for arms that start from the source. Nothing is trained; features that were computed for the
    study are found again.

    ``arms`` (gains and scores of each), ``scores`` (what they are), ``correlations`` (of each with the gains, by
    budget), ``sentence`` and ``notes``. Arms are compared with those of the same method only, and arms with the same
    initial network not at all: what is exchanged in the test are networks.
    """
    pairs = counterparts(workshop.recipe)
    rows = plan.folds[0].development
    if not pairs or not len(rows):
        return None
    gains = gains_of(workshop, plan, results, pairs)
    scores = [parse_score(name) for name in SCORES.names()]
    starts: dict[str, _Start] = {}
    arms = []
    with progress("Transferability scores", len(pairs)) as advance:
        for name, against in pairs.items():
            run = next(run for run in plan.runs if (run.arm, run.fold) == (name, plan.folds[0].index))
            own = _start(workshop, run, rows, scores, starts)
            arms.append(
                {
                    "arm": name,
                    "against": against,
                    "method": run.spec.method.name,
                    "start": list(starts).index(own),
                    "network": starts[own].network,
                    "weights": starts[own].weights,
                    "gains": gains[name],
                    "scores": {**starts[own].scores, **_distances(run, results)},
                    "missing": starts[own].missing,
                }
            )
            advance(1)
    described = [*_described(scores), *_described_distances(results, arms)]
    described = [entry for entry in described if any(entry["name"] in arm["scores"] for arm in arms)]
    correlations = _correlations(arms, described)
    return plain(
        {
            "metric": results["design"]["main"],
            "arms": arms,
            "scores": described,
            "correlations": correlations,
            "sentence": sentence_of(arms, correlations, described),
            "notes": _notes(workshop, rows, arms),
        }
    )


def _start(
    workshop: AnyWorkshop, run: Run, rows: np.ndarray, scores: Sequence[Score], starts: dict[str, _Start]
) -> str:
    """The name under which ``starts`` holds the run's initial network; arms that begin alike share it."""
    network, report = workshop.initial(run.spec, run.weights, run.source, workshop.target, run.fold, run.seed)
    seen = run.spec.model_dump(mode="json", exclude={"method", "weights", "augment", "loss"})
    name = digest([report.digest, seen])
    if name not in starts:
        try:
            values, missing = scored(scores, evidence_of(workshop, run, rows, network, report))
        except UserError as error:  # a study that is done must not fail for what is only told beside it
            values, missing = {}, {score.name: str(error) for score in scores}
        starts[name] = _Start(network.name, str(report.provenance.get("from", run.weights.kind)), values, missing)
    return name


def scored(scores: Sequence[Score], evidence: Evidence) -> tuple[dict[str, float], dict[str, str]]:
    """Every score that can be computed, and of the others why not, in words."""
    values, missing = {}, {}
    for score in scores:
        lack = score.lacks(evidence)
        if lack:
            missing[score.name] = f"needs {lack}"
            continue
        try:
            values[score.name] = score(evidence)
        except UserError as error:
            missing[score.name] = str(error)
    return values, missing


def _described(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """What each score is; baselines last."""
    entries = [
        {"name": one.name, "words": one.words, "kind": "baseline" if one.baseline else "score"} for one in scores
    ]
    return sorted(entries, key=lambda entry: entry["kind"] == "baseline")


def _distances(run: Run, results: dict[str, Any]) -> dict[str, float]:
    """Every distance of the source from the target, of an arm that starts from the source."""
    if run.weights.kind != "source" or not results.get("shift"):
        return {}
    rows = results["shift"].get("distances", [])
    return {_distance_name(row): row["value"] for row in rows if row.get("value") is not None}


def _described_distances(results: dict[str, Any], arms: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = (results.get("shift") or {}).get("distances", []) if arms else []
    return [
        {
            "name": _distance_name(row),
            "words": f"{row.get('words', row['distance'])}, {row.get('feature_words', row['feature'])}",
            "kind": "distance",
        }
        for row in rows
    ]


def _distance_name(row: dict[str, Any]) -> str:
    return f"{row['distance']} of {row['feature']}"


def _correlations(arms: Sequence[dict[str, Any]], scores: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every score with the gains at every budget; Holm's p is over all of them."""
    budgets = list(dict.fromkeys(gain["budget"] for arm in arms for gain in arm["gains"]))
    entries = []
    for budget in budgets:
        for score in scores:
            found = _correlation(arms, score["name"], budget)
            entries.append({"score": score["name"], "budget": budget, **found.to_json()})
    for entry, corrected in zip(entries, holm([entry["p"] for entry in entries]), strict=True):
        entry["p_holm"] = corrected
    return entries


def _correlation(arms: Sequence[dict[str, Any]], score: str, budget: Any) -> RankCorrelation:
    points = [
        (arm["scores"][score], gain["gain"], arm["start"], arm["method"])
        for arm in arms
        for gain in arm["gains"]
        if gain["budget"] == budget
        and score in arm["scores"]
        and gain["gain"] is not None
        and np.isfinite(gain["gain"])
    ]
    x, y, units, strata = zip(*points, strict=True) if points else ((), (), (), ())
    return rank_correlation(x, y, units=units, strata=strata)


def _notes(workshop: AnyWorkshop, rows: np.ndarray, arms: Sequence[dict[str, Any]]) -> list[str]:
    """What limits these numbers."""
    unit = workshop.unit
    count = len(np.unique(workshop.target.units[rows]))
    notes = [
        f"Scores were computed before any training, on the {count_of(count, unit)} of the first fold that may be "
        "learned from, with all their labels, whatever the budget."
    ]
    if workshop.recipe.task == "classification" and len(rows) > MOST_SAMPLES:
        notes.append(f"Of {len(rows):,} samples, {MOST_SAMPLES:,} were scored, evenly spread.")
    told = {arm["arm"] for arm in arms}
    alone = [name for name in transferred(workshop.recipe) if name not in told]
    if alone:
        notes.append(f"Left out, as no arm of the same network starts from random weights: {', '.join(alone)}.")
    return notes
