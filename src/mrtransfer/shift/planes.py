"""From one sample, whatever holds it, to 2-D planes on a square grid, with the intensities that it has."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.progress import progress
from mrtransfer.data.cases.reading import each_case
from mrtransfer.data.kspace import open_volume
from mrtransfer.data.kspace.open import SUFFIXES
from mrtransfer.data.kspace.target import magnitude_target
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.readers import read_image_meta
from mrtransfer.data.readers.location import Location, is_phantom
from mrtransfer.data.silhouette import air_threshold, signals
from mrtransfer.data.stored import unusable
from mrtransfer.data.threads import in_threads
from mrtransfer.data.volume import Case, background_values, make_frame
from mrtransfer.data.volume.resample import resample
from mrtransfer.data.volume.volume import spacing_of

_SHOWN = 0.1  # planes with less anatomy than this part of the fullest plane's are the ends of the body part
_LISTED = 50  # unusable volumes that are named


@dataclass(frozen=True, eq=False)
class Planes:
    """The planes of one sample."""

    images: np.ndarray
    """float32 (K, C, size, size)."""
    spacing: tuple[float, float]
    """mm between rows and between columns of the sample as it was; NaN where unknown."""
    pixel: float
    """mm between pixels of the square grid; NaN where unknown."""


def is_kspace(location: str) -> bool:
    """Whether a location holds k-space and not images."""
    if is_phantom(location):
        from mrtransfer.data.phantom.kspace_scan import is_kspace as rendered

        return rendered(location)
    return Location.parse(location).path.lower().endswith(SUFFIXES)


def each_planes(manifest: Manifest, slices: int, size: int) -> Iterator[Planes]:
    """The planes of every sample in order; one :class:`UserError` at the end names all that cannot be used."""
    if any(is_kspace(location) for row in range(len(manifest)) for location in manifest.locations(row)):
        yield from _each_kspace(manifest, slices, size)
        return
    # Masks are not looked at, so that a damaged one is no reason to refuse a comparison of images.
    images_only = replace(manifest, table=manifest.table.assign(mask=None))

    def one(row: int, case: Case) -> Planes:
        return _of_case(manifest, row, case, slices, size)

    yield from each_case(images_only, range(len(manifest)), one, "reading slices of")


def spread(low: int, high: int, number: int) -> list[int]:
    """Indices in the middle of ``number`` equal parts of low, …, high - 1; all of them where there are fewer."""
    if high - low <= number:
        return list(range(low, high))
    return [low + int((high - low) * (part + 0.5) / number) for part in range(number)]


def _of_case(manifest: Manifest, row: int, case: Case, slices: int, size: int) -> Planes:
    if case.image.shape[-1] == 1:  # a picture: rows and columns as they are
        image = case.image[..., 0]
        if len(manifest.channels) == 1 and (image[1:] == image[:1]).all():
            image = image[:1]  # grey, saved in colour
        return _on_grid(image[None], _pixel_size(manifest, row), size, background_values(case.image))
    frame = make_frame(case.image.shape[1:], case.affine)
    volume = frame.image_to_prepared(case.image)
    # From (C, right, anterior, superior) to axial planes as a radiologist sees them: anterior on top, right on the left
    planes = np.ascontiguousarray(volume[:, ::-1, ::-1].transpose(3, 0, 2, 1))
    share = _anatomy(volume).mean(axis=(0, 1))
    shown = np.flatnonzero(share >= _SHOWN * share.max())
    x, y, _ = spacing_of(frame.prepared_affine)
    chosen = planes[spread(int(shown[0]), int(shown[-1]) + 1, slices)]
    return _on_grid(chosen, (y, x), size, background_values(volume))


def _anatomy(volume: np.ndarray) -> np.ndarray:
    """bool (x, y, z): signal above that of air in any channel of (C, x, y, z)."""
    return np.any([signal > air_threshold(signal) for signal in signals(volume)], axis=0)


def _pixel_size(manifest: Manifest, row: int) -> tuple[float, float]:
    """mm between rows and columns of a picture, as the table says or else the file; NaN where neither does."""
    said = manifest.table[["spacing_y", "spacing_x"]].iloc[row]
    if said.notna().all():
        return float(said.iloc[0]), float(said.iloc[1])
    rows, columns = read_image_meta(manifest.locations(row)[0], manifest.root).get("spacing", (np.nan, np.nan))
    return float(rows), float(columns)


def _on_grid(planes: np.ndarray, spacing: tuple[float, float], size: int, background: np.ndarray) -> Planes:
    """(K, C, H, W) on the square grid: as large as it fits, its shape in mm kept, ``background`` (C,) around.

    Interpolated linearly; where the grid is coarser, by a triangle as wide as two of its pixels, which keeps out what
    it cannot hold.
    """
    count, channels, height, width = planes.shape
    known = bool(np.isfinite(spacing).all())
    lengths = height * (spacing[0] if known else 1.0), width * (spacing[1] if known else 1.0)
    pixel = max(lengths) / size
    rows, columns = (max(1, min(size, round(length / pixel))) for length in lengths)
    stack = resample(planes.reshape(-1, height, width), (count * channels, rows, columns), ("linear",) * 3)
    images = np.empty((count, channels, size, size), np.float32)
    images[...] = background[None, :channels, None, None]
    top, left = (size - rows) // 2, (size - columns) // 2
    images[:, :, top : top + rows, left : left + columns] = stack.reshape(count, channels, rows, columns)
    return Planes(images, spacing, pixel if known else float("nan"))


def _each_kspace(manifest: Manifest, slices: int, size: int) -> Iterator[Planes]:
    problems: list[tuple[str, UserError]] = []

    def one(row: int) -> Planes | UserError:
        try:
            return _of_kspace(manifest, row, slices, size)
        except UserError as problem:
            return problem

    found = in_threads(one, range(len(manifest)), ahead=1)
    with progress(f"reading slices of {manifest.name}", len(manifest)) as advance:
        for sample, result in zip(manifest.table["sample"], found, strict=True):
            advance(1)
            if isinstance(result, UserError):
                problems.append((sample, result))
            else:
                yield result
    if problems:
        raise unusable(manifest.name, len(manifest), problems, "volumes", _LISTED)


def _of_kspace(manifest: Manifest, row: int, slices: int, size: int) -> Planes:
    """The magnitude (root sum of squares over coils) of slices of k-space; zeros stand for what was not sampled."""
    location = manifest.locations(row)[0]
    volume = open_volume(location, manifest.root)
    images = [
        magnitude_target(volume.read(index, target=False).kspace, volume.crop)
        for index in spread(0, volume.slices, slices)
    ]
    said = volume.spacing[:2] if volume.spacing is not None else _table_spacing(manifest, row)
    planes = np.stack(images)[:, None]
    return _on_grid(planes, said, size, np.zeros(1, np.float32))


def _table_spacing(manifest: Manifest, row: int) -> tuple[float, float]:
    y, x = manifest.table[["spacing_y", "spacing_x"]].iloc[row]
    return float(y), float(x)
