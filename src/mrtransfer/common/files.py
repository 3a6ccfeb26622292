"""Files that are either whole or absent, and short names for what defines a thing.

Everything is written under a temporary name beside its target and renamed, so a killed process leaves no half file.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from mrtransfer.common.errors import UserError

_PROBLEMS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder, then run it again",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another folder, then run it again",
    errno.EACCES: "no permission to write there; choose a folder you may write to",
    errno.EPERM: "no permission to write there; choose a folder you may write to",
    errno.EROFS: "the file system is read-only; choose a folder you may write to",
    errno.ENOTDIR: "part of the path is a file, not a folder; choose another folder",
}

_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into one clear sentence about ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno not in _PROBLEMS:
            raise
        raise UserError(f"cannot write {_final(path)}: {_PROBLEMS[error.errno]}") from error


def _final(path: Path) -> Path:
    """``path`` as it will be called: inside an unfinished folder, with that folder's final name."""
    return Path(*(found[1] if (found := _PARTIAL.fullmatch(part)) else part for part in path.parts))


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``; a file or folder made there takes ``path``'s place when the block ends well.

    A folder that is already at ``path`` is kept, and the new one dropped: folders are named by what defines them.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if temporary.is_dir() and path.is_dir():
                return
            os.replace(temporary, path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any, *, sort: bool = True) -> None:
    """Write ``value`` as readable JSON whose bytes depend on the value alone; ``sort=False`` keeps its keys' order."""
    write_text(path, json.dumps(value, indent=1, sort_keys=sort, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a damaged one is named."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it or restore it") from error


def digest(value: Any, length: int = 16) -> str:
    """A short name (SHA-256, hexadecimal) for bytes, or for any value that JSON can write."""
    if not isinstance(value, bytes | bytearray | memoryview):
        value = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return hashlib.sha256(value).hexdigest()[:length]


def file_digest(path: str | Path, length: int = 16) -> str:
    """The SHA-256 of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:length]
