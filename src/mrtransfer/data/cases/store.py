"""The store of cases: prepared once, memory-mapped, shared by all runs, and never silently stale."""

import mmap
import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import digest, read_json
from mrtransfer.data.cases.normalise import padding_values
from mrtransfer.data.cases.plan import SegmentationPlan
from mrtransfer.data.cases.prepare import prepare_case
from mrtransfer.data.cases.reading import each_case, labels_of, meaning, pixel_sizes
from mrtransfer.data.harmoniser import FittedHarmoniser
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.stored import META, Sources, open_or_build
from mrtransfer.data.volume import Case, Frame

FORMAT = 1  # raise it when the same files would give other voxels
POINTS = 5000
"""Voxels of a class whose coordinates are kept; where a case has more, as many are drawn from all of them."""
_IMAGES, _MASKS, _POINTS = "images.f16", "masks.u8", "points.i32"


@dataclass(frozen=True, eq=False)
class CaseStore:
    """The cases of a manifest on their prepared grids; row i is sample i. All arrays are read-only memory maps."""

    folder: Path
    meta: dict[str, Any]
    _images: np.ndarray
    _masks: np.ndarray
    _points: np.ndarray
    _maps: tuple[mmap.mmap, ...]

    def __len__(self) -> int:
        return len(self.shapes)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the same files; nothing is copied."""
        return _reopened, (self.folder, self.meta["fingerprint"])

    @property
    def content(self) -> str:
        """Digest of all voxels, masks and grids: the same data have the same name, wherever they lie."""
        return str(self.meta["content"])

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(self.meta["channels"])

    @cached_property
    def row_digests(self) -> np.ndarray:
        """(N,) str: digest of each case's prepared image, which depends on neither its mask nor other cases."""
        return np.array(self.meta["row_digests"])

    @cached_property
    def shapes(self) -> np.ndarray:
        """(N, 3) int64: prepared voxels of each case."""
        return np.array(self.meta["shapes"], dtype=np.int64).reshape(-1, 3)

    @cached_property
    def labelled(self) -> np.ndarray:
        """(N,) bool: whether the case has a mask."""
        return np.array(self.meta["labelled"], dtype=bool)

    def image(self, row: int) -> np.ndarray:
        """float16 (C, x, y, z): the case's normalised image."""
        first, end = self._voxels[row] * len(self.channels), self._voxels[row + 1] * len(self.channels)
        return self._images[first:end].reshape(len(self.channels), *self.shapes[row])

    def mask(self, row: int) -> np.ndarray | None:
        """uint8 (x, y, z): the case's class indices; None where it has no mask."""
        if not self.labelled[row]:
            return None
        return self._masks[self._mask_voxels[row] : self._mask_voxels[row + 1]].reshape(self.shapes[row])

    def frame(self, row: int) -> Frame:
        """From the case's own grid to the prepared one, and back."""
        return Frame.from_json(self.meta["frames"][row])

    def foreground(self, row: int, cls: int) -> np.ndarray:
        """int32 (k, 3): where class ``cls`` ≥ 1 is, at most :data:`POINTS` voxels; none where it does not occur."""
        counts, number = self._counts, row * self._counts.shape[1] + cls - 1
        return self._points[self._first_points[number] : self._first_points[number] + counts.flat[number]]

    def padding(self, row: int) -> np.ndarray:
        """float16 (C,): what surrounds the case; see :func:`~.normalise.padding_values`."""
        return np.array(self.meta["padding"][row], dtype=np.float16)

    def release(self) -> None:
        """Let go of the pages that were read: the system may keep them, this process' memory holds them no longer."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows, which takes pages back by itself
            for mapping in self._maps:
                mapping.madvise(mmap.MADV_DONTNEED)

    @cached_property
    def classes_in(self) -> tuple[tuple[int, ...], ...]:
        """The classes, other than background, that occur in each case's prepared mask."""
        return tuple(tuple(int(k) + 1 for k in np.flatnonzero(counts)) for counts in self._counts)

    @cached_property
    def _voxels(self) -> np.ndarray:
        return _starts(self.shapes.prod(axis=1))

    @cached_property
    def _mask_voxels(self) -> np.ndarray:
        return _starts(self.shapes.prod(axis=1) * self.labelled)

    @cached_property
    def _counts(self) -> np.ndarray:
        """(N, K - 1) kept coordinates."""
        return np.array(self.meta["points"], dtype=np.int64).reshape(len(self), -1)

    @cached_property
    def _first_points(self) -> np.ndarray:
        return _starts(self._counts.ravel())


def _starts(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def open_cases(
    manifest: Manifest,
    plan: SegmentationPlan,
    directory: str | Path,
    *,
    harmonise: FittedHarmoniser | None = None,
) -> CaseStore:
    """Open the prepared cases of ``manifest`` in ``directory``, building them where they are absent or out of date.

    A store is named by what defines it: what of ``plan`` changes voxels (``spacing``, ``crop``, ``normalise``), the
    meaning of the masks, and every file's path, size and times of change; and ``harmonise``, with what it has learned,
    where cases are harmonised before they are normalised. Few cases are in memory at once while it is built. Raises one
    :class:`UserError` that names all cases that cannot be used.
    """
    options: dict[str, Any] = {
        "format": FORMAT,
        "data_key": plan.data_key,
        "labels": meaning(manifest),
        "pixel_sizes": digest(pixel_sizes(manifest)),
    }
    if harmonise is not None:
        options["harmonise"] = harmonise.to_json()
    sources = Sources.of(manifest, options, masks=True)
    return open_or_build(sources, directory, _opened, lambda folder: _build(manifest, plan, harmonise, folder))


def _opened(folder: Path, meta: dict[str, Any]) -> CaseStore | None:
    """The store in ``folder``; None where its files are not as described."""
    arrays: list[np.ndarray] = []
    maps: list[mmap.mmap] = []
    for name, dtype in ((_IMAGES, np.float16), (_MASKS, np.uint8), (_POINTS, np.int32)):
        with open(folder / name, "rb") as file:
            if os.fstat(file.fileno()).st_size:  # nothing cannot be mapped
                maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                arrays.append(np.frombuffer(maps[-1], dtype))
            else:
                arrays.append(np.zeros(0, dtype))
    images, masks, points = arrays
    store = CaseStore(folder, meta, images, masks, points.reshape(-1, 3), tuple(maps))
    expected = (store._voxels[-1] * len(store.channels), store._mask_voxels[-1], store._first_points[-1])
    return store if expected == (len(store._images), len(store._masks), len(store._points)) else None


def _reopened(folder: Path, fingerprint: str) -> CaseStore:
    """The store in ``folder``, for a process that was handed it."""
    try:
        meta = read_json(folder / META)
        store = _opened(folder, meta) if meta["fingerprint"] == fingerprint else None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: the prepared cases are gone or damaged; run the same command again") from error
    if store is None:
        raise UserError(f"{folder}: the prepared cases have changed; run the same command again")
    return store


class _Stored(NamedTuple):
    """One case as it is written, and what is said about it."""

    arrays: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]
    """Image, mask (perhaps none) and coordinates of each class."""
    channels: tuple[str, ...]
    mask_digest: str | None
    """Of the mask, as it was read and as it was prepared."""
    described: dict[str, Any]


def _build(
    manifest: Manifest, plan: SegmentationPlan, harmonise: FittedHarmoniser | None, folder: Path
) -> dict[str, Any]:
    """Write the files, case after case; not through a memory map, in which a full disk kills the process."""
    if not len(manifest):
        raise UserError(f"{manifest.name}: there are no cases to prepare")
    classes = len(labels_of(manifest).names)
    described: list[dict[str, Any]] = []
    mask_digests: list[str | None] = []
    channels: tuple[str, ...] = ()
    with ExitStack() as stack:
        files = [stack.enter_context(open(folder / name, "wb")) for name in (_IMAGES, _MASKS, _POINTS)]
        every = range(len(manifest))
        for case in each_case(manifest, every, lambda _, case: _stored(case, plan, harmonise, classes), "preparing"):
            for file, arrays in zip(files, case.arrays, strict=True):
                for array in arrays:
                    file.write(array.data)
            described.append(case.described)
            mask_digests.append(case.mask_digest)
            channels = case.channels
    columns = {key: [row[key] for row in described] for key in described[0]}
    content = digest([channels, mask_digests, *(columns[key] for key in ("row_digests", "frames"))])
    return {**columns, "channels": list(channels), "content": content}


def _stored(case: Case, plan: SegmentationPlan, harmonise: FittedHarmoniser | None, classes: int) -> _Stored:
    prepared = prepare_case(case, plan, harmonise)
    image = prepared.image.astype(np.float16)  # a z-score is at most the square root of the number of voxels
    masks = [] if prepared.mask is None else [np.ascontiguousarray(prepared.mask)]
    points = [_points(mask, k) for mask in masks for k in range(1, classes)]
    described = {
        "shapes": list(image.shape[1:]),
        "labelled": bool(masks),
        "frames": prepared.frame.to_json(),
        "padding": padding_values(prepared.image, plan.normalise).astype(np.float16).tolist(),
        "points": [len(several) for several in points] or [0] * (classes - 1),
        "row_digests": digest([digest(image.data), image.shape]),
    }
    several = [*masks, *([] if case.mask is None else [np.ascontiguousarray(case.mask)])]
    mask_digest = digest([digest(mask.data) for mask in several]) if masks else None
    return _Stored(([image], masks, points), case.channels, mask_digest, described)


def _points(mask: np.ndarray, cls: int) -> np.ndarray:
    """int32 (k, 3): the voxels of ``cls``, at most :data:`POINTS`, drawn without replacement from all of them."""
    found = np.flatnonzero(mask == cls)
    if len(found) > POINTS:
        found = np.sort(np.random.default_rng([cls, len(found)]).choice(found, POINTS, replace=False))
    return np.stack(np.unravel_index(found, mask.shape), axis=1).astype(np.int32)
