"""Networks of our own, one file each; any other name is looked up in timm (see ``models/network.py``)."""

from mrtransfer.common.registry import Registry

NETWORKS = Registry("network", __name__)
