"""Work in threads: in order, not far ahead, and an error is the caller's."""

import time

import pytest

from mrtransfer.data.threads import cpu_count, in_threads


def test_results_come_in_the_order_of_the_items():
    def slow_at_first(item):
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    assert list(in_threads(slow_at_first, range(50))) == [item * item for item in range(50)]
    assert list(in_threads(slow_at_first, [])) == []


def test_few_results_wait_in_memory():
    begun = []
    results = in_threads(begun.append, range(1000), ahead=2)
    next(results)
    time.sleep(0.05)
    assert len(begun) <= 2 * cpu_count() + 1
    results.close()


def test_an_error_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 // item, [1, 0, 1]))
