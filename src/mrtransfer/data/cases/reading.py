"""Reading many cases: in order, in as many threads as their memory allows, with all problems told at once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.progress import progress
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.stored import about, unusable
from mrtransfer.data.threads import in_threads
from mrtransfer.data.volume import Case, read_case

T = TypeVar("T")

MEMORY = 2**30
"""Bytes that cases which are read at the same time may take together; one case may take more."""
_COPIES = 5  # times its float32 image that a case takes while it is read and resampled
_LISTED = 50  # unusable cases that are named


def labels_of(manifest: Manifest) -> MaskLabels:
    """What the masks' values mean; one class, all that is not 0, where the manifest does not say."""
    return manifest.mask_labels or MaskLabels.binary()


def meaning(manifest: Manifest) -> dict[str, Any]:
    """What of the masks' labels decides which voxel belongs to which class, as JSON can write it; names do not."""
    labels = labels_of(manifest)
    return {"values": [list(values) for values in labels.values], "anything_else": labels.anything_else}


def pixel_sizes(manifest: Manifest) -> list[list[str]]:
    """What the table says about each row's pixels, which counts where the files say nothing."""
    return [[str(size) for size in row] for row in manifest.table[["spacing_x", "spacing_y"]].to_numpy()]


def each_case(
    manifest: Manifest, rows: Sequence[int] | np.ndarray, work: Callable[[int, Case], T], title: str
) -> Iterator[T]:
    """``work(row, case)`` of ``rows``, in their order; cases that cannot be used are left out until the end.

    The first case is read alone and shows how many may be in memory at once. Raises, when the last result has been
    taken, one :class:`UserError` that names all cases that could not be read or worked on.
    """
    problems: list[tuple[str, UserError]] = []
    samples = manifest.table["sample"]
    largest = 0

    def one(row: int) -> T | UserError:
        nonlocal largest
        try:
            case = read_case(manifest, row)
            largest = max(largest, case.image.nbytes)
            with about(samples.iloc[row]):
                return work(row, case)
        except UserError as problem:
            return problem

    def results() -> Iterator[T | UserError]:
        yield one(int(rows[0]))
        threads = max(1, MEMORY // max(_COPIES * largest, 1))
        yield from in_threads(one, map(int, rows[1:]), ahead=1, threads=threads)

    with progress(f"{title} {manifest.name}", len(rows)) as advance:
        for row, result in zip(rows, results() if len(rows) else (), strict=True):
            advance(1)
            if isinstance(result, UserError):
                problems.append((samples.iloc[int(row)], result))
            else:
                yield result
    if problems:
        raise unusable(manifest.name, len(rows), problems, "cases", _LISTED)
