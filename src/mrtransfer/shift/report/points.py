"""Maps on the page: dots as paths that need no script, and what a small script shows of the dot under the pointer."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from mrtransfer.shift.placed import COORDINATES, THUMBNAILS

COLOURED = ("domain", "class", "scanner")
_COLOURS = 8
_MARGIN = 4.0
_OTHERS = "others"
_STRIP = 430  # pixels for the examples of a domain


def read_points(folder: Path) -> pd.DataFrame:
    """The table of coordinates that a comparison left in ``folder``; a row per slice on the maps."""
    texts = dict.fromkeys(("domain", "subject", "sample", "class", "scanner"), str)
    table: pd.DataFrame = pd.read_csv(folder / COORDINATES, dtype=texts, keep_default_na=False, na_values={})
    return table


def columns_of(feature: str, method: str) -> list[str]:
    """The columns of a map in the table of coordinates."""
    return [f"{feature}_{method}_1", f"{feature}_{method}_2"]


def colourings(table: pd.DataFrame) -> dict[str, list[str]]:
    """What dots are coloured by (domain; class and scanner where known) to its values; the ninth and on are others."""
    found = {}
    for name in COLOURED:
        counts = table[name][table[name] != ""].value_counts()
        order = sorted(counts.index, key=lambda value: (-counts[value], value))
        values = [*sorted(order[: _COLOURS - 1]), _OTHERS] if len(order) > _COLOURS else sorted(order)
        if values and (name == "domain" or len(values) > 1 or (table[name] == "").any()):
            found[name] = values
    return found


def groups_of(table: pd.DataFrame, name: str, values: list[str]) -> list[np.ndarray]:
    """The rows of each of ``values``, and last those whose value is not known."""
    own = table[name].to_numpy(dtype=object)
    known = [np.flatnonzero(own == value) for value in values if value != _OTHERS]
    rest = np.setdiff1d(np.flatnonzero(own != ""), np.concatenate(known))
    return [*known, *([rest] if _OTHERS in values else []), np.flatnonzero(own == "")]


def maps_view(folder: Path, results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Panels per feature (a row per colouring, a column per map), legends, and the script's data; None without maps.

    The feature that shows the largest shift comes first.
    """
    maps = results["maps"]
    if not maps["drawn"]:
        return None
    largest = [family["feature"] for family in results["verdict"]["families"]]
    order = sorted(maps["drawn"], key=lambda one: (*largest, one["feature"]).index(one["feature"]))
    table = read_points(folder)
    shown = colourings(table)
    features: dict[str, list[dict[str, Any]]] = {}
    places: dict[str, list[list[float]]] = {}
    for drawn in order:
        key = f"{drawn['feature']}-{drawn['method']}"
        at = _on_page(table[columns_of(drawn["feature"], drawn["method"])].to_numpy(dtype=float))
        places[key] = at.tolist()
        panels = {name: _paths(at, groups_of(table, name, values)) for name, values in shown.items()}
        features.setdefault(drawn["feature"], []).append({"key": key, "words": drawn["words"], "panels": panels})
    sprite = base64.b64encode((folder / THUMBNAILS).read_bytes()).decode()
    data = {
        "places": places,
        "slices": table[["domain", "subject", "sample", "class", "scanner"]].to_numpy().tolist(),
        "pictures": [None if np.isnan(one) else int(one) for one in pd.to_numeric(table["thumbnail"], errors="coerce")],
        **{key: maps["thumbnails"][key] for key in ("side", "width", "across")},
    }
    unknown = {name: bool((table[name] == "").any()) for name in shown}
    return {
        "features": features,
        "colourings": shown,
        "unknown": unknown,
        "points": len(table),
        "sprite": f"data:image/jpeg;base64,{sprite}",
        "examples": _examples(data),
        "data": _script_data(data),
        "side": maps["thumbnails"]["side"],
        "width": maps["thumbnails"]["width"],
    }


def _examples(data: Mapping[str, Any]) -> dict[str, list[str]]:
    """Domain to the places of some of its thumbnails, evenly spread, as CSS puts a background."""
    found = {}
    for domain in ("source", "target"):
        own = [
            number
            for (name, *_), number in zip(data["slices"], data["pictures"], strict=True)
            if name == domain and number is not None
        ]
        most = max(2, _STRIP // data["width"])
        chosen = sorted({own[round(place)] for place in np.linspace(0, len(own) - 1, min(most, len(own)))})
        cells = [
            (number % data["across"] * data["width"], number // data["across"] * data["side"]) for number in chosen
        ]
        found[domain] = [f"-{right}px -{down}px" for right, down in cells]
    return found


def _on_page(at: np.ndarray) -> np.ndarray:
    """Coordinates on a square of 100, y upwards, one scale for both axes."""
    low, high = at.min(axis=0), at.max(axis=0)
    scale = (100 - 2 * _MARGIN) / max(float((high - low).max()), 1e-12)
    moved = (at - (low + high) / 2) * scale * [1, -1] + 50
    return np.round(moved, 1) + 0.0


def _paths(at: np.ndarray, groups: list[np.ndarray]) -> Markup:
    """A path per group: a line of no length with round ends is a dot, and takes ten bytes."""
    paths = []
    for place, rows in enumerate(groups):
        if len(rows):
            colour = f"var(--s{place % _COLOURS + 1})" if place < len(groups) - 1 else "var(--rule)"
            dots = "".join(f"M{x:g} {y:g}h0" for x, y in at[rows])
            paths.append(f'<path style="stroke:{colour}" d="{dots}"/>')
    return Markup("".join(paths))


def _script_data(value: Any) -> Markup:
    """JSON that may stand in a script element, whatever names of samples hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
