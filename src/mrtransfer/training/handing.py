"""Handing objects from one process of a training to another: memory maps go as the name of their file.

Only processes of one command talk to each other; nothing that a user was given is unpickled.
"""

import io
import pickle
from typing import Any

import numpy as np


def packed(value: Any) -> bytes:
    """``value`` as bytes for :func:`handed`."""
    buffer = io.BytesIO()
    _Packer(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def handed(message: bytes) -> tuple[Any, str | None]:
    """What :func:`packed` packed, and None; or None, and what is wrong, in words."""
    try:
        return pickle.loads(message), None
    except Exception as error:  # a class that only the leader knows, a file that is not there, too little memory
        return None, f"{type(error).__name__}: {error}"


class _Packer(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.flags.c_contiguous and value.size:
            root = value
            while isinstance(root.base, np.ndarray):
                root = root.base
            if isinstance(root, np.memmap) and root.mode == "r" and root.filename is not None:
                offset = root.offset + value.ctypes.data - root.ctypes.data
                return _mapped, (str(root.filename), value.dtype.str, offset, value.shape)
        return NotImplemented


def _mapped(file: str, dtype: str, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(file, dtype, "r", offset, shape)
