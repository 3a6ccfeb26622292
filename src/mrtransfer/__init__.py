"""mrtransfer: does transferring knowledge help on your MR images, by how much, and how many labels does it save?

The names below are loaded when they are first used, so that ``import mrtransfer`` and ``mrtransfer --help`` stay fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "Study": "mrtransfer.study.run",
    "Recipe": "mrtransfer.study.recipe",
    "Manifest": "mrtransfer.data.manifest",
    "UserError": "mrtransfer.common.errors",
}
__all__ = ["Manifest", "Recipe", "Study", "UserError", "__version__"]

if TYPE_CHECKING:
    from mrtransfer.common.errors import UserError
    from mrtransfer.data.manifest import Manifest
    from mrtransfer.study.recipe import Recipe
    from mrtransfer.study.run import Study


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mrtransfer' has no attribute {name!r}")
