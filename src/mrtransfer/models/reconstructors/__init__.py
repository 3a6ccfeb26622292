"""Reconstruction networks and classical reconstructions, one file each; ``models/reconstruction.py`` builds them."""

from mrtransfer.common.registry import Registry

RECONSTRUCTORS = Registry("reconstruction", __name__)
