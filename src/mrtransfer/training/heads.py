"""Heads on frozen features, all problems of a study together: linear and multi-layer probes."""

from mrtransfer.training.linear_probes import FittedLinear, fit_linear_probes
from mrtransfer.training.mlp_probes import FittedMlp, fit_mlp_probes
from mrtransfer.training.problems import Problem

__all__ = ["FittedLinear", "FittedMlp", "Problem", "fit_linear_probes", "fit_mlp_probes"]
