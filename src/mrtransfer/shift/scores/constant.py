"""A baseline: all weights transfer alike."""

from typing import ClassVar

from mrtransfer.shift.score import Evidence, Score
from mrtransfer.shift.scores import SCORES


@SCORES.register("constant")
class Constant(Score):
    """Baseline: the same for every network, so that any would do."""

    name: ClassVar[str] = "constant"
    words: ClassVar[str] = "Constant"
    baseline: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ()

    def value(self, evidence: Evidence) -> float:
        """0; it ranks nothing, and its rank correlation is undefined."""
        return 0.0
