"""Work in threads comes back in order, each on one thread, and leaves PyTorch's settings alone."""

import pytest
import torch

from mrtransfer.training.parallel import each


@pytest.mark.parametrize("threads", [1, 2])
def test_results_come_in_order_each_from_one_thread(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        results = list(each(lambda item: (item, torch.get_num_threads()), range(20), "cpu"))
        assert results == [(item, 1) for item in range(20)]
        assert torch.get_num_threads() == threads
        with pytest.raises(ZeroDivisionError):
            list(each(lambda item: 1 // item, [1, 0, 2], "cpu"))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_factorisation_is_the_same_bytes_in_every_thread_from_its_first_call():
    before = torch.get_num_threads()
    matrices = [torch.randn(512, 34, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]

    def factors(number):
        return torch.linalg.qr(matrices[number]).R.numpy().tobytes()

    try:
        torch.set_num_threads(1)
        alone = list(each(factors, range(8), "cpu"))
        torch.set_num_threads(2)
        assert list(each(factors, range(8), "cpu")) == alone
    finally:
        torch.set_num_threads(before)
