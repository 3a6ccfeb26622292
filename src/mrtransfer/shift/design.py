"""What a comparison of so many subjects can show at best, and why, in words."""

from typing import Any

import numpy as np

from mrtransfer.shift.parts import Parts

_EXACT_INTEGER = 2**53  # larger ones are no exact numbers in JSON for most who read it


def design_of(units_x: np.ndarray, units_y: np.ndarray, permutations: int) -> dict[str, Any]:
    """Counts of slices and subjects, the smallest p that they allow, and sentences that say why; JSON-able.

    ``units_x`` (n,) and ``units_y`` (m,) are the subjects of the rows of the source and of the target.
    """
    parts = Parts.of(units_x, units_y)
    pairs = len(parts.pairs)
    only_x, only_y = int(parts.in_x.sum()) - pairs, int((~parts.in_x).sum()) - pairs
    exact = parts.possible <= permutations
    smallest = parts.smallest_p if exact else max(parts.smallest_p, 1 / (permutations + 1))
    found = {
        "slices": {"source": len(units_x), "target": len(units_y)},
        "subjects": {"both": pairs, "source_only": only_x, "target_only": only_y},
        "paired": parts.paired,
        "possible": parts.possible if parts.possible < _EXACT_INTEGER else float(parts.possible),
        "exact": exact,
        "permutations": parts.possible if exact else permutations,
        "smallest_p": smallest,
        "largest_normalised": _largest_normalised(smallest) if exact else None,
    }
    return {**found, "subjects_words": _who(pairs, only_x, only_y), "words": _why(parts, found, pairs, only_x, only_y)}


def _largest_normalised(smallest_p: float) -> float:
    """Standard deviations that a value can lie above the mean of all relabellings, itself among them: √((1 − p) / p).

    It is reached where all others are alike; the fewer relabellings there are, the less stands out.
    """
    return float(np.sqrt((1 - smallest_p) / smallest_p))


def p_text(p: float | None) -> str:
    """``0.25``, ``0.031``, ``0.00098``: two digits, as a p-value deserves; ``–`` where there is none."""
    if p is None or not np.isfinite(p):
        return "–"
    return f"{p:.2f}" if p >= 0.095 else f"{p:.2g}" if p >= 1e-4 else f"{p:.0e}"


def _who(pairs: int, only_x: int, only_y: int) -> str:
    """``3 subjects in both domains``, ``20 subjects against 20 others``, or all of it."""
    told = [f"{_subjects(pairs)} in both domains"] if pairs else []
    if only_x and only_y and not pairs:
        return f"{_subjects(only_x)} against {only_y} other{'s' * (only_y != 1)}"
    if only_x:
        told.append(f"{_subjects(only_x)} in the source alone")
    if only_y:
        told.append(f"{_subjects(only_y)} in the target alone")
    return " and ".join([", ".join(told[:-1]), told[-1]]) if len(told) > 1 else told[0]


def _why(parts: Parts, found: dict[str, Any], pairs: int, only_x: int, only_y: int) -> str:
    """Why no p can be smaller, in a few sentences."""
    ways = []
    if pairs:
        ways.append(
            f"the two labels of a subject that is in both domains can be swapped or not, 2{_raised(pairs)} = "
            f"{_count(2**pairs)} ways"
        )
    if only_x and only_y:
        alone = f"the {only_x + only_y} subjects that are in one domain can be divided anew into {only_x} and {only_y}"
        ways.append(f"{alone}, {_count(parts.possible // 2**pairs)} ways")
    elif only_x or only_y:
        side = "source" if only_x else "target"
        ways.append(f"subjects of the {side} alone have no others to exchange labels with, so they add no way")
    text = f"Labels are exchanged by subject, not by slice: {'; '.join(ways)}."
    if not found["exact"]:
        return (
            f"{text} {found['permutations']:,} of them are drawn at random, so that no p below 1/"
            f"{found['permutations'] + 1:,} = {p_text(found['smallest_p'])} is possible."
        )
    least = round(parts.smallest_p * parts.possible)
    mirrored = " (swapping everything gives the same distance)" if least == 2 else ""
    return (
        f"{text} All of them are tried, the observed one among them, so that no p below {least}/{parts.possible:,} = "
        f"{p_text(found['smallest_p'])} is possible{mirrored} and no value more than "
        f"{found['largest_normalised']:.1f} standard deviations above chance, however large the difference."
    )


def _raised(power: int) -> str:
    return str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _count(number: int) -> str:
    """``137,846,528,820``; ``9.2 · 10⁴⁶`` where so many digits would say no more."""
    if number < 10**12:
        return f"{number:,}"
    power = len(str(number)) - 1
    return f"{number // 10 ** (power - 1) / 10:.1f} · 10{_raised(power)}"


def _subjects(number: int) -> str:
    return f"{number:,} subject{'s' * (number != 1)}"
