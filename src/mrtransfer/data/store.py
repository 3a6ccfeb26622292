"""The store: every image decoded and resized once, memory-mapped, shared by all runs, and never silently stale."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.files import digest
from mrtransfer.common.progress import progress
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.npy import ImageWriter
from mrtransfer.data.pixels import WINDOW, Fit, prepare
from mrtransfer.data.readers import read_image
from mrtransfer.data.stored import Sources, about, open_or_build, unusable
from mrtransfer.data.threads import in_threads

FORMAT = 1  # raise it when the same files would give other pixels
_FILE = "images.npy"


@dataclass(frozen=True, eq=False)
class Store:
    """The pixels of a manifest; row i is sample i."""

    images: np.ndarray
    """Memory-mapped uint8 (N, C, H, W); C is 1 where every image is grey."""
    content: str
    """Digest of all pixels: the same pixels have the same name, wherever they lie."""
    row_digests: np.ndarray
    """(N,) str: digest of each image's pixels, which does not depend on the other images."""
    folder: Path

    def __len__(self) -> int:
        return len(self.images)


def open_store(
    manifest: Manifest,
    *,
    size: int = 224,
    directory: str | Path,
    fit: Fit = "stretch",
    window: tuple[float, float] = WINDOW,
) -> Store:
    """Open the store of ``manifest`` in ``directory``, building it first where it is absent or out of date.

    It is named by what defines it: the options, and every file's path, size and times of change. See
    :func:`~mrtransfer.data.pixels.prepare` for ``size``, ``fit`` and ``window``. Raises one :class:`UserError` that
    counts and names all unreadable images.
    """
    _check_options(size, fit, window)
    options = {"format": FORMAT, "size": size, "fit": fit, "window": list(window)}
    return open_or_build(
        Sources.of(manifest, options), directory, _opened, lambda folder: _build(manifest, options, folder / _FILE)
    )


def _check_options(size: int, fit: str, window: tuple[float, float]) -> None:
    if fit not in ("stretch", "pad"):
        raise unknown_name("fit", fit, ["stretch", "pad"])
    if size < 1:
        raise UserError(f"size: is {size}; it must be at least 1 pixel")
    if not 0 <= window[0] < window[1] <= 100:
        raise UserError(f"window: is {tuple(window)}; it must be two percentiles, the lower first, such as (0.5, 99.5)")


def _opened(folder: Path, meta: dict[str, Any]) -> Store | None:
    """The store in ``folder``; None where it is not as described."""
    images = np.load(folder / _FILE, mmap_mode="r")
    whole = list(images.shape) == meta["shape"]
    return Store(images, meta["content"], np.array(meta["row_digests"]), folder) if whole else None


def _build(manifest: Manifest, options: dict[str, Any], file: Path) -> dict[str, Any]:
    """Write ``file``; returns its shape and digests."""
    digests: list[str] = []
    problems: list[tuple[str, UserError]] = []
    bar = progress(f"decoding {manifest.name}", len(manifest))
    with bar as advance, ImageWriter(file, len(manifest), options["size"]) as writer:
        for sample, image in zip(manifest.table["sample"], _decoded(manifest, options), strict=True):
            advance(1)
            if isinstance(image, UserError):
                problems.append((sample, image))
            elif not problems:  # otherwise the rest is only looked at, so that all problems are told at once
                with about(sample):
                    writer.write(image)
                digests.append(digest(image.tobytes() + repr(image.shape).encode()))
    if problems:
        raise unusable(manifest.name, len(manifest), problems)
    shape = [len(manifest), writer.channels, options["size"], options["size"]]
    return {"shape": shape, "row_digests": digests, "content": digest([digests, shape])}


def _decoded(manifest: Manifest, options: dict[str, Any]) -> Iterator[np.ndarray | UserError]:
    """The prepared images in order, or what is wrong with them."""
    how = {key: options[key] for key in ("size", "fit")} | {"window": tuple(options["window"])}

    def decode(row: int) -> np.ndarray | UserError:
        try:
            images = [read_image(location, manifest.root) for location in manifest.locations(row)]
            with about(manifest.table["sample"].iloc[row]):
                return prepare(images, **how)
        except UserError as problem:
            return problem

    return in_threads(decode, range(len(manifest)))
