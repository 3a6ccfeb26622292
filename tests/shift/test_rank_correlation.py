"""Rank correlations agree with SciPy, count only what can be compared, and claim nothing that few arms cannot show."""

from itertools import permutations
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mrtransfer.common.errors import UserError
from mrtransfer.shift.rank_correlation import rank_correlation, smallest_p


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(3, 9), ties=st.booleans())
def test_both_coefficients_are_scipy_s(seed, count, ties):
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(2, count))
    if ties:
        x, y = np.round(x), np.round(y)
    found = rank_correlation(x, y, permutations=10)
    assert found.kendall == pytest.approx(stats.kendalltau(x, y).statistic, nan_ok=True)
    with np.errstate(invalid="ignore"):
        if np.ptp(x) and np.ptp(y):
            assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic, nan_ok=True)
        else:
            assert np.isnan(found.spearman)


@pytest.mark.parametrize("count", [3, 5, 7])
def test_p_is_exact_where_every_order_can_be_tried(count):
    x, y = np.random.default_rng(count).normal(size=(2, count))
    found = rank_correlation(x, y)
    assert found.exact
    assert found.p == pytest.approx(stats.kendalltau(x, y, method="exact").pvalue)
    assert found.smallest_p == pytest.approx(2 / factorial(count)) == smallest_p(count)


def test_p_of_many_is_close_to_exact_and_reproducible():
    x = np.arange(10.0)
    y = np.array([4, 0, 2, 1, 3, 9, 5, 6, 8, 7.0])
    found = rank_correlation(x, y, permutations=4000, seed=3)
    assert not found.exact
    assert 0.005 < found.p == pytest.approx(stats.kendalltau(x, y).pvalue, abs=0.005)
    assert found == rank_correlation(x, y, permutations=4000, seed=3)


def test_values_are_compared_within_strata_only():
    x, y = np.array([1, 2, 3, 1.5, 2.5, 3.5]), np.array([1, 2, 3, 11, 13, 12.0])
    strata = ["frozen"] * 3 + ["tuned"] * 3
    found = rank_correlation(x, y, strata=strata)
    assert found.kendall == pytest.approx((3 + 1) / 6)
    ranks = np.array([-1, 0, 1, -1, 0, 1]), np.array([-1, 0, 1, -1, 1, 0])
    assert found.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])
    shifted = rank_correlation(x, y + np.r_[np.zeros(3), np.full(3, -50)], strata=strata)
    assert shifted.kendall == found.kendall


def test_values_of_one_unit_are_not_compared_and_scores_change_hands_unit_by_unit():
    scores, y = np.array([1.0, 2, 3]), np.array([0.0, 5, 1, 6, 2, 9])
    units = np.repeat([0, 1, 2], 2)
    found = rank_correlation(scores[units], y, units=units)

    def tau(x):
        pairs = [(i, j) for i in range(6) for j in range(i) if units[i] != units[j]]
        return sum(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in pairs) / len(pairs)

    drawn = [abs(tau(scores[list(order)][units])) for order in permutations(range(3))]
    assert (found.values, found.units) == (6, 3)
    assert found.kendall == pytest.approx(tau(scores[units]))
    assert found.p == pytest.approx(np.mean([one >= found.kendall - 1e-12 for one in drawn]))


def test_a_stratum_without_anyone_to_compare_with_does_not_count():
    found = rank_correlation([1, 2, 3, 9], [1, 2, 3, 0], strata=["a", "a", "a", "b"])
    assert (found.values, found.units, found.kendall) == (3, 3, 1.0)


def test_too_few_have_no_interval_and_no_small_p():
    two = rank_correlation([1, 2], [3, 4])
    assert (two.kendall, two.p, two.smallest_p) == (1.0, 1.0, 1.0)
    assert np.isnan([two.kendall_low, two.kendall_high, two.spearman_low]).all()
    for nothing in (rank_correlation([1], [2]), rank_correlation([], [])):
        assert nothing.units == 0
        assert np.isnan(nothing.kendall)
        assert np.isnan(nothing.p)
    assert [smallest_p(n) for n in (1, 2, 3)] == [1, 1, pytest.approx(1 / 3)]


def test_what_ranks_nothing_has_no_correlation():
    found = rank_correlation(np.zeros(6), np.arange(6))
    assert np.isnan([found.kendall, found.spearman, found.p, found.kendall_low]).all()


def test_a_perfect_order_of_five_is_no_certainty():
    found = rank_correlation(np.arange(5), np.arange(5))
    assert found.kendall == found.spearman == found.kendall_high == found.spearman_high == 1
    assert 0 < found.kendall_low < 0.5
    assert found.spearman_low < 0.9
    reverse = rank_correlation(np.arange(5), -np.arange(5))
    assert (reverse.kendall_low, reverse.kendall_high) == (-1, pytest.approx(-found.kendall_low))


@pytest.mark.parametrize("count", [5, 12])
def test_intervals_hold_what_is_true_in_at_least_nine_of_ten_cases(count):
    random = np.random.default_rng(count)
    correlation = 0.6
    true = 2 / np.pi * np.arcsin(correlation), 6 / np.pi * np.arcsin(correlation / 2)  # of a bivariate normal
    held = np.zeros(2)
    for _ in range(300):
        x = random.normal(size=count)
        found = rank_correlation(x, correlation * x + 0.8 * random.normal(size=count), permutations=1)
        held += found.kendall_low <= true[0] <= found.kendall_high, found.spearman_low <= true[1] <= found.spearman_high
    assert (held / 300 >= 0.9).all()


def test_p_is_uniform_where_scores_mean_nothing():
    random = np.random.default_rng(0)
    units, strata = np.repeat(np.arange(6), 2), np.tile([0, 1], 6)
    small = 0
    for _ in range(200):
        gains = random.normal(size=6)[units] + 0.3 * random.normal(size=12)  # arms of one network gain alike
        small += rank_correlation(random.normal(size=6)[units], gains, units=units, strata=strata).p <= 0.1
    assert small / 200 <= 0.15


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(UserError, match="2 scores and 3 values"):
        rank_correlation([1, 2], [1, 2, 3])
    with pytest.raises(UserError, match="NaN or infinite"):
        rank_correlation([1, np.nan], [1, 2])
    with pytest.raises(UserError, match="more than one score"):
        rank_correlation([1, 2, 3], [1, 2, 3], units=[0, 0, 1])
    with pytest.raises(UserError, match="2 units"):
        rank_correlation([1, 2, 3], [1, 2, 3], units=[0, 1])
