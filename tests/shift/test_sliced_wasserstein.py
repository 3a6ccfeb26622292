"""Sliced Wasserstein is optimal transport along the directions, exactly, whatever the numbers of rows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance

from mrtransfer.common.errors import UserError
from mrtransfer.shift.distance import parse_distance
from mrtransfer.shift.distances.sliced_wasserstein import SlicedWasserstein, random_directions, sliced_wasserstein
from mrtransfer.shift.parts import Parts


def _slowly(x, y, projections, order, seed):
    """The integral over quantile functions, by their values at the middle of every step."""
    powers = []
    for direction in random_directions(x.shape[1], projections, seed):
        a, b = np.sort(x @ direction), np.sort(y @ direction)
        edges = sorted({0.0, *(np.arange(1, len(a) + 1) / len(a)), *(np.arange(1, len(b) + 1) / len(b))})
        total = 0.0
        for low, high in pairwise(edges):
            middle = (low + high) / 2
            gap = a[min(int(middle * len(a)), len(a) - 1)] - b[min(int(middle * len(b)), len(b) - 1)]
            total += (high - low) * abs(gap) ** order
        powers.append(total)
    return np.mean(powers) ** (1 / order)


def _tables(seed=0, subjects=(6, 8), width=3):
    generator = np.random.default_rng(seed)
    units = [
        np.repeat([f"{letter}{i}" for i in range(number)], 1 + np.arange(number) % 4)
        for letter, number in zip("xy", subjects, strict=True)
    ]
    x = generator.normal(size=(len(units[0]), width))
    return x, 1.5 * generator.normal(size=(len(units[1]), width)) + 0.5, *units


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("subjects", [(6, 6), (6, 8), (3, 11)])
def test_agrees_with_the_integral_over_quantiles(order, subjects):
    x, y, *_ = _tables(subjects=subjects)
    found = sliced_wasserstein(x, y, projections=20, order=order, seed=3)
    assert found == pytest.approx(_slowly(x, y, 20, order, 3), rel=1e-10)


def test_order_one_agrees_with_scipy():
    x, y, *_ = _tables()
    directions = random_directions(3, 50, 1)
    expected = np.mean([wasserstein_distance(x @ direction, y @ direction) for direction in directions])
    assert sliced_wasserstein(x, y, projections=50, order=1, seed=1) == pytest.approx(expected, rel=1e-10)


def test_order_two_is_the_cheapest_assignment():
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=(12, 1)), generator.normal(size=(12, 1)) ** 3
    costs = (x - y.T) ** 2
    cheapest = costs[linear_sum_assignment(costs)].mean()
    assert sliced_wasserstein(x, y, projections=3) == pytest.approx(np.sqrt(cheapest), rel=1e-10)


def test_an_offset_is_its_length_along_the_directions():
    """Every value moves by θ·v; over many directions of d dimensions that is |v| / √d."""
    x, _, *_ = _tables(width=4)
    offset = np.array([3.0, 0.0, -4.0, 0.0])
    along = random_directions(4, 200, 0) @ offset
    assert sliced_wasserstein(x, x + offset) == pytest.approx(np.sqrt((along**2).mean()), rel=1e-10)
    assert sliced_wasserstein(x, x + offset, projections=20_000) == pytest.approx(2.5, rel=0.02)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 10), st.lists(st.floats(-50, 50), min_size=3, max_size=3))
def test_grows_with_the_scale_and_ignores_a_common_offset(scale, offset):
    x, y, *_ = _tables()
    value = sliced_wasserstein(x, y, projections=10)
    moved = sliced_wasserstein(scale * x + np.array(offset), scale * y + np.array(offset), projections=10)
    assert moved == pytest.approx(scale * value, rel=1e-8)


@pytest.mark.parametrize("order", [1, 2])
def test_relabelled_and_resampled_are_the_distance_of_those_rows(order):
    x, y, units_x, units_y = _tables()
    parts = Parts.of(units_x, units_y)
    prepared = SlicedWasserstein(projections=15, order=order).prepare(x, y, parts, 4)
    assert prepared.value == pytest.approx(_slowly(x, y, 15, order, 4), rel=1e-9)
    rows, part = np.concatenate([x, y]), np.concatenate([parts.of_x, parts.of_y])
    first = parts.relabellings(5, 0).first
    expected = [_slowly(rows[to_x[part]], rows[~to_x[part]], 15, order, 4) for to_x in first]
    np.testing.assert_allclose(prepared.relabelled(first), expected, rtol=1e-9)
    weights = parts.resamples(5, 0)
    expected = [
        _slowly(np.repeat(x, w[parts.of_x], axis=0), np.repeat(y, w[parts.of_y], axis=0), 15, order, 4) for w in weights
    ]
    np.testing.assert_allclose(prepared.resampled(weights), expected, rtol=1e-9)


def test_the_error_of_few_directions_is_what_other_directions_show():
    x, y, units_x, units_y = _tables(width=10)
    parts = Parts.of(units_x, units_y)
    prepared = [SlicedWasserstein(projections=40).prepare(x, y, parts, seed) for seed in range(60)]
    stated = np.mean([one.details["projection_error"] for one in prepared])
    assert stated == pytest.approx(np.std([one.value for one in prepared]), rel=0.35)


def test_settings_are_checked():
    with pytest.raises(UserError, match="projections"):
        parse_distance({"name": "sliced_wasserstein", "projections": 0})
    with pytest.raises(UserError, match="order"):
        parse_distance({"name": "sliced_wasserstein", "order": 3})
