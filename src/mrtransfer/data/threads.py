"""Work on many files at once: decoders release Python's lock, so threads use all cores."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

A = TypeVar("A")
B = TypeVar("B")


def cpu_count() -> int:
    """Cores that this process may use, which on a shared machine are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(
    function: Callable[[A], B], items: Iterable[A], ahead: int = 4, threads: int | None = None
) -> Iterator[B]:
    """``map(function, items)`` in one thread per core, in order; at most ``ahead`` results per thread are in memory.

    ``threads``: fewer than one per core, where an item needs much memory.

    Matrix libraries get one thread each meanwhile: all cores are busy already, and threads that wait for others cost
    a factor of ten on a loaded machine.
    """
    cores = min(cpu_count(), threads or cpu_count())
    waiting: deque[Future[B]] = deque()
    with threadpool_limits(1), ThreadPoolExecutor(cores) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead * cores:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
