"""Writes a study's report.html and results.csv."""

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from mrtransfer.common.files import write_text
from mrtransfer.common.pages import STYLE
from mrtransfer.study.report import figures, tables
from mrtransfer.study.report.canvas import SERIES
from mrtransfer.study.report.context import ReportContext
from mrtransfer.study.report.data import audit_view, data_views
from mrtransfer.study.report.froc import froc_view
from mrtransfer.study.report.gap import gap_rows, gap_view
from mrtransfer.study.report.localisation import localisation_view
from mrtransfer.study.report.shift import shift_view
from mrtransfer.study.report.together import together_panels
from mrtransfer.study.report.transferability import transferability_rows, transferability_view
from mrtransfer.study.statistics.measures import Measures
from mrtransfer.study.statistics.words import budget_of, count_of

_HERE = Path(__file__).parent
_THUMBNAIL = 168  # pixels: sharp at the size shown, and small in the file


def draw_report(folder: Path, results: Mapping[str, Any], context: ReportContext | None = None) -> Path:
    """Write ``report.html`` (one file that loads nothing from elsewhere) and ``results.csv`` into ``folder``.

    Args:
        folder: where to write; made if need be.
        results: what ``analyse`` returns, and where known ``question``, ``task``, ``recipe`` (a mapping), ``data``
            (``Manifest.describe()``), ``audit`` (the audit's JSON) and ``runs``.
        context: pictures, curves, timings; what is absent is left out of the page.

    Returns:
        The path of the page.
    """
    results, context = dict(results), context or ReportContext()
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"image": data_uri, "photo": photo, "duration": duration, "breakable": breakable}
    shift = shift_view(folder, results.get("shift"))
    page = environment.get_template("template.html.j2").render(**_view(results, context), shift=shift)
    write_text(folder / "report.html", page)
    write_text(folder / "results.csv", tables.csv_text(results, _further_rows(results)))
    return folder / "report.html"


def _further_rows(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of the table of parts that not every study has."""
    for part, rows in (("gap", gap_rows), ("transferability", transferability_rows)):
        if results.get(part):
            yield from rows(results[part])


def breakable(name: str) -> str:
    """``name`` with places where a narrow column may break it: after an underscore or a hyphen."""
    return name.replace("_", "_\u200b").replace("-", "-\u200b")


def _view(results: dict[str, Any], context: ReportContext) -> dict[str, Any]:
    """Everything the template needs, ready to print."""
    design, verdict = results["design"], results["verdict"]
    order = tables.arm_order(results)
    saving = next(
        (one for one in results["label_saving"] if (one["a"], one["b"]) == (verdict["a"], verdict["b"])), None
    )
    kind = tables.VERDICT_CLASS[verdict["kind"]]
    measures = context.measures
    several = len({entry["labelled"] for entry in results["arms"]} - {0}) > 1
    recipe = results.get("recipe")
    return {
        "css": Markup(STYLE.read_text(encoding="utf-8")),
        "title": f"{verdict['kind'].capitalize()}: {results.get('question') or 'a transfer study'}",
        "question": results.get("question"),
        "task": results.get("task"),
        "verdict": verdict | {"class": kind, "sign": tables.VERDICT_SIGN[kind]},
        "tiles": _tiles(results, saving, measures),
        "design": design,
        "words": {
            "main": measures.words[design["main"]],
            "margin": measures.difference(design["margin"], design["main"]),
            "units": count_of(design["units"], f"test {design['unit']}"),
            "points": " (points)" if measures.is_share(design["main"]) else "",
            "detectable": _detectable(results, measures),
            "smallest_corrected": tables.p_text(min(1.0, design["smallest_p"] * max(design["comparisons"], 1))),
            "seeds_alone": tables.p_text(design["smallest_p_seeds_alone"]),
        },
        "order": [{"name": arm, "place": index, "index": index % SERIES + 1} for index, arm in enumerate(order)],
        "regions": tables.region_table(results, measures),
        "arm_tables": tables.arm_tables(results, measures),
        "comparisons": tables.comparison_table(results, measures),
        "other_comparisons": tables.other_comparisons(results, measures),
        "label_saving": results["label_saving"],
        "label_curve": figures.label_curves(results["arms"], order, design["main"], saving, design["unit"], measures)
        if several
        else None,
        "notes": results.get("notes", []),
        "gap": gap_view(results.get("gap"), measures, order),
        "transferability": transferability_view(results.get("transferability"), measures, order, design["unit"]),
        "data": data_views(results.get("data")),
        "audit": audit_view(results.get("audit")),
        "context": context,
        "froc": froc_view(results.get("froc"), context.froc, order),
        "where": localisation_view(results.get("localisation"), order),
        "training": (together_panels if context.together else figures.training_panels)(context.curves, order),
        "source_training": together_panels(context.source_curves, order),
        "split": figures.split_bars(context.split) if context.split else None,
        "roc": figures.roc_panels(context.roc, order, context.classes),
        "reliability": figures.reliability_panels(context.reliability, order),
        "confusion": [_confusion(arm, context) for arm in order if arm in context.confusion],
        "runs": len(results.get("runs") or []),
        "recipe": yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100) if recipe else None,
    }


def _tiles(results: dict[str, Any], saving: dict[str, Any] | None, measures: Measures) -> list[dict[str, str]]:
    """The handful of numbers to remember."""
    design, verdict, tiles = results["design"], results["verdict"], []
    own = [e for e in results["comparisons"] if e["primary"] and (e["a"], e["b"]) == (verdict["a"], verdict["b"])]
    ends = [own[0], own[-1]] if len(own) > 1 else own
    labels = f"labelled {design['unit']}"
    for entry in ends:
        if entry["difference"] is None:
            continue
        name = measures.words[design["main"]]
        unit = measures.units.get(design["main"], "")
        points = "points of " if measures.is_share(design["main"]) else f"{unit} of " if unit else ""
        tiles.append(
            {
                "value": tables.signed(entry["difference"], design["main"], measures),
                "label": f"{points}{name} with {budget_of(entry['budget'], entry['labelled'], labels)}",
            }
        )
    if saving and saving["reached"] and saving["factor"] > 1:
        at_least = "≥ " if saving["at_most"] else ""
        tiles.append(
            {"value": f"{at_least}{saving['factor']:.1f} ×", "label": f"fewer labels than {saving['b']} at its best"}
        )
    samples = f", {design['samples']:,} samples" if design["samples"] != design["units"] else ""
    tiles.append({"value": f"{design['units']:,}", "label": f"test {design['unit']}s{samples}"})
    seeds = f"{design['seeds']}"
    tiles.append({"value": seeds, "label": f"seed{'' if design['seeds'] == 1 else 's'} for each arm and budget"})
    return tiles


def _detectable(results: dict[str, Any], measures: Measures) -> str | None:
    """The range of the smallest differences that the comparisons had 80 % power to show."""
    found = [e["detectable"] for e in results["comparisons"] if e["primary"] and e["detectable"] is not None]
    if not found:
        return None
    main = results["design"]["main"]
    least, most = measures.number(min(found), main), measures.amount(max(found), main)
    return most if least == measures.number(max(found), main) else f"{least} to {most}"


def _confusion(arm: str, context: ReportContext) -> dict[str, Any]:
    counts = np.asarray(context.confusion[arm], dtype=float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1e-9)
    rows = [
        {
            "class": context.classes[true],
            "cells": [
                {
                    "share": round(float(shares[true, said]), 3),
                    "percent": f"{100 * shares[true, said]:.0f}",
                    "count": f"{counts[true, said]:.0f}",
                    "right": true == said,
                }
                for said in range(len(counts))
            ],
        }
        for true in range(len(counts))
    ]
    return {"arm": arm, "rows": rows, "classes": context.classes}


def data_uri(image: np.ndarray | Path) -> str:
    """An image (uint8 array, or picture file) as a PNG inside the page, at most 168 pixels high."""
    picture = (
        Image.open(image).convert("RGB") if isinstance(image, Path) else Image.fromarray(np.ascontiguousarray(image))
    )
    if picture.height > _THUMBNAIL:
        width = max(1, round(picture.width * _THUMBNAIL / picture.height))
        picture = picture.resize((width, _THUMBNAIL), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def photo(image: np.ndarray) -> str:
    """A large picture (uint8 array) as a JPEG inside the page, in its own size."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, "JPEG", quality=88, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def duration(seconds: float) -> str:
    """``0.4 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
