"""Transferability scores: one file each. A score is a :class:`~mrtransfer.shift.score.Score`: higher means better."""

from mrtransfer.common.registry import Registry

SCORES = Registry("transferability score", __name__)
