"""One pass over all files: digests, a small grey picture and the outer form of every sample."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import file_digest
from mrtransfer.common.progress import progress
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.readers import read_image, suffix
from mrtransfer.data.readers.location import Location, is_phantom

THUMBNAIL = 96
_DIGITS = 32


@dataclass(frozen=True)
class Fingerprints:
    """Row i belongs to sample i of the manifest."""

    bytes: np.ndarray
    """(n,) str: the same where the files' bytes (and the part of them that is meant) are the same."""
    pixels: np.ndarray
    """(n,) str: the same where decoded values and size are the same; colour with equal channels counts as grey."""
    thumbnails: np.ndarray
    """(n, 96, 96) float32: mean over colours, stretched to a square; 0 where the file cannot be read."""
    form: pd.DataFrame
    """What is known without looking at the anatomy: width, height, aspect, file size, file type, dark borders."""
    unreadable: dict[int, str]
    """Row to what is wrong with its file."""

    @property
    def readable(self) -> np.ndarray:
        """(n,) bool."""
        return ~np.isin(np.arange(len(self.pixels)), list(self.unreadable))


class _One(NamedTuple):
    pixels: str
    thumbnail: np.ndarray
    form: dict[str, Any]
    problem: str | None


def fingerprints(manifest: Manifest) -> Fingerprints:
    """Read every file once; a file that cannot be read is noted, not raised.

    Raises :class:`UserError` where no file at all can be read.
    """
    n = len(manifest)
    locations = [manifest.locations(i) for i in range(n)]
    files = sorted(
        {str(Location.parse(one).file(manifest.root)) for row in locations for one in row if not is_phantom(one)}
    )
    with progress("Reading images", n + len(files)) as advance, ThreadPoolExecutor(workers()) as pool:
        sizes_and_digests = dict(zip(files, pool.map(partial(_file, advance=advance), files), strict=True))
        ones = list(pool.map(partial(_sample, root=manifest.root, advance=advance), locations))
    byte_digests = [_bytes_of(row, manifest.root, sizes_and_digests) for row in locations]
    sizes = [sum(size for size, _ in _files_of(row, manifest.root, sizes_and_digests)) for row in locations]
    unreadable = {i: one.problem for i, one in enumerate(ones) if one.problem is not None}
    if len(unreadable) == n:
        raise UserError(next(iter(unreadable.values())))
    form = pd.DataFrame([one.form for one in ones])
    form["file_size"] = np.array(sizes, dtype=float)
    return Fingerprints(
        np.array(byte_digests, dtype=object),
        np.array([one.pixels for one in ones], dtype=object),
        np.stack([one.thumbnail for one in ones]),
        form,
        unreadable,
    )


def workers() -> int:
    """Threads to use: the cores this process may run on. Decoders and digests release the interpreter's lock."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _file(path: str, advance: Callable[[int], None]) -> tuple[int, str]:
    advance(1)
    try:
        return Path(path).stat().st_size, file_digest(path, _DIGITS)
    except OSError:
        return 0, path  # reading its pixels says what is wrong


def _files_of(row: list[str], root: Path, known: dict[str, tuple[int, str]]) -> list[tuple[int, str]]:
    return [known[str(Location.parse(one).file(root))] for one in row if not is_phantom(one)]


def _bytes_of(row: list[str], root: Path, known: dict[str, tuple[int, str]]) -> str:
    """The digest of the files' bytes, with the part of the file that is meant (a slice, say)."""
    if any(map(is_phantom, row)):
        return "|".join(row)
    parts = ["&".join(f"{k}={v}" for k, v in sorted(Location.parse(one).options.items())) for one in row]
    return "|".join(f"{digest}#{part}" for (_, digest), part in zip(_files_of(row, root, known), parts, strict=True))


def _sample(row: list[str], root: Path, advance: Callable[[int], None]) -> _One:
    advance(1)
    try:
        images = [read_image(location, root) for location in row]
    except UserError as error:
        return _One(f"unreadable:{'|'.join(row)}", np.zeros((THUMBNAIL, THUMBNAIL), np.float32), {}, str(error))
    images = [_without_equal_channels(image) for image in images]
    digest = sha256()
    for image in images:
        values = image.astype(np.int32 if image.dtype.kind in "ui" else np.float32, copy=False)
        digest.update(repr(values.shape).encode() + values.dtype.kind.encode())
        digest.update(np.ascontiguousarray(values).data)
    grey = [_grey(image) for image in images]
    thumbnail = np.mean([thumbnail_of(image) for image in grey], axis=0)
    form = _form(row[0], grey[0], sum(1 if image.ndim == 2 else image.shape[2] for image in images))
    return _One(digest.hexdigest()[:_DIGITS], thumbnail, form, None)


def _without_equal_channels(image: np.ndarray) -> np.ndarray:
    """(H, W) where all colours are the same, so that grey JPEGs and grey PNGs of one image agree."""
    if image.ndim == 3 and all(np.array_equal(image[..., 0], image[..., c]) for c in range(1, image.shape[2])):
        return image[..., 0]
    return image


def _grey(image: np.ndarray) -> np.ndarray:
    grey = image.astype(np.float32) if image.ndim == 2 else image.mean(axis=2, dtype=np.float32)
    return np.nan_to_num(grey, nan=0.0, posinf=0.0, neginf=0.0)


def thumbnail_of(grey: np.ndarray, size: int = THUMBNAIL) -> np.ndarray:
    """(H, W) float32 → (size, size) float32, anti-aliased by a triangle filter as wide as the reduction."""
    return np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR))


def _form(location: str, grey: np.ndarray, channels: int) -> dict[str, Any]:
    height, width = grey.shape
    low, high = float(grey.min()), float(grey.max())
    bright = grey > low + 0.05 * (high - low)
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    top, bottom = (rows[0], height - 1 - rows[-1]) if len(rows) else (height, height)
    left, right = (columns[0], width - 1 - columns[-1]) if len(columns) else (width, width)
    return {
        "width": float(width),
        "height": float(height),
        "aspect": width / height,
        "channels": float(channels),
        "file_type": "phantom" if is_phantom(location) else suffix(Location.parse(location).path) or "none",
        "border_top": top / height,
        "border_bottom": bottom / height,
        "border_left": left / width,
        "border_right": right / width,
    }
