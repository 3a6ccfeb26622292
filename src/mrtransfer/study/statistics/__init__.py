"""Does it help? Paired, resampled comparisons of a study's arms, and a verdict that fits in one sentence."""

from mrtransfer.study.statistics.analysis import analyse
from mrtransfer.study.statistics.measures import CLASSIFICATION, Measures, table_measures
from mrtransfer.study.statistics.pool import Budget, Outcome

__all__ = ["CLASSIFICATION", "Budget", "Measures", "Outcome", "analyse", "table_measures"]
