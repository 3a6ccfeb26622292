"""Plain sentences for numbers: differences, budgets, labels saved, and the verdict of the study."""

from dataclasses import dataclass
from typing import Any

from mrtransfer.study.statistics.measures import Measures
from mrtransfer.study.statistics.pool import Budget


def count_of(amount: float, unit: str) -> str:
    """``1 subject``, ``40 subjects``."""
    return f"{amount:,.0f} {unit}" + ("" if round(amount) == 1 else "s")


def budget_of(budget: Budget, amount: float, unit: str) -> str:
    """What ``budget`` came to: ``40 subjects``, ``all 637 subjects``, ``the only subject``, ``no subjects``."""
    if budget != "all":
        return count_of(amount, unit)
    if round(amount) == 0:
        return f"no {unit}s"
    return f"the only {unit}" if round(amount) == 1 else f"all {count_of(amount, unit)}"


def named(arm: str) -> str:
    """An arm's name as it stands in a sentence: in quotation marks where it has several words."""
    return f"“{arm}”" if " " in arm else arm


def sentence(clause: str) -> str:
    """The clause with a capital letter and a full stop."""
    return f"{clause[:1].upper()}{clause[1:]}."


@dataclass(frozen=True)
class Words:
    """How a study speaks: its main metric, its margin, what it counts (``subject``), what it tries (``Transfer``)."""

    measures: Measures
    metric: str
    margin: float
    unit: str
    topic: str

    def budget(self, budget: Budget, labelled: float) -> str:
        """``40 labelled subjects``, ``all 637 labelled subjects``, ``the only labelled subject``."""
        return budget_of(budget, labelled, f"labelled {self.unit}")

    def amount(self, value: float) -> str:
        """``12.3 points of accuracy``, ``1.4 mm of HD95``."""
        return self.measures.amount(value, self.metric)

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
            return f"{where}, {a} {verb} {b} by {by} ({self.interval(low, high)})"
        measured = f"difference {self.amount(entry['difference'])}, {self.interval(entry['low'], entry['high'])}"
        if kind == "no meaningful difference":
            return f"{where}, {a} and {b} differ by less than {self.amount(self.margin)} ({measured})"
        return f"{where}, it is open whether {a} is better than {b} ({measured}; {entry['reason']})"

    def _number(self, value: float) -> str:
        return self.measures.number(value, self.metric)

    def interval(self, low: float, high: float) -> str:
        """``95 % interval 1.2 to 3.4``."""
        return f"95 % interval {self._number(low)} to {self._number(high)}"

    def saving(self, found: dict[str, Any]) -> str:
        """What one arm saves in labels, as a sentence without its full stop."""
        a, b = named(found["a"]), named(found["b"])
        spent = f"{found['b_labels']:,}"
        score = f"{self.measures.score(found['b_score'], found['metric'])} {self.measures.words[found['metric']]}"
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
