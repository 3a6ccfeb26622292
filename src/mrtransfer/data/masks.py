"""The masks of images, prepared just as the images are: read once, memory-mapped, one bit per pixel."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import digest
from mrtransfer.common.progress import progress
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.pixels import Fit, prepare
from mrtransfer.data.readers import read_image_meta, read_mask
from mrtransfer.data.stored import Sources, about, open_or_build, unusable
from mrtransfer.data.threads import in_threads

FORMAT = 1  # raise it when the same files would give other masks
_FILE = "masks.npy"
_HALF = 128  # of 255: a pixel is inside where the mask covers half of it


@dataclass(frozen=True, eq=False)
class PreparedMasks:
    """The masks of a manifest on the grid of its stored images; row i is sample i."""

    bits: np.ndarray
    """Memory-mapped uint8 (N, ⌈size²/8⌉); all 0 where a sample has no mask or an empty one."""
    size: int
    content: str
    """Digest of all masks: the same masks have the same name, wherever they lie."""

    def mask(self, row: int) -> np.ndarray:
        """bool (size, size)."""
        return np.unpackbits(self.bits[row], count=self.size**2).reshape(self.size, self.size).astype(bool)

    @cached_property
    def filled(self) -> np.ndarray:
        """(N,) bool: whose mask has pixels."""
        return np.asarray(self.bits.any(axis=1))


def open_masks(manifest: Manifest, *, size: int, fit: Fit = "stretch", directory: str | Path) -> PreparedMasks | None:
    """The masks of ``manifest`` as :func:`~mrtransfer.data.store.open_store` prepares its images; None without any.

    Built in ``directory`` where absent or out of date. Raises one :class:`UserError` that counts the masks that cannot
    be read, or are not of their image's size, and names the first of them.
    """
    locations = manifest.table["mask"].fillna("").tolist()
    if not any(locations):
        return None
    options = {"format": FORMAT, "kind": "masks", "size": size, "fit": fit}
    sources = Sources(f"{manifest.name}-masks", manifest.root, [[location] for location in locations], options)
    return open_or_build(sources, directory, _opened, lambda folder: _build(manifest, options, folder / _FILE))


def prepare_mask(mask: np.ndarray, *, size: int, fit: Fit) -> np.ndarray:
    """A mask, bool (H, W), resized as :func:`~mrtransfer.data.pixels.prepare` resizes its image: bool (size, size).

    Inside is what the mask covers by half or more. A lesion too small for that is where it covers most, so that it does
    not get lost.
    """
    covered = prepare([np.asarray(mask, dtype=bool)], size=size, fit=fit)[0]
    return covered >= np.clip(covered.max(), 1, _HALF)


def _opened(folder: Path, meta: dict[str, Any]) -> PreparedMasks | None:
    """The masks in ``folder``; None where they are not as described."""
    bits = np.load(folder / _FILE, mmap_mode="r")
    return PreparedMasks(bits, meta["size"], meta["content"]) if list(bits.shape) == meta["shape"] else None


def _build(manifest: Manifest, options: dict[str, Any], file: Path) -> dict[str, Any]:
    """Write ``file``; returns its shape and digest."""
    bits = np.zeros((len(manifest), -(-(options["size"] ** 2) // 8)), dtype=np.uint8)
    problems: list[tuple[str, UserError]] = []
    with progress(f"reading masks of {manifest.name}", len(manifest)) as advance:
        for row, found in enumerate(_prepared(manifest, options["size"], options["fit"])):
            advance(1)
            if isinstance(found, UserError):
                problems.append((manifest.table["sample"].iloc[row], found))
            elif found is not None:
                bits[row] = np.packbits(found)
    if problems:
        raise unusable(manifest.name, len(manifest), problems, kind="masks")
    np.save(file, bits)
    return {"shape": list(bits.shape), "content": digest(bits.data.cast("B"))}


def _prepared(manifest: Manifest, size: int, fit: Fit) -> Iterator[np.ndarray | UserError | None]:
    """The masks in order, None where there is none, or what is wrong with them."""

    def read(row: int) -> np.ndarray | UserError | None:
        location = manifest.table["mask"].iloc[row]
        if not isinstance(location, str):
            return None
        try:
            with about(manifest.table["sample"].iloc[row]):
                shape = read_image_meta(manifest.locations(row)[0], manifest.root).get("shape")
                return prepare_mask(read_mask(location, manifest.root, shape), size=size, fit=fit)
        except UserError as problem:
            return problem

    return in_threads(read, range(len(manifest)))
