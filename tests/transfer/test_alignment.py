"""Losses between two domains agree with plain double loops, and are zero on average where the domains are the same."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.transfer.alignment import BANDWIDTHS, coral_loss, mcc_loss, mmd_loss


def rows(seed, n, d, shift=0.0, scale=1.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, scale, (n, d)))


def mmd_by_loops(x, y):
    """Gretton et al. 2012, eq. 3, one pair after the other."""
    both = np.concatenate([x, y])
    pairs = list(combinations(range(len(both)), 2))
    scale = np.mean([((both[i] - both[j]) ** 2).sum() for i, j in pairs])

    def kernel(a, b):
        distance = ((a - b) ** 2).sum()
        return np.mean([np.exp(-distance / (factor * scale)) for factor in BANDWIDTHS])

    within_x = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    return within_x + within_y - 2 * np.mean([kernel(a, b) for a in x for b in y])


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 7), st.integers(2, 7), st.integers(1, 5), st.floats(-3, 3), st.integers(0, 1000))
def test_mmd_is_the_unbiased_estimate_of_its_definition(n, m, d, shift, seed):
    x, y = rows(seed, n, d), rows(seed + 1, m, d, shift)
    expected = mmd_by_loops(x.numpy(), y.numpy())
    assert float(mmd_loss(x, y)) == pytest.approx(expected, abs=1e-9)
    assert float(mmd_loss(x.float(), y.float())) == pytest.approx(expected, abs=1e-5)


def test_mmd_is_zero_on_average_over_all_ways_to_call_one_half_the_source():
    both = rows(0, 8, 3)
    values = []
    for chosen in combinations(range(8), 4):
        others = [row for row in range(8) if row not in chosen]
        values.append(float(mmd_loss(both[list(chosen)], both[others])))
    assert np.mean(values) == pytest.approx(0, abs=1e-12)
    assert min(values) < 0 < max(values)


def test_mmd_of_batches_of_one_domain_has_no_constant_in_it():
    values = [float(mmd_loss(rows(2 * n, 8, 4), rows(2 * n + 1, 8, 4))) for n in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert np.mean([float(mmd_loss(rows(2 * n, 8, 4), rows(2 * n + 1, 8, 4, 0.5))) for n in range(100)]) > 0.02


def test_mmd_keeps_its_digits_far_from_the_origin_and_its_gradient_where_rows_are_equal():
    x, y = rows(0, 6, 3).float(), rows(1, 6, 3, 1.0).float()
    assert float(mmd_loss(x + 1000, y + 1000)) == pytest.approx(float(mmd_loss(x, y)), abs=1e-3)
    same = torch.ones(4, 3, requires_grad=True)
    loss = mmd_loss(same, same)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(same.grad).all()


def test_following_the_gradient_of_each_loss_brings_the_domains_together():
    for loss, scale in ((mmd_loss, 1.0), (coral_loss, 3.0)):
        source, target = rows(0, 32, 4), rows(1, 32, 4, 2.0, scale).requires_grad_()
        before = loss(source, target).item()
        optimiser = torch.optim.Adam([target], lr=0.05)
        for _ in range(60):
            optimiser.zero_grad()
            loss(source, target).backward()
            optimiser.step()
        assert loss(source, target).item() < 0.4 * before


def test_coral_is_the_distance_of_covariances():
    x, y = rows(0, 9, 4), rows(1, 6, 4, 5.0, 2.0)
    expected = np.linalg.norm(np.cov(x.numpy().T) - np.cov(y.numpy().T)) ** 2 / (4 * 4**2)
    assert float(coral_loss(x, y)) == pytest.approx(expected, rel=1e-12)
    assert float(coral_loss(x, x + 7)) == pytest.approx(0, abs=1e-20)
    # Of one feature with n rows each: the squared difference of variances over 4.
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [4.0]])
    assert float(coral_loss(a, b)) == pytest.approx((2 - 8) ** 2 / 4)
    assert torch.autograd.gradcheck(coral_loss, (x.requires_grad_(), y))


def mcc_by_loops(logits, temperature):
    scaled = np.exp(logits / temperature)
    chances = scaled / scaled.sum(axis=1, keepdims=True)
    sure = [1 + np.exp(sum(p * np.log(p) for p in row)) for row in chances]
    weights = [len(logits) * value / sum(sure) for value in sure]
    classes = logits.shape[1]
    table = np.zeros((classes, classes))
    for j in range(classes):
        for k in range(classes):
            table[j, k] = sum(w * row[j] * row[k] for w, row in zip(weights, chances, strict=True))
    table /= table.sum(axis=1, keepdims=True)
    return sum(table[j, k] for j in range(classes) for k in range(classes) if j != k) / classes


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(2, 5), st.sampled_from([1.0, 2.5]), st.integers(0, 1000))
def test_class_confusion_is_that_of_its_definition(m, classes, temperature, seed):
    logits = rows(seed, m, classes, scale=3.0)
    expected = mcc_by_loops(logits.numpy(), temperature)
    assert float(mcc_loss(logits, temperature)) == pytest.approx(expected, abs=1e-12)
    assert 0 <= expected <= 1 - 1 / classes + 1e-12


def test_class_confusion_is_none_for_sure_predictions_and_largest_for_none():
    assert float(mcc_loss(1e4 * torch.eye(3).repeat(4, 1))) == pytest.approx(0, abs=1e-6)
    assert float(mcc_loss(torch.zeros(5, 4))) == pytest.approx(3 / 4)
    extreme = torch.tensor([[500.0, -500.0], [400.0, -400.0]], requires_grad=True)  # nobody is of the second class
    mcc_loss(extreme).backward()
    assert torch.isfinite(extreme.grad).all()


def test_losses_of_half_precision_features_are_in_float32():
    x, y = rows(0, 6, 3).bfloat16(), rows(1, 6, 3, 1.0).bfloat16()
    for loss in (mmd_loss(x, y), coral_loss(x, y), mcc_loss(x)):
        assert loss.dtype == torch.float32
    assert float(mmd_loss(x, y)) == pytest.approx(float(mmd_loss(x.double(), y.double())), abs=1e-5)


@pytest.mark.parametrize("loss", [mmd_loss, coral_loss])
def test_a_batch_with_one_row_of_a_domain_is_refused(loss):
    with pytest.raises(UserError, match="at least 2 rows of each domain in a batch, and has 1"):
        loss(rows(0, 4, 2), rows(1, 1, 2))
