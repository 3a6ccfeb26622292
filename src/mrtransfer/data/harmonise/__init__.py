"""Harmonisers: one file each. See :class:`~mrtransfer.data.harmoniser.Harmoniser`; its fields are its settings."""

from mrtransfer.common.registry import Registry

HARMONISERS = Registry("harmoniser", __name__)
