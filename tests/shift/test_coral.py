"""CORAL is the squared difference of covariances, for every labelling and resample, by either route."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.shift.distances import coral
from mrtransfer.shift.distances.coral import Coral, coral_distance
from mrtransfer.shift.parts import Parts


def _slowly(x, y):
    """The definition, one entry of the covariances at a time."""
    total, width = 0.0, x.shape[1]
    for i in range(width):
        for j in range(width):
            one = sum((x[:, i] - x[:, i].mean()) * (x[:, j] - x[:, j].mean())) / (len(x) - 1)
            two = sum((y[:, i] - y[:, i].mean()) * (y[:, j] - y[:, j].mean())) / (len(y) - 1)
            total += (one - two) ** 2
    return total / (4 * width**2)


def _tables(seed=0, subjects=8, width=4):
    generator = np.random.default_rng(seed)
    units = [np.repeat([f"{letter}{i}" for i in range(subjects)], 1 + np.arange(subjects) % 4) for letter in "xy"]
    x = generator.normal(size=(len(units[0]), width))
    return x, 1.5 * generator.normal(size=(len(units[1]), width)) + 20, *units


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_definition(seed):
    x, y, *_ = _tables(seed)
    assert coral_distance(x, y) == pytest.approx(_slowly(x, y), rel=1e-10)


def test_uncorrelated_features_of_known_variance():
    """Rows ±e_i √((n−1)/2) have the identity as covariance; twice as long, four times it: 9 d / (4 d²)."""
    width = 5
    x = np.concatenate([np.eye(width), -np.eye(width)]) * np.sqrt((2 * width - 1) / 2)
    assert coral_distance(x, 2 * x) == pytest.approx(9 / (4 * width), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 10), st.lists(st.floats(-50, 50), min_size=4, max_size=4), st.integers(0, 1000))
def test_blind_to_offsets_and_rotations_and_grows_with_the_fourth_power(scale, offset, seed):
    x, y, *_ = _tables()
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))
    value = coral_distance(x, y)
    assert coral_distance(x @ turn, y @ turn + np.array(offset)) == pytest.approx(value, rel=1e-8)
    assert coral_distance(scale * x, scale * y) == pytest.approx(scale**4 * value, rel=1e-8)


@pytest.mark.parametrize("route", ["moments of parts", "pairs of rows"])
@pytest.mark.parametrize("width", [4, 60])
def test_relabelled_and_resampled_are_the_distance_of_those_rows(route, width, monkeypatch):
    if route == "pairs of rows":
        monkeypatch.setattr(coral, "_NUMBERS_AT_ONCE", 70)
    x, y, units_x, units_y = _tables(width=width)
    parts = Parts.of(units_x, units_y)
    prepared = Coral().prepare(x, y, parts, 0)
    assert prepared.value == pytest.approx(coral_distance(x, y), rel=1e-8)
    rows, part = np.concatenate([x, y]), np.concatenate([parts.of_x, parts.of_y])
    first = parts.relabellings(5, 0).first
    expected = [coral_distance(rows[to_x[part]], rows[~to_x[part]]) for to_x in first]
    np.testing.assert_allclose(prepared.relabelled(first), expected, rtol=1e-8)
    weights = parts.resamples(5, 0)
    expected = [
        coral_distance(np.repeat(x, w[parts.of_x], axis=0), np.repeat(y, w[parts.of_y], axis=0)) for w in weights
    ]
    np.testing.assert_allclose(prepared.resampled(weights), expected, rtol=1e-8)
