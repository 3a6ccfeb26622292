"""Features: one file each, a :class:`~mrtransfer.shift.feature.Feature` whose fields are its settings."""

from mrtransfer.common.registry import Registry

FEATURES = Registry("feature", "mrtransfer.shift.features")
