"""What the benchmarks share: images without any download, and the median of several runs."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.store import Store, open_store


def images(path: str | None, subjects: int, size: int, cache: Path) -> tuple[Manifest, Store]:
    """Class folders at ``path``, or the phantom; decoded once into a store, so that neither side pays for decoding."""
    if path:
        manifest = DATASETS.get("folder")(path)
    else:
        manifest = DATASETS.get("phantom")(subjects=subjects, slices=2, contrast="t1ce", size=min(size, 128))
    return manifest, open_store(manifest, size=size, directory=cache)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median(values: list[float]) -> float:
    """The median; a list of one is its value."""
    return statistics.median(values)
