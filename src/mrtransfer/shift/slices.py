"""Any dataset as 2-D slices with their own intensities, on one square grid, read once and never silently stale."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.files import digest
from mrtransfer.data.cases.reading import pixel_sizes
from mrtransfer.data.kspace.open import files_of
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.stored import Sources, open_or_build
from mrtransfer.data.volume.case import COLOURS
from mrtransfer.shift.planes import each_planes, is_kspace

FORMAT = 1  # raise it when the same files would give other slices
SMALLEST = 16  # pixels of a side
_FILE = "slices.bin"


@dataclass(frozen=True, eq=False)
class Slices:
    """The slices of a domain; row i is the same slice in every field."""

    images: np.ndarray
    """float32 (N, C, H, W), memory-mapped: intensities as the files have them, neither windowed nor scaled."""
    subjects: np.ndarray
    """(N,) str, "dataset:subject": slices of one subject are no independent samples."""
    samples: np.ndarray
    """(N,) str: the row of the dataset that a slice is from."""
    labels: np.ndarray
    """(N,) str; "" where unknown."""
    scanners: np.ndarray
    """(N,) str; "" where unknown."""
    spacing: np.ndarray
    """(N, 2): mm between rows and columns as the slice was read; NaN where unknown."""
    pixel: np.ndarray
    """(N,): mm between pixels of ``images``, whose pixels are square; NaN where unknown."""
    channels: tuple[str, ...]
    name: str
    content: str
    """Digest of all pixels: the same pixels have the same name, wherever they lie."""
    row_digests: np.ndarray
    """(N,) str: digest of each slice's pixels, which does not depend on other slices."""
    notes: tuple[str, ...] = ()
    """What a reader of results should know about the slices."""
    directory: Path | None = None
    """Where the slices are kept, and features of them may be."""

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray | Sequence[int]) -> Self:
        """The slices at ``rows`` (positions, or a mask of length N), in that order, in memory."""
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        columns = ("images", "subjects", "samples", "labels", "scanners", "spacing", "pixel", "row_digests")
        taken: dict[str, Any] = {column: np.asarray(getattr(self, column)[chosen]) for column in columns}
        shape = [*taken["images"].shape]
        return replace(self, **taken, content=digest([taken["row_digests"].tolist(), shape]))

    def with_channels(self, channels: Sequence[str]) -> Self:
        """The same slices with only the named ``channels``, in that order."""
        for channel in channels:
            if channel not in self.channels:
                raise unknown_name(f"channel of {self.name}", channel, self.channels)
        which = [self.channels.index(channel) for channel in channels]
        digests = np.array([digest([row, which]) for row in self.row_digests])
        return replace(
            self,
            images=np.asarray(self.images[:, which]),
            channels=tuple(channels),
            content=digest([self.content, which]),
            row_digests=digests,
        )


def open_slices(manifest: Manifest, *, slices: int = 8, size: int = 128, directory: str | Path) -> Slices:
    """The slices of ``manifest``, from ``directory``; read first where they are not there or out of date.

    A picture is one slice. Of a volume, ``slices`` axial planes are evenly spread through the part that shows anatomy
    (all planes, where there are fewer). Of k-space, ``slices`` evenly spread slices are reconstructed: the root sum of
    squares of all coils' images. Each is resampled to ``size`` × ``size`` pixels: as large as it fits, its shape in mm
    kept where the size of its pixels is known, with background around.

    A sample whose subject is not known belongs to its group of copies, or else is a subject of its own, and the notes
    say so. Raises one :class:`UserError` that names all samples that cannot be used: missing or damaged files, NaN and
    infinite values, channels of unlike size.
    """
    if slices < 1:
        raise UserError(f"slices: is {slices}; it must be 1 or more of each volume")
    if size < SMALLEST:
        raise UserError(f"size: is {size}; it must be at least {SMALLEST} pixels")
    options = {
        "format": FORMAT,
        "slices": slices,
        "size": size,
        "channels": list(manifest.channels),
        "pixel_sizes": pixel_sizes(manifest),
    }
    locations = [_files(manifest, row) for row in range(len(manifest))]
    sources = Sources(f"{manifest.name}-slices", manifest.root, locations, options)

    def opened(folder: Path, meta: dict[str, Any]) -> Slices | None:
        return _opened(manifest, folder / _FILE, meta)

    return open_or_build(sources, directory, opened, lambda folder: _build(manifest, slices, size, folder / _FILE))


def _files(manifest: Manifest, row: int) -> list[str]:
    """The locations of all files that a row's image is read from."""
    found: list[str] = []
    for location in manifest.locations(row):
        found += files_of(location, manifest.root) if is_kspace(location) else [location]
    return found


def _opened(manifest: Manifest, file: Path, meta: dict[str, Any]) -> Slices | None:
    """The slices in ``file``; None where it is not as described."""
    shape = tuple(meta["shape"])
    if file.stat().st_size != 4 * int(np.prod(shape)):
        return None
    table = manifest.table.iloc[meta["rows"]]
    subjects, notes = _subjects(manifest)
    return Slices(
        images=np.memmap(file, "<f4", mode="r", shape=shape),
        subjects=subjects[meta["rows"]],
        samples=table["sample"].to_numpy(dtype=str),
        labels=table["label"].fillna("").to_numpy(dtype=str),
        scanners=table["scanner"].fillna("").to_numpy(dtype=str),
        spacing=np.array(meta["spacing"], dtype=np.float64).reshape(-1, 2),
        pixel=np.array(meta["pixel"], dtype=np.float64),
        channels=manifest.channels if len(manifest.channels) == shape[1] else COLOURS,
        name=manifest.name,
        content=meta["content"],
        row_digests=np.array(meta["row_digests"]),
        notes=notes,
        directory=file.parent.parent,
    )


def _subjects(manifest: Manifest) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n,) who each sample belongs to, and a note where that is not known."""
    table = manifest.table
    known = table["subject"].fillna(table["group"])
    unknown = int(known.isna().sum())
    names = (manifest.name + ":" + known.fillna(table["sample"])).to_numpy(dtype=str)
    if not unknown:
        return names, ()
    note = f"{manifest.name}: the subject of {unknown} of {len(table)} samples is not known; each counts as its own"
    return names, (note,)


def _build(manifest: Manifest, slices: int, size: int, file: Path) -> dict[str, Any]:
    """Write ``file``; returns what its description must say."""
    rows: list[int] = []
    counts: list[int] = []
    digests: list[str] = []
    spacing: list[list[float | None]] = []
    pixel: list[float | None] = []
    with open(file, "wb") as out:
        for row, planes in enumerate(each_planes(manifest, slices, size)):
            for image in planes.images:
                out.write(image.astype("<f4", copy=False).tobytes())
                rows.append(row)
                counts.append(len(image))
                digests.append(digest(image.tobytes() + repr(image.shape).encode()))
                spacing.append([_or_none(value) for value in planes.spacing])
                pixel.append(_or_none(planes.pixel))
    channels = max(counts)
    if min(counts) < channels:
        _repeat_grey(file, counts, 4 * size * size, channels)
    shape = [len(rows), channels, size, size]
    described = {"rows": rows, "spacing": spacing, "pixel": pixel, "row_digests": digests, "shape": shape}
    return {**described, "content": digest([digests, shape])}


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _repeat_grey(file: Path, counts: Sequence[int], plane: int, channels: int) -> None:
    """Give grey pictures among colour pictures three equal channels; ``plane``: bytes of one."""
    mixed = file.with_suffix(".mixed")
    file.rename(mixed)
    with open(mixed, "rb") as old, open(file, "wb") as new:
        for count in counts:
            new.write(old.read(plane * count) * (channels // count))
    mixed.unlink()
