"""The study's verdict: one kind and one sentence from all comparisons in the main metric."""

from typing import Any

from mrtransfer.study.statistics.compare import Verdict
from mrtransfer.study.statistics.words import Words, sentence


def pair_verdict(
    a: str, b: str, entries: list[dict[str, Any]], saving: dict[str, Any] | None, words: Words
) -> dict[str, Any]:
    """Kind and sentence (also in parts: ``headline``, ``further``) for one pair, from its main-metric comparisons.

    * ``helps`` where a budget shows it and none shows the opposite, and the same for ``hurts``; where budgets disagree,
      the smallest decided one gives the kind and the sentence says both;
    * ``no meaningful difference`` where every budget shows that;
    * ``too little data to say`` otherwise.
    """
    kinds = [entry["verdict"] for entry in entries]
    decided = [entry for entry in entries if entry["verdict"] in ("helps", "hurts")]
    kind: Verdict
    if decided:
        kind = decided[0]["verdict"]
    else:
        kind = "no meaningful difference" if set(kinds) == {"no meaningful difference"} else "too little data to say"
    told = [decided[0] if decided else entries[0]]
    opposite = [entry for entry in decided if entry["verdict"] != kind]
    told += [entry for entry in (*opposite[:1], entries[-1]) if entry not in told]
    clauses = [words.comparison(entry) for entry in told]
    if saving is not None and kind == "helps" and saving["reached"] and saving["a_labels"] < saving["b_labels"]:
        clauses.append(words.saving(saving))
    headline = f"{_opening(kind, bool(opposite), words.topic)}: {clauses[0]}"
    return {
        "a": a,
        "b": b,
        "kind": kind,
        "mixed": bool(opposite),
        "sentence": "; ".join([headline, *clauses[1:]]) + ".",
        "headline": f"{headline}.",
        "further": [sentence(clause) for clause in clauses[1:]],
    }


def study_verdict(pairs: list[dict[str, Any]], words: Words) -> dict[str, Any]:
    """The verdict on the first pair, which is what the study asks first; the other pairs follow with their own."""
    if not pairs:
        text = "No verdict: the recipe compares no two arms; name the pairs under 'compare'."
        headline: dict[str, Any] = {"a": None, "b": None, "kind": "too little data to say", "sentence": text}
        headline |= {"headline": text, "further": [], "mixed": False}
    else:
        headline = pairs[0]
    return headline | {"metric": words.metric, "margin": words.margin, "pairs": pairs}


def _opening(kind: Verdict, mixed: bool, topic: str) -> str:
    if mixed:
        return (
            f"{topic} helps with few labels and hurts with more"
            if kind == "helps"
            else (f"{topic} hurts with few labels and helps with more")
        )
    within = topic if topic[1:2].isupper() else topic[:1].lower() + topic[1:]  # MR-specific keeps its capitals
    return {
        "helps": f"{topic} helps",
        "hurts": f"{topic} hurts",
        "no meaningful difference": f"{topic} makes no meaningful difference",
        "too little data to say": f"Too little data to say whether {within} helps",
    }[kind]
