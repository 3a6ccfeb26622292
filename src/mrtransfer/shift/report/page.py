"""Writes a comparison's report.html and results.csv, and the section of it that a study's report shows."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mrtransfer.common.files import write_text
from mrtransfer.common.pages import STYLE
from mrtransfer.shift.design import p_text
from mrtransfer.shift.report.points import maps_view
from mrtransfer.shift.report.tables import distance_groups, families_view, harmonised_groups
from mrtransfer.shift.verdict import OPEN, SAME, SHIFTED

_HERE = Path(__file__).parent
_MARKS = {SHIFTED: ("bad", "≠"), SAME: ("same", "="), OPEN: ("open", "?")}
_COLUMNS = ("feature", "family", "words", "value", "low", "high", "null_mean", "null_sd", "normalised", "p", "p_holm")


def draw_shift_report(folder: str | Path, results: Mapping[str, Any]) -> Path:
    """Write ``report.html``, one file that loads nothing from elsewhere, and ``results.csv``; returns the page.

    ``results`` are those of :func:`~mrtransfer.shift.analysis.compare_domains` for the same ``folder``, in which the
    coordinates and thumbnails of the maps were left.
    """
    folder = Path(folder)
    verdict = results["verdict"]
    tone, sign = _MARKS[verdict["kind"]]
    page = _environment().get_template("page.html.j2")
    names = [results[role]["name"] for role in ("source", "target")]
    text = page.render(
        css=Markup(STYLE.read_text(encoding="utf-8") + (_HERE / "shift.css").read_text(encoding="utf-8")),
        verdict={**verdict, "class": tone, "sign": sign},
        names=names,
        tiles=_tiles(results),
        section=Markup(_section(folder, results)),
        results=results,
        design=results["design"],
        primary=_primary(results),
        settings=yaml.safe_dump(results["settings"], sort_keys=False, allow_unicode=True, width=100),
    )
    write_text(folder / "report.html", text)
    write_text(folder / "results.csv", _csv(results))
    return folder / "report.html"


def shift_section(folder: str | Path, results: Mapping[str, Any]) -> Markup:
    """Tables and maps as part of another page that has the style of the reports; brings the rest of its style along."""
    css = (_HERE / "shift.css").read_text(encoding="utf-8")
    return Markup(f"<style>\n{css}</style>\n{_section(Path(folder), results)}")


def _section(folder: Path, results: Mapping[str, Any]) -> str:
    return (
        _environment()
        .get_template("section.html.j2")
        .render(
            results=results,
            design=results["design"],
            primary=_primary(results),
            smallest=p_text(results["verdict"]["smallest_p_holm"]),
            families=families_view(results),
            distances=distance_groups(results),
            harmonised=harmonised_groups(results),
            maps=maps_view(folder, results),
            script=Markup((_HERE / "hover.js").read_text(encoding="utf-8")),
        )
    )


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _primary(results: Mapping[str, Any]) -> str:
    """The one distance that decides, in words."""
    return str(next(row["words"] for row in results["distances"] if row["primary"]))


def _tiles(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The handful of numbers to remember."""
    design = results["design"]
    counts = design["subjects"]
    first = families_view(results)[0]
    subjects = [counts["both"] + counts[f"{role}_only"] for role in ("source", "target")]
    slices = [design["slices"][role] for role in ("source", "target")]
    paired = f", {counts['both']:,} of them in both" if counts["both"] else ""
    return [
        {"value": first["deviations"], "label": f"standard deviations above chance, {first['words']}: the largest"},
        {"value": first["p_holm"], "label": "its p, corrected"},
        {"value": p_text(results["verdict"]["smallest_p_holm"]), "label": "smallest corrected p possible"},
        {"value": " + ".join(f"{number:,}" for number in subjects), "label": f"subjects{paired}"},
        {"value": " + ".join(f"{number:,}" for number in slices), "label": "slices of source + target"},
    ]


def _csv(results: Mapping[str, Any]) -> str:
    """A row per feature and distance."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("feature", "family", "distance", *_COLUMNS[3:]))
    for row in results["distances"]:
        writer.writerow([row.get(column) for column in _COLUMNS])
    return stream.getvalue()
