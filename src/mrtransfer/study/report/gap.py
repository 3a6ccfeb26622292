"""What the report says of arms without target labels: the share that each closes of the gap to an oracle."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mrtransfer.study.report import tables
from mrtransfer.study.report.forest import Scale, axis, ground, strip
from mrtransfer.study.statistics.measures import Measures


def gap_view(found: Mapping[str, Any] | None, measures: Measures, order: Sequence[str]) -> dict[str, Any] | None:
    """The results' ``gap`` ready to print; ``order``: the study's arms, whose signs the table shows."""
    if not found:
        return None
    shares = [_as_difference(entry) for gap in found["gaps"] for entry in gap["arms"] if entry["share"] is not None]
    scale = Scale.over([*shares, {"low": 0.0, "high": 1.0, "difference": 0.0}], 0.0)
    return {
        "metric": measures.words[found["metric"]] if found["gaps"] else "",
        "points": " (points)" if found["gaps"] and measures.is_share(found["metric"]) else "",
        "groups": [
            {
                "sentence": gap["sentence"],
                "clear": gap["clear"],
                "rows": [_row(entry, scale, found["metric"], measures, order) for entry in gap["arms"]],
            }
            for gap in found["gaps"]
        ],
        "ground": ground(scale, 0.0),
        "axis": axis(scale, 100, "worse than source only", "the oracle is at 100 %"),
        "told": bool(shares),
        "rule": found.get("rule"),
        "notes": found["notes"],
    }


def _row(
    entry: Mapping[str, Any], scale: Scale, metric: str, measures: Measures, order: Sequence[str]
) -> dict[str, Any]:
    kind = tables.VERDICT_CLASS[entry["verdict"]]
    known, share = entry["low"] is not None, _as_difference(entry)
    return {
        "arm": entry["a"],
        "index": order.index(entry["a"]),
        "strip": strip(share, scale, kind),
        "share": _percent(share["difference"]),
        "share_interval": "" if share["low"] is None else f"{_percent(share['low'])} to {_percent(share['high'])}",
        "gain": tables.signed(entry["difference"], metric, measures),
        "interval": f"{measures.number(entry['low'], metric)} to {measures.number(entry['high'], metric)}"
        if known
        else "",
        "p_holm": tables.p_text(entry["p_holm"]),
        "verdict": entry["verdict"],
        "kind": kind,
        "sign": tables.VERDICT_SIGN[kind],
        "sentence": entry["sentence"],
    }


def _as_difference(entry: Mapping[str, Any]) -> dict[str, float | None]:
    """The share as a strip of a forest plot wants it; without an end, its interval is not drawn."""
    bounded = entry["share_low"] is not None and entry["share_high"] is not None
    return {
        "difference": entry["share"],
        "low": entry["share_low"] if bounded else None,
        "high": entry["share_high"] if bounded else None,
    }


def gap_rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The results' ``gap`` as rows of the tidy table: the share closed, arm by arm."""
    for gap in found["gaps"]:
        for entry in gap["arms"]:
            yield {
                "record": "gap",
                "arm": entry["a"],
                "against": gap["oracle"],
                "budget": gap["budget"],
                "labelled": gap["labelled"],
                "metric": f"{found['metric']}/share_of_gap_closed",
                "value": entry["share"],
                "low": entry["share_low"],
                "high": entry["share_high"],
                "p": entry["p"],
                "p_holm": entry["p_holm"],
                "verdict": entry["verdict"],
            }


def _percent(share: float | None) -> str:
    if share is None:
        return "–"
    text = f"{100 * share:.0f}"
    return "0" if text == "-0" else text.replace("-", "−")
