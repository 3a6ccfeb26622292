"""Methods: one file each. A method is a :class:`~mrtransfer.transfer.method.Method` whose fields are its settings."""

from mrtransfer.common.registry import Registry

METHODS = Registry("method", __name__)
