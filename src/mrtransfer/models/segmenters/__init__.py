"""Segmentation networks, one file each; ``models/segmentation.py`` builds them."""

from mrtransfer.common.registry import Registry

SEGMENTERS = Registry("segmentation network", __name__)
