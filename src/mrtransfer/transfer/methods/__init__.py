"""Transfer methods: one file each. A method says what is trained, how fast, and when."""

from mrtransfer.common.registry import Registry

METHODS = Registry("method", __name__)
