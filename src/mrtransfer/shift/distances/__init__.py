"""Distances: one file each, a :class:`~mrtransfer.shift.distance.Distance` whose fields are its settings."""

from mrtransfer.common.registry import Registry

DISTANCES = Registry("distance", "mrtransfer.shift.distances")
