"""Many small problems on a CPU: one thread for each, rather than all threads for one after another."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def each(function: Callable[[T], R], items: Sequence[T], device: str) -> Iterator[R]:
    """``function`` of every item, in order; on a CPU as many at a time as PyTorch has threads.

    Threads that wait for each other inside thousands of small products cost more than they give, on a busy machine a
    hundred times more; and with one thread the order of additions does not depend on how many there are.
    """
    if device != "cpu":
        yield from map(function, items)
        return
    workers = min(torch.get_num_threads(), len(items))
    with _one_thread():
        if workers <= 1:
            yield from map(function, items)
            return
        # A new thread asks OpenMP for all cores until it is told otherwise.
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            futures = [pool.submit(function, item) for item in items]
            try:
                for future in futures:
                    yield future.result()
            finally:
                pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
