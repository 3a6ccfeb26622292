"""Plain sentences for numbers: differences, budgets, labels saved, and the verdict of the study."""

from dataclasses import dataclass
from typing import Any

from mrtransfer.study.statistics.pool import Budget
from mrtransfer.tasks.classification.metrics import HIGHER_IS_BETTER

METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "precision": "precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
}


def number(value: float, metric: str) -> str:
    """A value or difference of ``metric``: in points of a percent where it is a share, plain where it is not."""
    text = f"{100 * value:.1f}" if HIGHER_IS_BETTER[metric] else f"{value:.3f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")


def count_of(amount: float, unit: str) -> str:
    """``1 subject``, ``40 subjects``."""
    return f"{amount:,.0f} {unit}" + ("" if round(amount) == 1 else "s")


def named(arm: str) -> str:
    """An arm's name as it stands in a sentence: in quotation marks where it has several words."""
    return f"“{arm}”" if " " in arm else arm


def sentence(clause: str) -> str:
    """The clause with a capital letter and a full stop."""
    return f"{clause[:1].upper()}{clause[1:]}."


@dataclass(frozen=True)
class Words:
    """How a study speaks: its main metric, its margin, what it counts (``subject``), what it tries (``Transfer``)."""

    metric: str
    margin: float
    unit: str
    topic: str

    def budget(self, budget: Budget, labelled: float) -> str:
        """``40 labelled subjects``, ``all 637 labelled subjects``."""
        return f"{'all ' if budget == 'all' else ''}{count_of(labelled, f'labelled {self.unit}')}"

    def amount(self, value: float) -> str:
        """``12.3 points of accuracy``, ``0.120 of log loss``."""
        points = "" if not HIGHER_IS_BETTER[self.metric] else (" point" if abs(value) == 0.01 else " points")
        return f"{number(value, self.metric)}{points} of {METRIC_NAMES[self.metric]}"

    def comparison(self, entry: dict[str, Any]) -> str:
        """One comparison, as a clause that can follow another."""
        a, b, kind = named(entry["a"]), named(entry["b"]), entry["verdict"]
        where = f"with {self.budget(entry['budget'], entry['labelled'])}"
        if entry["low"] is None or entry["low"] != entry["low"]:
            return f"{where}, {a} and {b} cannot be compared ({entry['reason']})"
        if kind in ("helps", "hurts"):
            verb = "beats" if kind == "helps" else "falls behind"
            low, high = sorted((abs(entry["low"]), abs(entry["high"])))
            by = self.amount(abs(entry["difference"]))
            return f"{where}, {a} {verb} {b} by {by} ({self._interval(low, high)})"
        measured = f"difference {self.amount(entry['difference'])}, {self._interval(entry['low'], entry['high'])}"
        if kind == "no meaningful difference":
            return f"{where}, {a} and {b} differ by less than {self.amount(self.margin)} ({measured})"
        return f"{where}, it is open whether {a} is better than {b} ({measured}; {entry['reason']})"

    def _interval(self, low: float, high: float) -> str:
        return f"95 % interval {number(low, self.metric)} to {number(high, self.metric)}"

    def saving(self, found: dict[str, Any]) -> str:
        """What one arm saves in labels, as a sentence without its full stop."""
        a, b, name = named(found["a"]), named(found["b"]), METRIC_NAMES[found["metric"]]
        spent = f"{found['b_labels']:,}"
        score = f"{number(found['b_score'], found['metric'])}{' %' if HIGHER_IS_BETTER[found['metric']] else ''} {name}"
        low = ("at most " if found["low_at_most"] else "") + f"{found['low']:,.0f}"
        if not found["reached"]:
            return (
                f"{a} does not reach, with up to {count_of(found['largest'], f'labelled {self.unit}')}, "
                f"what {b} reaches with {spent} ({score})"
            )
        high = "no upper limit" if found["open"] else f"{found['high']:,.0f}"
        interval = f"95 % interval {low}" if low.split()[-1] == high else f"95 % interval {low} to {high}"
        fewer = " or fewer" if found["at_most"] else ""
        return (
            f"{a} reaches with {count_of(found['a_labels'], f'labelled {self.unit}')}{fewer} "
            f"what {b} reaches with {spent} ({score}; {interval})"
        )
