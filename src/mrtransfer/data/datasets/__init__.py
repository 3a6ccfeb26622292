"""Datasets: one file each. A dataset is a function that builds a :class:`~mrtransfer.data.manifest.Manifest`."""

from mrtransfer.common.registry import Registry

DATASETS = Registry("dataset", __name__)
