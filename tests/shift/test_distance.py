"""How a distance is judged: bad tables, p over subjects, intervals over subjects, settings."""

import json
from itertools import combinations
from typing import ClassVar

import numpy as np
import pytest
from scipy import stats

from mrtransfer.common.errors import UserError
from mrtransfer.shift.distance import Distance, Prepared, check_tables, measure, parse_distance
from mrtransfer.shift.parts import Parts


class MeanDifference(Distance):
    """The difference of subjects' means of the first feature: small enough to check by hand."""

    name: ClassVar[str] = "mean_difference"
    words: ClassVar[str] = "difference of means"

    def prepare(self, x, y, parts, seed):
        return _Prepared(x, y, parts)


class _Prepared(Prepared):
    def __init__(self, x, y, parts):
        rows = np.concatenate([x[:, 0], y[:, 0]])
        part = np.concatenate([parts.of_x, parts.of_y])
        self.means = np.bincount(part, rows) / np.bincount(part)
        self.in_x = parts.in_x
        self.value = self.of(parts.in_x[None].astype(float), (~parts.in_x[None]).astype(float))[0]

    def of(self, x, y):
        return np.abs(x @ self.means / x.sum(1) - y @ self.means / y.sum(1))

    def relabelled(self, first):
        return self.of(first.astype(float), (~first).astype(float))

    def resampled(self, weights):
        return self.of(weights * self.in_x, weights * ~self.in_x)


def tables(seed: int = 0, subjects: int = 4, rows: int = 3, width: int = 3, shift: float = 0.0):
    generator = np.random.default_rng(seed)
    x, y = (np.repeat(generator.normal(size=(subjects, width)), rows, 0) for _ in range(2))
    units = np.repeat(np.arange(subjects), rows)
    noise = 0.3 * generator.normal(size=(2, *x.shape))
    return x + noise[0], y + noise[1] + shift, units, units + 100


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 4)), "X has 2 features and Y has 4"),
        (np.zeros((3, 0)), np.zeros((3, 0)), "X has 0 features"),
        (np.zeros(3), np.eye(3), r"X has the shape \(3,\)"),
        (np.eye(3), np.ones((1, 3)), "Y has 1 rows: .* at least two subjects"),
        (np.eye(3), np.array([[0, 1, 2], [3, np.nan, 4]]), "Y holds NaN in row 1, feature 1"),
        (np.array([[0, np.inf], [0, 1]]), np.eye(2), "X holds an infinite value in row 0, feature 1"),
        (np.full((3, 2), 7.0), np.full((5, 2), 7.0), "every feature is constant"),
        (np.eye(3), np.eye(3)[[2, 0, 1]], "X and Y are identical"),
        (np.array([["a"], ["b"]]), np.eye(2)[:, :1], "X holds .*: features must be real numbers"),
        (np.eye(2) * 1j, np.eye(2), "X holds complex128"),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(x, y, message):
    with pytest.raises(UserError, match=message):
        check_tables(x, y)


def test_subjects_must_fit_the_rows_and_be_two_at_least():
    x, y = np.eye(3), 2 * np.eye(3)
    with pytest.raises(UserError, match="X has 3 rows and 2 subjects"):
        check_tables(x, y, np.array([1, 2]), np.array([1, 2, 3]))
    with pytest.raises(UserError, match="all rows of Y are of one subject"):
        check_tables(x, y, np.array([1, 2, 3]), np.array([1, 1, 1]))


def test_some_constant_features_and_whole_numbers_are_no_mistake():
    x, y = check_tables(np.array([[1, 5], [2, 5]]), np.array([[3, 5], [4, 5]], np.uint8))
    assert (x.dtype, y.dtype) == (np.float64, np.float64)
    assert check_tables(x.astype(np.float32), y)[0].dtype == np.float32  # no copy of what may be large
    check_tables(np.zeros((2, 1)), np.ones((2, 1)))  # constant in each domain, but not the same


def test_p_over_all_relabellings_is_the_share_that_reaches_the_observed_value():
    x, y, u, v = tables(1, subjects=4)
    found = measure(MeanDifference(), x, y, u, v, permutations=100)
    means = [table[units == unit, 0].mean() for table, units in ((x, u), (y, v)) for unit in np.unique(units)]
    everyone = range(8)
    values = [
        abs(np.mean([means[i] for i in chosen]) - np.mean([means[i] for i in everyone if i not in chosen]))
        for chosen in combinations(everyone, 4)
    ]
    observed = values[0]
    assert found.value == pytest.approx(observed)
    assert found.exact
    assert found.relabellings == 70
    assert found.p == pytest.approx(np.mean(np.array(values) >= observed - 1e-12))
    assert found.smallest_p == pytest.approx(2 / 70)
    assert found.null_mean == pytest.approx(np.mean(values))
    assert found.normalised == pytest.approx((observed - np.mean(values)) / np.std(values))


def test_a_clear_shift_has_the_smallest_p_that_so_few_subjects_allow():
    for paired in (False, True):
        x, y, u, v = tables(2, subjects=5, shift=20.0)
        found = measure(MeanDifference(), x, y, u, u if paired else v)
        assert found.p == found.smallest_p == pytest.approx(2 / 2**5 if paired else 2 / 252)


def test_random_relabellings_count_the_observed_one_too():
    x, y, u, v = tables(3, subjects=12, shift=20.0)
    found = measure(MeanDifference(), x, y, u, v, permutations=99)
    assert (found.exact, found.relabellings) == (False, 99)
    assert found.p == found.smallest_p == pytest.approx(1 / 100)


@pytest.mark.parametrize("paired", [False, True])
def test_p_is_uniform_for_two_halves_of_one_domain_with_several_slices_a_subject(paired):
    p = []
    for seed in range(200):
        x, y, u, v = tables([seed, paired], subjects=10, rows=4)
        if paired:
            y = x + 0.3 * np.random.default_rng([seed, 9]).normal(size=x.shape)
        p.append(measure(MeanDifference(), x, y, u, u if paired else v, permutations=199, resamples=0, seed=seed).p)
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_the_interval_of_a_biased_distance_is_moved_so_that_its_mean_is_the_value():
    x, y, u, v = tables(4, subjects=8)
    prepared = MeanDifference().prepare(x, y, Parts.of(u, v), 0)
    again = prepared.resampled(Parts.of(u, v).resamples(300, 5))
    found = measure(MeanDifference(), x, y, u, v, permutations=10, resamples=300, seed=5)
    expected = np.quantile(again - again.mean() + prepared.value, [0.025, 0.975])
    assert [found.low, found.high] == pytest.approx(expected)


def test_what_was_not_asked_for_is_null_in_json():
    x, y, u, v = tables(5)
    written = measure(MeanDifference(), x, y, u, v, permutations=0, resamples=0).to_json()
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert written["p"] is written["low"] is written["normalised"] is None
    assert measure(MeanDifference(), x * 1e-9, y * 1e-9, u, v).to_json()["value"] > 0  # small values keep their digits


def test_the_same_seed_gives_the_same_answer_and_order_of_rows_makes_no_difference():
    x, y, u, v = tables(6, subjects=9)
    order = np.random.default_rng(0).permutation(len(x))
    found = [measure(parse_distance("mmd"), *given, seed=3) for given in ((x, y, u, v), (x[order], y, u[order], v))]
    assert found[0].to_json() == measure(parse_distance("mmd"), x, y, u, v, seed=3).to_json()
    assert found[1].p == found[0].p
    assert found[1].low == pytest.approx(found[0].low)


def test_settings_are_checked():
    assert parse_distance({"distance": "mmd", "kernel": "linear"}).model_dump()["kernel"] == "linear"
    assert parse_distance({"name": "mmd", "gamma": [0.1, 1]}).model_dump()["gamma"] == (0.1, 1)
    for wrong, message in [
        ("mmdd", "unknown distance 'mmdd': did you mean 'mmd'"),
        ({"name": "mmd", "kernal": "rbf"}, "distances mmd: unknown key 'kernal': did you mean 'kernel'"),
        ({"name": "mmd", "gamma": -1}, "distances mmd: gamma: must be positive"),
        ({"kernel": "rbf"}, "distances: give a name"),
        ({"name": "mmd_random_features", "features": 7}, "must be even"),
    ]:
        with pytest.raises(UserError, match=message):
            parse_distance(wrong)
