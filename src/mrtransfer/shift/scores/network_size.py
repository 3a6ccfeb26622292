"""A baseline: larger networks transfer better."""

from typing import ClassVar

import numpy as np

from mrtransfer.shift.score import Evidence, Score
from mrtransfer.shift.scores import SCORES


@SCORES.register("network_size")
class NetworkSize(Score):
    """Baseline: number of parameters (log10)."""

    name: ClassVar[str] = "network_size"
    words: ClassVar[str] = "Network size (log10)"
    baseline: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("parameters",)

    def value(self, evidence: Evidence) -> float:
        """On the usual collections of networks it ranks better than most scores (Singh et al. 2025, 2510.06448)."""
        assert evidence.parameters is not None
        return float(np.log10(evidence.parameters))
