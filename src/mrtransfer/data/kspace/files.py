"""Opening files of k-space: whatever is wrong with one is told in a sentence that names it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from mrtransfer.common.errors import UserError

_CUT = re.compile(r"truncated file: eof = (\d+).*stored_eof = (\d+)")


@contextmanager
def reading(file: Path, kind: str) -> Iterator[None]:
    """One sentence that names ``file``, which should be ``kind`` ("an HDF5 file"), for whatever a decoder throws."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file") from error
    except PermissionError as error:
        raise UserError(f"{file}: no permission to read it") from error
    except Exception as error:  # decoders of damaged bytes throw any
        if file.is_dir():
            raise UserError(f"{file}: is a folder, not {kind}") from error
        if file.is_file() and file.stat().st_size == 0:
            raise UserError(f"{file}: the file is empty (0 bytes); copy it again") from error
        if cut := _CUT.search(str(error)):
            raise UserError(f"{file}: is cut short, {cut[1]} of {cut[2]} bytes are there; copy it again") from error
        said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(f"{file}: damaged, or not {kind} at all ({said}); copy it again or remove it") from error


@contextmanager
def hdf5(file: Path) -> Iterator[h5py.File]:
    """``file``, open for reading while the block lasts.

    A handle that is kept would be shared with forked processes, which HDF5 does not allow; opening takes 0.4 ms, and
    reading a slice 20. Locks are not insisted on: network file systems often have none.
    """
    with reading(file, "an HDF5 file"), h5py.File(file, "r", locking="best-effort") as opened:
        yield opened


def text_of(value: Any) -> str:
    """An attribute or scalar dataset as text: bytes and arrays of one entry are undone."""
    if hasattr(value, "shape") and value.shape:
        value = value.ravel()[0] if value.size else ""
    return value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value).strip()
