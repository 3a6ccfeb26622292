"""The numbers of a comparison, ready to print: on the page and on the terminal."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from mrtransfer.shift.design import p_text
from mrtransfer.shift.verdict import ALPHA, FAMILIES, OPEN


def number(value: float | None, digits: int = 3) -> str:
    """So many digits, as ``0.0712`` or ``1.2e−5``; ``–`` where there is none."""
    return "–" if value is None else f"{value:.{digits}g}".replace("e-0", "e-").replace("e+0", "e+").replace("-", "−")


def deviations(value: float | None) -> str:
    """``12.3``: standard deviations of the null, with the sign of a minus that is one."""
    return "–" if value is None else f"{value:,.{0 if abs(value) >= 99.95 else 1}f}".replace("-", "−")


def interval(row: Mapping[str, Any]) -> str:
    """``0.02 to 0.13``; empty where there is none."""
    return "" if row["low"] is None else f"{number(row['low'], 2)} to {number(row['high'], 2)}"


def families_view(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the verdict rests on, the largest first."""
    verdict = results["verdict"]
    words = {row["feature"]: row["feature_words"] for row in results["distances"]}
    widest = _widest([one["normalised"] for one in verdict["families"]])
    nothing = "cannot be said" if verdict["smallest_p_holm"] >= ALPHA else "not found"
    return [
        {
            "words": FAMILIES[one["family"]],
            "feature": one["feature"],
            "feature_words": words[one["feature"]],
            "deviations": deviations(one["normalised"]),
            "width": _width(one["normalised"], widest),
            "p": p_text(one["p"]),
            "p_holm": p_text(one["p_holm"]),
            "mark": "shifted" if one["shifted"] else nothing,
            "class": "bad" if one["shifted"] else "open" if verdict["kind"] == OPEN else "same",
        }
        for one in verdict["families"]
    ]


def distance_groups(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A group of rows per feature: every distance with its interval, its value above chance, and p."""
    rows = results["distances"]
    widest = _widest([row["normalised"] for row in rows])
    groups = []
    for feature, own in groupby(rows, key=lambda row: row["feature"]):
        several = list(own)
        groups.append(
            {
                "feature": feature,
                "words": several[0]["feature_words"],
                "family": FAMILIES[several[0]["family"]],
                "rows": [_distance_row(row, widest) for row in several],
            }
        )
    return groups


def _distance_row(row: Mapping[str, Any], widest: float) -> dict[str, Any]:
    return {
        "label": row["label"],
        "words": row["words"],
        "decides": row["decides"],
        "value": number(row["value"]),
        "interval": interval(row),
        "deviations": deviations(row["normalised"]),
        "width": _width(row["normalised"], widest),
        "p": p_text(row["p"]),
        "p_holm": p_text(row["p_holm"]),
        "note": row["details"].get("note"),
    }


def harmonised_groups(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A group of rows per harmoniser: how far apart every feature was before, and is after."""
    groups = []
    possible = results["verdict"]["smallest_p"] * len({row["feature"] for row in results["distances"]}) < ALPHA
    for words, own in groupby(results["harmonised"], key=lambda row: row["words"]):
        rows = [_harmonised_row(row, possible) for row in own]
        groups.append({"words": words, "rows": rows})
    return groups


def _harmonised_row(row: Mapping[str, Any], possible: bool) -> dict[str, Any]:
    before, after = row["before"], row["after"]
    found = [one["p_holm"] is not None and one["p_holm"] < ALPHA for one in (before, after)]
    change = {
        (True, True): "still shifted",
        (True, False): "no longer found",
        (False, True): "shifted only now",
        (False, False): "not found",
    }
    told = {
        f"{name}_{key}": text
        for name, one in (("before", before), ("after", after))
        for key, text in (
            ("value", number(one["value"])),
            ("interval", interval(one)),
            ("deviations", deviations(one["normalised"])),
            ("p_holm", p_text(one["p_holm"])),
        )
    }
    tone = "bad" if found[1] else "good" if found[0] else "same"
    mark = change[found[0], found[1]] if possible else "cannot be said"
    return {"feature": row["feature"], **told, "mark": mark, "class": tone if possible else "open"}


def _widest(values: Sequence[float | None]) -> float:
    return max([1.0, *(value for value in values if value is not None)])


def _width(value: float | None, widest: float) -> str:
    """The length of a bar, in per cent."""
    return f"{100 * max(0.0, value or 0.0) / widest:.1f}"
