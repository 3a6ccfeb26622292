"""Heads on frozen features, all problems of a study together: linear and multi-layer probes."""

from mrtransfer.training.linear_probes import FittedLinear, fit_linear_probes
from mrtransfer.training.problems import Problem

__all__ = ["FittedLinear", "Problem", "fit_linear_probes"]
