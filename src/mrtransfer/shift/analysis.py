"""Two domains compared: every feature by every distance, what preprocessing changes, maps, and the verdict."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.multiplicity import holm
from mrtransfer.common.plain import plain
from mrtransfer.common.progress import progress
from mrtransfer.data.manifest import Manifest
from mrtransfer.shift.cleaned import harmonised_rows
from mrtransfer.shift.design import design_of
from mrtransfer.shift.measured import EXACTLY_THE_SAME, feature_names, measured, tables_of, with_settings
from mrtransfer.shift.placed import draw_maps
from mrtransfer.shift.settings import ShiftSettings
from mrtransfer.shift.slices import Slices, open_slices
from mrtransfer.shift.verdict import verdict_of

CACHE = "cache"
"""Folder for what is computed once: slices, and what is made from them."""
_DIGITS = 6  # what differs beyond is rounding, and the same input must give the same bytes


def compare_domains(source: Slices, target: Slices, settings: ShiftSettings, directory: str | Path) -> dict[str, Any]:
    """How far ``target`` is from ``source``, as JSON can write it; the same input gives the same results.

    ``verdict`` (one sentence and what it rests on), ``design`` (what so many subjects can show), ``distances`` (a row
    per feature and distance, Holm's p over all of them), ``harmonised`` (a row per harmoniser and feature), ``maps``,
    ``notes``. Into ``directory`` go ``maps.csv`` and ``thumbnails.jpg``, and under ``cache`` what need not be computed
    again. Raises :class:`UserError` for domains of unlike channels, identical ones, fewer than two subjects, and
    features that cannot be compared.
    """
    directory, cache = Path(directory), Path(directory) / CACHE
    check_domains(source, target)
    design = design_of(source.subjects, target.subjects, settings.permutations)
    features = dict(zip(feature_names(settings.features), settings.features, strict=True))
    steps = len(features) * (1 + len(settings.distances) + len(settings.maps) + len(settings.harmonise))
    with progress("Comparing domains", steps) as advance:
        tables, fitted, rows = {}, {}, []
        for name, feature in features.items():
            fitted[name] = feature.fit(source, target)
            tables[name] = tables_of(fitted[name], source, target, cache)
            advance(1)
            about = {"feature": name, "feature_words": with_settings(feature.words, feature), "family": feature.family}
            for distance in settings.distances:
                primary = distance == settings.primary
                decides = primary and settings.deciding[feature.family] == feature
                found = measured(name, distance, tables[name], source, target, settings)
                found["words"] = with_settings(distance.words, distance)
                label = with_settings(distance.name, distance)
                rows.append({**about, "label": label, "primary": primary, "decides": decides, **found})
                advance(1)
        for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
            row["p_holm"] = corrected
        primary_rows = [row for row in rows if row["primary"]]
        harmonised = harmonised_rows(source, target, settings, fitted, primary_rows, cache, advance)
        maps = draw_maps(source, target, tables, settings, directory, advance)
    known = source.scanners.tolist(), target.scanners.tolist()
    deciding = [row for row in rows if row["decides"]]
    return plain(
        {
            "verdict": verdict_of(deciding, design, *_called(source, target), scanners=known),
            "design": design,
            "source": _described(source),
            "target": _described(target),
            "distances": rows,
            "harmonised": harmonised,
            "maps": maps,
            "notes": _notes(source, target, rows, maps["notes"]),
            "settings": settings.model_dump(mode="json"),
        },
        significant=_DIGITS,
    )


def compare_manifests(
    source: Manifest,
    target: Manifest,
    settings: ShiftSettings,
    directory: str | Path,
    channels: tuple[Sequence[str], Sequence[str]] | None = None,
) -> dict[str, Any]:
    """:func:`compare_domains` of two datasets' slices, which are read once and kept below ``directory``.

    ``channels`` picks those of the source and those of the target, in the order in which they are compared.
    """
    opened = []
    for place, manifest in enumerate((source, target)):
        wanted = channels[place] if channels else ()
        own = pick_channels(manifest, wanted) if wanted else manifest
        domain = open_slices(own, slices=settings.slices, size=settings.size, directory=Path(directory) / CACHE)
        opened.append(domain.with_channels(wanted) if wanted and domain.channels != tuple(wanted) else domain)
    return compare_domains(opened[0], opened[1], settings, directory)


def pick_channels(manifest: Manifest, channels: Sequence[str]) -> Manifest:
    """``manifest`` with only the named channels, in that order; all where one file holds the whole image."""
    if len(manifest.channels) == 1:
        return manifest
    for channel in channels:
        if channel not in manifest.channels:
            raise UserError(f"{manifest.name}: {unknown_name('channel', channel, manifest.channels)}")
    if len(set(channels)) < len(channels):
        raise UserError(f"{manifest.name}: channels {', '.join(channels)}: each may be there once")
    columns = [column for column in manifest.table.columns if not str(column).startswith("image:")]
    wanted = [f"image:{channel}" for channel in channels]
    return replace(manifest, table=manifest.table[[*columns, *wanted]])


def check_domains(source: Slices, target: Slices) -> None:
    """Raise :class:`UserError` where the two cannot be compared channel by channel, or subject by subject."""
    for role, domain in (("source", source), ("target", target)):
        if len(np.unique(domain.subjects)) < 2:
            raise UserError(
                f"the {role} ({domain.name}) has 1 subject: what a distance is worth is judged by how much subjects "
                "differ, so each domain needs at least two"
            )
    if len(source.channels) != len(target.channels):
        raise UserError(
            f"the source has {_listed(source)} and the target {_listed(target)}: both need the same number, so pick "
            "some of them, as in channels flair,t1ce:t1,t2 (those of the source, then those of the target)"
        )
    if sorted(source.row_digests.tolist()) == sorted(target.row_digests.tolist()):
        raise UserError(
            "source and target hold the same slices, so there are not two domains to compare: check paths and options"
        )


def _called(source: Slices, target: Slices) -> tuple[str, str]:
    """What the verdict calls them."""
    if source.name == target.name:
        return "the source", "the target"
    return f"the source ({source.name})", f"the target ({target.name})"


def _described(domain: Slices) -> dict[str, Any]:
    return {
        "name": domain.name,
        "slices": len(domain),
        "subjects": len(np.unique(domain.subjects)),
        "samples": len(np.unique(domain.samples)),
        "channels": list(domain.channels),
        "classes": sorted({label for label in domain.labels.tolist() if label}),
        "scanners": sorted({name for name in domain.scanners.tolist() if name}),
        "content": domain.content,
    }


def _listed(domain: Slices) -> str:
    number = len(domain.channels)
    return f"{number} channel{'s' * (number != 1)} ({', '.join(domain.channels)})"


def _notes(source: Slices, target: Slices, rows: Sequence[dict[str, Any]], more: Sequence[str]) -> list[str]:
    """Each once, in the order in which they matter."""
    notes = [*source.notes, *target.notes]
    if source.channels != target.channels:
        pairs = ", ".join(f"{x} with {y}" for x, y in zip(source.channels, target.channels, strict=True))
        notes.append(f"Channels are compared in their order: {pairs}.")
    for row in rows:
        if row["details"].get("note") == EXACTLY_THE_SAME:
            notes.append(f"{row['feature'].capitalize()}: {EXACTLY_THE_SAME}, though the slices are not.")
    return list(dict.fromkeys([*notes, *more]))
