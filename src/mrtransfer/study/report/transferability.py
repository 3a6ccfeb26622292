"""What the report says of transferability: scores beside gains, and whether the ones foretold the others."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mrtransfer.study.report import tables
from mrtransfer.study.statistics.measures import Measures
from mrtransfer.study.statistics.words import budget_of

_KINDS = {"score": "", "distance": "distance", "baseline": "baseline"}


def transferability_view(
    found: Mapping[str, Any] | None, measures: Measures, order: Sequence[str], unit: str
) -> dict[str, Any] | None:
    """The results' ``transferability`` ready to print; ``order``: the study's arms, whose signs the tables show."""
    if not found:
        return None
    scores, metric = found["scores"], found["metric"]
    budgets = dict.fromkeys(entry["budget"] for entry in found["correlations"])
    ranked = [_correlations(found, budget, unit) for budget in reversed(budgets)]
    return {
        "sentence": found["sentence"],
        "metric": measures.words[metric],
        "points": " (points)" if measures.is_share(metric) else "",
        "heads": [{"words": score["words"], "kind": _KINDS[score["kind"]]} for score in scores],
        "rows": [_row(arm, scores, metric, measures, order) for arm in found["arms"]],
        "correlations": ranked,
        "told": any(row["known"] for table in ranked for row in table["rows"]),
        "lacking": _lacking(found),
        "notes": found["notes"],
    }


def _row(
    arm: Mapping[str, Any], scores: Sequence[Mapping[str, Any]], metric: str, measures: Measures, order: Sequence[str]
) -> dict[str, Any]:
    """An arm with its gain at its largest budget, and all its scores."""
    last: Mapping[str, Any] = arm["gains"][-1] if arm["gains"] else dict.fromkeys(("gain", "low", "high"))
    low, high = last["low"], last["high"]
    known = low is not None and high is not None
    return {
        "arm": arm["arm"],
        "index": order.index(arm["arm"]),
        "against": arm["against"],
        "gain": tables.signed(last["gain"], metric, measures),
        "interval": f"{measures.number(low, metric)} to {measures.number(high, metric)}" if known else "",
        "cells": [_number(arm["scores"].get(score["name"])) for score in scores],
    }


def _correlations(found: Mapping[str, Any], budget: Any, unit: str) -> dict[str, Any]:
    """One budget's rank correlations, one row per score."""
    own = {entry["score"]: entry for entry in found["correlations"] if entry["budget"] == budget}
    gains = [gain["labelled"] for arm in found["arms"] for gain in arm["gains"] if gain["budget"] == budget]
    rows = [
        {
            "words": score["words"],
            "kind": _KINDS[score["kind"]],
            "arms": own[score["name"]]["values"],
            "networks": own[score["name"]]["units"],
            "kendall": _tau(own[score["name"]], "kendall"),
            "spearman": _tau(own[score["name"]], "spearman"),
            "p": tables.p_text(own[score["name"]]["p"]),
            "p_holm": tables.p_text(own[score["name"]]["p_holm"]),
            "known": own[score["name"]]["kendall"] is not None,
        }
        for score in found["scores"]
        if score["name"] in own
    ]
    return {"title": budget_of(budget, max(gains, default=0), f"labelled {unit}"), "rows": rows}


def _tau(entry: Mapping[str, Any], name: str) -> dict[str, str]:
    """A coefficient and its interval in two decimals."""
    value, low, high = (entry[key] for key in (name, f"{name}_low", f"{name}_high"))
    return {
        "value": "–" if value is None else _two(value),
        "interval": "" if low is None or high is None else f"{_two(low)} to {_two(high)}",
    }


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}".replace("-", "−")


def _lacking(found: Mapping[str, Any]) -> list[str]:
    """Why a score that any arm has is not there for others."""
    words = {score["name"]: score["words"] for score in found["scores"]}
    reasons: dict[tuple[str, str], list[str]] = {}
    for arm in found["arms"]:
        for name, reason in arm["missing"].items():
            if name in words:
                reasons.setdefault((words[name], reason), []).append(arm["arm"])
    return [f"{score} of {', '.join(arms)}: {reason}." for (score, reason), arms in reasons.items()]


def transferability_rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The results' ``transferability`` as rows of the tidy table: gains, scores, rank correlations (Kendall's τ)."""
    for arm in found["arms"]:
        common = {"arm": arm["arm"], "against": arm["against"]}
        for gain in arm["gains"]:
            yield common | {
                "record": "gain",
                "budget": gain["budget"],
                "labelled": gain["labelled"],
                "metric": found["metric"],
                "value": gain["gain"],
                "low": gain["low"],
                "high": gain["high"],
            }
        for name, value in arm["scores"].items():
            yield {"record": "transferability_score", "arm": arm["arm"], "metric": name, "value": value}
    for entry in found["correlations"]:
        yield {
            "record": "rank_correlation",
            "budget": entry["budget"],
            "metric": entry["score"],
            "value": entry["kendall"],
            "low": entry["kendall_low"],
            "high": entry["kendall_high"],
            "p": entry["p"],
            "p_holm": entry["p_holm"],
        }
