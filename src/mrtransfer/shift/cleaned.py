"""Whether simple preprocessing already removes a shift: distances before and after harmonisation."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mrtransfer.common.multiplicity import holm
from mrtransfer.shift.distance import Distance
from mrtransfer.shift.feature import FittedFeature
from mrtransfer.shift.harmonised import fit_on_slices, harmonised_slices
from mrtransfer.shift.measured import measured, tables_of
from mrtransfer.shift.settings import ShiftSettings
from mrtransfer.shift.slices import Slices

_SHOWN = ("value", "low", "high", "normalised", "p", "p_holm")


def harmonised_rows(
    source: Slices,
    target: Slices,
    settings: ShiftSettings,
    features: Mapping[str, FittedFeature],
    before: Sequence[Mapping[str, Any]],
    directory: Path,
    advance: Callable[[int], None],
) -> list[dict[str, Any]]:
    """One row per harmoniser and feature: the primary distance ``before`` and after, Holm's p over a harmoniser's rows.

    ``before`` are the rows of the primary distance, one for each of ``features``, which were fitted to the domains as
    they were, and corrected in the same way. What a harmoniser refers to is learned of the source, and both domains are
    brought to that. It narrows differences within a domain too: features, and the width of a kernel, are therefore
    those of before, so that values can be compared; how far they stand above chance is of what is left.
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
            distance = _as_before(settings.primary, was[name])
            after[name] = measured(name, distance, tables, domains[0], domains[1], settings)
            advance(1)
        corrected = holm([found["p"] for found in after.values()])
        for (name, found), p in zip(after.items(), corrected, strict=True):
            earlier = {**was[name], "p_holm": corrected_before[name]}
            rows.append(
                {
                    "harmoniser": harmoniser.name,
                    "words": harmoniser.words,
                    "feature": name,
                    "family": features[name].feature.family,
                    "before": {key: earlier[key] for key in _SHOWN},
                    "after": {key: {**found, "p_holm": p}[key] for key in _SHOWN},
                }
            )
    return rows


def _as_before(distance: Distance, row: Mapping[str, Any]) -> Distance:
    """``distance`` with the kernel's width that it had in ``row``, where it has one."""
    gammas = row["details"].get("gamma")
    if not gammas:
        return distance
    return distance.model_copy(update={"gamma": gammas[0] if len(gammas) == 1 else tuple(gammas)})
