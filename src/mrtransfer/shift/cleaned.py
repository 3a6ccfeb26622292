"""Whether simple preprocessing already removes a shift: distances before and after harmonisation."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mrtransfer.common.multiplicity import holm
from mrtransfer.shift.feature import Feature
from mrtransfer.shift.harmonised import fit_on_slices, harmonised_slices
from mrtransfer.shift.measured import measured, tables_of
from mrtransfer.shift.settings import ShiftSettings
from mrtransfer.shift.slices import Slices

_SHOWN = ("value", "low", "high", "normalised", "p", "p_holm")


def harmonised_rows(
    source: Slices,
    target: Slices,
    settings: ShiftSettings,
    features: Mapping[str, Feature],
    before: Sequence[Mapping[str, Any]],
    directory: Path,
    advance: Callable[[int], None],
) -> list[dict[str, Any]]:
    """One row per harmoniser and feature: the primary distance ``before`` and after, Holm's p over a harmoniser's rows.

    ``before`` are the rows of the primary distance, one for each of ``features`` and corrected in the same way. What a
    harmoniser refers to is learned of the source, and both domains are brought to that: it narrows differences within a
    domain too. Features are then learned anew, as the scale of intensities may be another one.
    """
    was = {row["feature"]: row for row in before}
    corrected_before = dict(zip(was, holm([row["p"] for row in was.values()]), strict=True))
    rows: list[dict[str, Any]] = []
    for harmoniser in settings.harmonise:
        fitted = fit_on_slices(harmoniser, source)
        domains = [harmonised_slices(domain, fitted, source, directory) for domain in (source, target)]
        after = {}
        for name, feature in features.items():
            tables = tables_of(feature, domains[0], domains[1], directory)
            after[name] = measured(name, settings.primary, tables, domains[0], domains[1], settings)
            advance(1)
        corrected = holm([found["p"] for found in after.values()])
        for (name, found), p in zip(after.items(), corrected, strict=True):
            earlier = {**was[name], "p_holm": corrected_before[name]}
            rows.append(
                {
                    "harmoniser": harmoniser.name,
                    "words": harmoniser.words,
                    "feature": name,
                    "family": features[name].family,
                    "before": {key: earlier[key] for key in _SHOWN},
                    "after": {key: {**found, "p_holm": p}[key] for key in _SHOWN},
                }
            )
    return rows
