"""The store: every image decoded and resized once, memory-mapped, shared by all runs, and never silently stale."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.files import atomic_path, digest, file_digest, read_json, write_json
from mrtransfer.common.progress import progress
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.npy import ImageWriter
from mrtransfer.data.pixels import WINDOW, Fit, prepare
from mrtransfer.data.readers import read_image
from mrtransfer.data.readers.location import Location, is_phantom
from mrtransfer.data.threads import in_threads

FORMAT = 1  # raise it when the same files would give other pixels
_NAMED = 5  # unreadable images that are named; the others are counted


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
    inputs, fingerprint = _inputs(manifest, options), _fingerprint(manifest, options)
    name = re.sub(r"[^\w.-]+", "_", manifest.name)
    folder = Path(directory) / f"{name}-{fingerprint}"
    store = _opened(folder, fingerprint)
    if store is not None:
        return store
    shutil.rmtree(folder, ignore_errors=True)  # damaged: its build was whole, so something happened to it since
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        described = _build(manifest, options, temporary / "images.npy")
        if _fingerprint(manifest, options) != fingerprint:
            raise UserError(
                f"{manifest.name}: its files changed while they were being read; run the same command again"
            )
        write_json(temporary / "meta.json", {**described, **options, "inputs": inputs, "fingerprint": fingerprint})
    _remove_outdated(folder, inputs)
    store = _opened(folder, fingerprint)
    if store is None:
        raise UserError(f"{folder}: was changed by another program while it was written; run the same command again")
    return store


def _check_options(size: int, fit: str, window: tuple[float, float]) -> None:
    if fit not in ("stretch", "pad"):
        raise unknown_name("fit", fit, ["stretch", "pad"])
    if size < 1:
        raise UserError(f"size: is {size}; it must be at least 1 pixel")
    if not 0 <= window[0] < window[1] <= 100:
        raise UserError(f"window: is {tuple(window)}; it must be two percentiles, the lower first, such as (0.5, 99.5)")


def _inputs(manifest: Manifest, options: dict[str, Any]) -> str:
    """Names what is asked for: the same images with the same options, whatever the files hold by now."""
    locations = [manifest.locations(row) for row in range(len(manifest))]
    return digest([str(manifest.root.absolute()), locations, options])


def _fingerprint(manifest: Manifest, options: dict[str, Any]) -> str:
    """Names what comes out: locations, options, and the state of every file (for the phantom, of its source code)."""
    states: dict[str, list[int] | None] = {}
    code: list[str] = []
    locations = [manifest.locations(row) for row in range(len(manifest))]
    for location in (location for several in locations for location in several):
        if is_phantom(location):
            code = code or _phantom_code()
            continue
        path = Location.parse(location).path
        if path not in states:
            states[path] = _state(manifest.root / path)
    return digest([locations, options, states, code])


def _state(file: Path) -> list[int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None  # the reader will say what is wrong with it
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _phantom_code() -> list[str]:
    rooms = (resources.files("mrtransfer.data") / "phantom", resources.files("mrtransfer") / "physics")
    return [file_digest(path) for room in rooms for path in sorted(Path(str(room)).glob("**/*.py"))]


def _opened(folder: Path, fingerprint: str) -> Store | None:
    """The store in ``folder``; None where it is absent or damaged."""
    try:
        meta = read_json(folder / "meta.json")
        images = np.load(folder / "images.npy", mmap_mode="r")
        whole = meta["fingerprint"] == fingerprint and list(images.shape) == meta["shape"]
        return Store(images, meta["content"], np.array(meta["row_digests"]), folder) if whole else None
    except (OSError, ValueError, KeyError, UserError):
        return None


def _build(manifest: Manifest, options: dict[str, Any], file: Path) -> dict[str, Any]:
    """Write ``file``; returns its shape and digests."""
    digests: list[str] = []
    problems: list[UserError] = []
    bar = progress(f"decoding {manifest.name}", len(manifest))
    with bar as advance, ImageWriter(file, len(manifest), options["size"]) as writer:
        for sample, image in zip(manifest.table["sample"], _decoded(manifest, options), strict=True):
            advance(1)
            if isinstance(image, UserError):
                problems.append(image)
            elif not problems:  # otherwise the rest is only looked at, so that all problems are told at once
                with _about(sample):
                    writer.write(image)
                digests.append(digest(image.tobytes() + repr(image.shape).encode()))
    if problems:
        raise _unreadable(manifest, problems)
    shape = [len(manifest), writer.channels, options["size"], options["size"]]
    return {"shape": shape, "row_digests": digests, "content": digest([digests, shape])}


def _decoded(manifest: Manifest, options: dict[str, Any]) -> Iterator[np.ndarray | UserError]:
    """The prepared images in order, or what is wrong with them."""
    how = {key: options[key] for key in ("size", "fit")} | {"window": tuple(options["window"])}

    def decode(row: int) -> np.ndarray | UserError:
        try:
            images = [read_image(location, manifest.root) for location in manifest.locations(row)]
            with _about(manifest.table["sample"].iloc[row]):
                return prepare(images, **how)
        except UserError as problem:
            return problem

    return in_threads(decode, range(len(manifest)))


@contextmanager
def _about(sample: str) -> Iterator[None]:
    try:
        yield
    except UserError as problem:
        raise UserError(f"sample {sample}: {problem}") from problem


def _unreadable(manifest: Manifest, problems: list[UserError]) -> UserError:
    named = "; ".join(str(problem) for problem in problems[:_NAMED])
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return UserError(f"{manifest.name}: {len(problems)} of {len(manifest)} images cannot be used: {named}{more}")


def _remove_outdated(folder: Path, inputs: str) -> None:
    """Remove stores of the same images and options whose files have changed since; open memory maps stay valid."""
    for other in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*"):
        try:
            outdated = other != folder and read_json(other / "meta.json").get("inputs") == inputs
        except (OSError, UserError):
            continue
        if outdated:
            shutil.rmtree(other, ignore_errors=True)
