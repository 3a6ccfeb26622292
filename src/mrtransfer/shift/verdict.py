"""The answer in one sentence: same domain, shifted (in intensity, in content, by scanner), or too little data."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mrtransfer.common.multiplicity import holm
from mrtransfer.shift.design import p_text

ALPHA = 0.05
SAME, SHIFTED, OPEN = "same domain", "shifted", "too little data to say"
FAMILIES = {"intensity": "in intensity", "content": "in content", "scanner": "by scanner"}
"""Family of features to how a shift in them is called."""


def verdict_of(
    rows: Sequence[Mapping[str, Any]],
    design: Mapping[str, Any],
    source: str = "source",
    target: str = "target",
    scanners: tuple[Iterable[str], Iterable[str]] = ((), ()),
) -> dict[str, Any]:
    """What the deciding ``rows`` say, one for each family of features: ``kind``, ``shifted`` and ``sentence``.

    ``rows`` have ``family``, ``feature``, ``p`` and ``normalised``; Holm's correction is over them. Shifted in a family
    if its corrected p is below 0.05; the one with the largest value, in standard deviations of its null, comes first.
    If none is: same domain, unless even the smallest p of the ``design`` would be 0.05 or more once corrected.
    ``scanners`` are the known names in source and target.
    """
    corrected = holm([_number(row["p"]) for row in rows])
    families = [
        {
            "family": row["family"],
            "feature": row["feature"],
            "normalised": row["normalised"],
            "p": row["p"],
            "p_holm": p,
            "shifted": bool(p < ALPHA),
        }
        for row, p in zip(rows, corrected, strict=True)
    ]
    families.sort(key=lambda found: (not found["shifted"], -_number(found["normalised"], -np.inf)))
    shifted = [found["family"] for found in families if found["shifted"]]
    possible = min(1.0, design["smallest_p"] * len(rows))
    kind = SHIFTED if shifted else OPEN if possible >= ALPHA else SAME
    found = {
        "kind": kind,
        "shifted": shifted,
        "families": families,
        "alpha": ALPHA,
        "smallest_p": design["smallest_p"],
        "smallest_p_holm": possible,
        "scanners": _scanner_names(*scanners),
    }
    told = {SHIFTED: _shifted, SAME: _same, OPEN: _open}[kind](found, design, source, target)
    return {**found, "headline": headline(found), "sentence": told + _about_scanners(found) + "."}


def headline(found: Mapping[str, Any]) -> str:
    """``Shifted by scanner and in intensity``, ``Same domain``, ``Too little data to say``."""
    if found["kind"] != SHIFTED:
        return str(found["kind"]).capitalize()
    return f"Shifted {_and([FAMILIES[family] for family in found['shifted']])}"


def _shifted(found: Mapping[str, Any], design: Mapping[str, Any], source: str, target: str) -> str:
    families = found["families"]
    seen = [
        f"{FAMILIES[one['family']]} ({one['feature']}: {deviations(one['normalised'])}, "
        f"corrected p {p_text(one['p_holm'])})"
        for one in families
        if one["shifted"]
    ]
    rest = [FAMILIES[one["family"]] for one in families if not one["shifted"]]
    nothing = f"; nothing was found {_and(rest, 'or')}" if rest else ""
    return f"{target[:1].upper()}{target[1:]} is shifted against {source} {_and(seen)}{nothing}"


def _same(found: Mapping[str, Any], design: Mapping[str, Any], source: str, target: str) -> str:
    least = min(_number(one["p_holm"], 1.0) for one in found["families"])
    looked = _and([FAMILIES[one["family"]] for one in found["families"]], "or")
    return (
        f"Same domain, as far as {design['subjects_words']} can tell: no shift {looked} was found between {source} and "
        f"{target} (smallest corrected p {p_text(least)}, where {p_text(found['smallest_p_holm'])} was possible)"
    )


def _open(found: Mapping[str, Any], design: Mapping[str, Any], source: str, target: str) -> str:
    families = found["families"]
    correction = (
        f" ({p_text(found['smallest_p_holm'])} once corrected for {len(families)} families of features)"
        if len(families) > 1
        else ""
    )
    return (
        f"Too little data to say: with {design['subjects_words']} no p below {p_text(found['smallest_p'])} is possible"
        f"{correction}, however large the difference{_largest(found, design, source, target)}"
    )


def _largest(found: Mapping[str, Any], design: Mapping[str, Any], source: str, target: str) -> str:
    """What stands out most where nothing can be shown."""
    families = found["families"]
    strongest = families[0]
    if not np.isfinite(_number(strongest["normalised"])):
        return ""
    limit = design["largest_normalised"]
    most = f" of at most {limit:.1f}" if limit is not None else ""
    largest = (
        f"{FAMILIES[strongest['family']]} ({strongest['feature']}: {deviations(strongest['normalised'], most)}, "
        f"p {p_text(strongest['p'])})"
    )
    at_limit = [one for one in families if _number(one["p"], 1.0) <= found["smallest_p"] * (1 + 1e-6)]
    if not at_limit:
        return f"; the largest difference between {source} and {target} is {largest}"
    where = _and([FAMILIES[one["family"]] for one in at_limit])
    return f"; of all divisions of these subjects the observed one is the farthest apart {where}, most of all {largest}"


def deviations(normalised: float | None, most: str = "") -> str:
    """``12.3 standard deviations above chance``; also below, and where nothing varied."""
    value = _number(normalised)
    if not np.isfinite(value):
        return "chance alone shows no variation"
    side = "above" if value >= 0 else "below"
    return f"{abs(value):,.{0 if abs(value) >= 100 else 1}f}{most} standard deviations {side} chance"


def _scanner_names(source: Iterable[str], target: Iterable[str]) -> dict[str, Any]:
    """Known names of both domains, and whether they differ; None where one of them has none."""
    names = sorted({name for name in source if name}), sorted({name for name in target if name})
    return {"source": names[0], "target": names[1], "differ": names[0] != names[1] if all(names) else None}


def _about_scanners(found: Mapping[str, Any]) -> str:
    """That they differ by name; or that they do not, where the features that see them found a shift."""
    scanners = found["scanners"]
    if scanners["differ"] is False and "scanner" in found["shifted"]:
        return (
            f"; the scanners are the same by name ({_some(scanners['source'])}), so it is something else in how the "
            "scans were acquired, such as their contrast"
        )
    if not scanners["differ"]:
        return ""
    return f"; the scanners differ by name, {_some(scanners['source'])} against {_some(scanners['target'])}"


def _some(names: Sequence[str], shown: int = 4) -> str:
    return _and(names) if len(names) <= shown else f"{', '.join(names[:shown])} and {len(names) - shown} more"


def _and(parts: Sequence[str], word: str = "and") -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def _number(value: float | None, missing: float = float("nan")) -> float:
    return missing if value is None or value != value else float(value)
