"""The report's tables, as rows of text for the page and as one tidy CSV of every number."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mrtransfer.study.report.forest import Scale, axis, ground, strip
from mrtransfer.study.report.froc import froc_rows
from mrtransfer.study.statistics.measures import Measures
from mrtransfer.study.statistics.words import budget_of, count_of

VERDICT_CLASS = {
    "helps": "good",
    "hurts": "bad",
    "no meaningful difference": "same",
    "too little data to say": "open",
}
VERDICT_SIGN = {"good": "▲", "bad": "▼", "same": "=", "open": "?"}
_CSV = (
    "record",
    "arm",
    "against",
    "budget",
    "labelled",
    "seed",
    "metric",
    "value",
    "low",
    "high",
    "p",
    "p_holm",
    "detectable",
    "verdict",
)


def arm_order(results: dict[str, Any]) -> list[str]:
    """Arms in the order of the study."""
    return list(dict.fromkeys(entry["arm"] for entry in results["arms"]))


def arm_tables(results: dict[str, Any], measures: Measures) -> list[dict[str, Any]]:
    """One table per budget, most labels first: every arm's metrics with interval, the best of each marked."""
    order, unit = arm_order(results), results["design"]["unit"]
    budgets = dict.fromkeys(entry["budget"] for entry in results["arms"])
    tables = []
    for budget in sorted(budgets, key=lambda one: float("inf") if one == "all" else one, reverse=True):
        entries = [entry for entry in results["arms"] if entry["budget"] == budget]
        metrics = [metric for metric in entries[0]["metrics"] if "/" not in metric]
        best = {metric: _best(entries, metric, measures) for metric in metrics}
        rows = [
            {
                "arm": entry["arm"],
                "index": order.index(entry["arm"]),
                "labelled": f"{entry['labelled']:,}",
                "seeds": len(entry["seeds"]),
                "cells": [_cell(entry["metrics"][metric], metric, best[metric], measures) for metric in metrics],
            }
            for entry in entries
        ]
        seeds = {len(entry["seeds"]) for entry in entries}
        labelled = max(entry["labelled"] for entry in entries)
        title = budget_of(budget, labelled, f"labelled {unit}")
        shared = count_of(seeds.pop(), "seed") if len(seeds) == 1 else None
        tables.append(
            {
                "title": title,
                "seeds": shared,
                "metrics": [_heading(metric, measures) for metric in metrics],
                "rows": rows,
            }
        )
    return tables


def region_table(results: dict[str, Any], measures: Measures) -> dict[str, Any] | None:
    """The metrics of every single region (``<region>/<metric>``), each arm with its most labels; None without any."""
    order = arm_order(results)
    names = list(results["arms"][0]["metrics"])
    regions = list(dict.fromkeys(name.rpartition("/")[0] for name in names if "/" in name))
    if not regions:
        return None
    metrics = [name.rpartition("/")[2] for name in names if name.startswith(f"{regions[0]}/")]
    last = {entry["arm"]: entry for entry in results["arms"]}  # budgets rise, so the last is the largest
    groups = []
    for region in regions:
        best = {metric: _best(list(last.values()), f"{region}/{metric}", measures) for metric in metrics}
        rows = [
            {
                "arm": arm,
                "index": order.index(arm),
                "cells": [
                    _cell(last[arm]["metrics"][f"{region}/{metric}"], f"{region}/{metric}", best[metric], measures)
                    for metric in metrics
                ],
            }
            for arm in order
        ]
        groups.append({"region": region, "rows": rows})
    return {"metrics": [_heading(metric, measures) for metric in metrics], "groups": groups}


def _heading(metric: str, measures: Measures) -> dict[str, str]:
    """A column's name and unit, and which way is better."""
    unit = measures.units.get(metric, "")
    lower = "" if measures.higher_is_better[metric] else "lower is better"
    return {"name": measures.words[metric], "unit": ", ".join(part for part in (unit, lower) if part)}


def _best(entries: Sequence[dict[str, Any]], metric: str, measures: Measures) -> float | None:
    values = [entry["metrics"][metric]["mean"] for entry in entries]
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    return max(known) if measures.higher_is_better[metric] else min(known)


def _cell(value: dict[str, Any], metric: str, best: float | None, measures: Measures) -> dict[str, Any]:
    if value["mean"] is None:
        return {"mean": "–", "interval": "undefined", "best": False}
    known = value["low"] is not None
    interval = f"{measures.number(value['low'], metric)}–{measures.number(value['high'], metric)}" if known else ""
    return {"mean": measures.number(value["mean"], metric), "interval": interval, "best": value["mean"] == best}


def comparison_table(results: dict[str, Any], measures: Measures) -> dict[str, Any] | None:
    """The comparisons in the main metric, pair by pair, each with its strip of the forest plot, all on one scale."""
    design = results["design"]
    main = design["main"]
    primary = [entry for entry in results["comparisons"] if entry["primary"]]
    if not primary:
        return None
    scale = Scale.over(primary, design["margin"])
    order = arm_order(results)
    groups = []
    for a, b in dict.fromkeys((entry["a"], entry["b"]) for entry in primary):
        rows = [_comparison_row(entry, scale, measures) for entry in primary if (entry["a"], entry["b"]) == (a, b)]
        groups.append({"a": a, "b": b, "a_index": order.index(a), "b_index": order.index(b), "rows": rows})
    sides = ("second better", "first better") if measures.higher_is_better[main] else ("first better", "second better")
    return {
        "groups": groups,
        "ground": ground(scale, design["margin"]),
        "axis": axis(scale, measures.scale(main), *sides),
    }


def _comparison_row(entry: dict[str, Any], scale: Scale, measures: Measures) -> dict[str, Any]:
    metric, known = entry["metric"], entry["low"] is not None
    kind = VERDICT_CLASS[entry["verdict"]]
    return {
        "budget": f"{'all ' if entry['budget'] == 'all' and entry['labelled'] > 1 else ''}{entry['labelled']:,}",
        "strip": strip(entry, scale, kind),
        "difference": signed(entry["difference"], metric, measures),
        "interval": f"{measures.number(entry['low'], metric)} to {measures.number(entry['high'], metric)}"
        if known
        else "–",
        "p": p_text(entry["p"]),
        "p_holm": p_text(entry["p_holm"]),
        "detectable": "–" if entry["detectable"] is None else measures.number(entry["detectable"], metric),
        "verdict": entry["verdict"],
        "reason": entry["reason"],
        "kind": kind,
        "sign": VERDICT_SIGN[kind],
    }


def other_comparisons(results: dict[str, Any], measures: Measures) -> list[dict[str, Any]]:
    """The paired differences in the other metrics, at the largest budget that each pair shares."""
    rows = []
    entries = [entry for entry in results["comparisons"] if not entry["primary"] and "/" not in entry["metric"]]
    metrics = list(dict.fromkeys(entry["metric"] for entry in entries))
    for a, b in dict.fromkeys((entry["a"], entry["b"]) for entry in entries):
        cells = []
        for metric in metrics:
            last = [entry for entry in entries if (entry["a"], entry["b"], entry["metric"]) == (a, b, metric)][-1]
            known = last["low"] is not None
            interval = (
                f"{measures.number(last['low'], metric)} to {measures.number(last['high'], metric)}" if known else ""
            )
            clear = last["p_holm"] is not None and last["p_holm"] < results["design"]["alpha"]
            cells.append({"mean": signed(last["difference"], metric, measures), "interval": interval, "best": clear})
        rows.append({"a": a, "b": b, "cells": cells})
    return [{"metrics": [_heading(metric, measures) for metric in metrics], "rows": rows}] if rows else []


def signed(value: float | None, metric: str, measures: Measures) -> str:
    """A difference with its sign."""
    if value is None:
        return "–"
    text = measures.number(value, metric)
    return text if text.startswith("−") or float(text) == 0 else f"+{text}"


def p_text(value: float | None) -> str:
    """A p value as papers print it."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def csv_text(results: dict[str, Any], more: Iterable[dict[str, Any]] = ()) -> str:
    """Every number of the study as one tidy table: one row per value, empty where a column does not apply.

    ``more``: further rows of the same columns.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _CSV, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_rows(results))
    writer.writerows(more)
    return stream.getvalue()


def _csv_rows(results: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in results["arms"]:
        for metric, value in entry["metrics"].items():
            common = {key: entry[key] for key in ("arm", "budget", "labelled")} | {"metric": metric}
            yield common | {"record": "arm", "value": value["mean"], "low": value["low"], "high": value["high"]}
            for seed, one in zip(entry["seeds"], value["per_seed"], strict=True):
                yield common | {"record": "seed", "seed": seed, "value": one}
    for entry in results["comparisons"]:
        kept = {key: entry[key] for key in _CSV if key in entry}
        yield kept | {
            "record": "comparison",
            "arm": entry["a"],
            "against": entry["b"],
            "value": entry["difference"],
        }
    if results.get("localisation"):
        yield from _csv_rows({**results["localisation"], "label_saving": []})
    if results.get("froc"):
        yield from froc_rows(results["froc"])
    for entry in results["label_saving"]:
        yield {
            "record": "labels_needed",
            "arm": entry["a"],
            "against": entry["b"],
            "labelled": entry["b_labels"],
            "metric": entry["metric"],
            "value": entry["a_labels"],
            "low": entry["low"],
            "high": entry["high"],
        }
