"""Maximum mean discrepancy: exact, by subjects, by random features; against plain float64 loops and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import pairwise

from mrtransfer.common.errors import UserError
from mrtransfer.shift import frequencies, kernel_sums
from mrtransfer.shift import tables as feature_tables
from mrtransfer.shift.distance import measure, parse_distance
from mrtransfer.shift.distances import mmd_random_features
from mrtransfer.shift.distances.kid import kernel_inception_distance
from mrtransfer.shift.distances.mmd import MMD, maximum_mean_discrepancy
from mrtransfer.shift.distances.mmd_random_features import RandomFeatureMMD, random_feature_mmd
from mrtransfer.shift.kernels import median_gamma
from mrtransfer.shift.parts import Parts


def tables(seed=0, n=60, m=45, width=8, shift=0.3):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, width)), generator.normal(size=(m, width)) + shift


def of_subjects(seed, subjects=(12, 12), rows=4, shift=0.0, paired=False):
    """Tables whose rows resemble those of the same subject, and the subjects."""
    generator = np.random.default_rng(seed)
    centres = [generator.normal(size=(number, 6)) for number in subjects]
    if paired:
        centres[1] = centres[0]
    x, y = (np.repeat(c, rows, 0) + 0.5 * generator.normal(size=(len(c) * rows, 6)) for c in centres)
    units = [np.repeat(np.arange(number), rows) for number in subjects]
    return x, y + shift, units[0], units[1] + (0 if paired else 1000)


def by_definition(x, y, kernel):
    """Unbiased MMD² pair by pair."""
    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


KERNELS = {
    "rbf": (lambda a, b: np.exp(-0.07 * ((a - b) ** 2).sum()), {"gamma": 0.07}),
    "linear": (np.dot, {}),
    "polynomial": (lambda a, b: (0.2 * np.dot(a, b) + 1) ** 3, {"gamma": 0.2}),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_value_is_the_definition_pair_by_pair(name):
    kernel, options = KERNELS[name]
    x, y = tables()
    expected = by_definition(x, y, kernel)
    assert maximum_mean_discrepancy(x, y, name, **options) == pytest.approx(expected, rel=1e-10)


def test_the_value_agrees_with_scikit_learn_also_where_it_is_small_and_for_float32():
    x, y = (table.astype(np.float32) for table in tables(1, 700, 500, 64, shift=0.01))
    a, b = x.astype(np.float64), y.astype(np.float64)
    for name, kernel in (
        ("rbf", lambda a, b: pairwise.rbf_kernel(a, b, 0.01)),
        ("polynomial", lambda a, b: pairwise.polynomial_kernel(a, b, 3, 0.01, 1)),
    ):
        within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(a, a), kernel(b, b))]
        expected = sum(within) - 2 * kernel(a, b).mean()
        assert maximum_mean_discrepancy(x, y, name, gamma=0.01) == pytest.approx(expected, rel=1e-6)


@given(st.integers(1, 150), st.sampled_from(["rbf", "linear", "polynomial"]), st.sampled_from([None, "sum"]))
@settings(deadline=None, max_examples=15)
def test_batch_size_never_changes_the_value(batch, kernel, gamma):
    x, y = tables(2, 70, 53)
    gamma = gamma if kernel == "rbf" else None
    whole = maximum_mean_discrepancy(x, y, kernel, gamma)
    assert maximum_mean_discrepancy(x, y, kernel, gamma, batch_size=batch) == pytest.approx(whole, rel=1e-11, abs=1e-13)


def test_the_linear_kernel_compares_means():
    x, y = tables(3)
    n, m = len(x), len(y)
    squared = ((x.mean(0) - y.mean(0)) ** 2).sum()
    expected = squared - x.var(0, ddof=1).sum() / n - y.var(0, ddof=1).sum() / m  # what chance adds to it
    assert maximum_mean_discrepancy(x + 1e4, y + 1e4, "linear") == pytest.approx(expected, rel=1e-8)


def test_it_is_zero_on_average_where_both_domains_are_one():
    found = [maximum_mean_discrepancy(*tables(seed, 20, 15, 3, shift=0), gamma=0.2) for seed in range(300)]
    assert min(found) < 0
    assert abs(np.mean(found)) < 3 * np.std(found) / 300**0.5


def test_gamma_is_one_over_the_median_squared_distance_of_both_domains_together():
    x, y = tables(4)
    both = np.concatenate([x, y])
    squared = ((both[:, None] - both[None]) ** 2).sum(2)[np.triu_indices(len(both), 1)]
    assert median_gamma(x, y) == (pytest.approx(1 / np.median(squared)), len(both))
    gamma = float(1 / np.median(squared))
    assert maximum_mean_discrepancy(x, y) == pytest.approx(maximum_mean_discrepancy(x, y, gamma=gamma), rel=1e-9)


def test_the_median_of_many_rows_is_that_of_a_fixed_part_of_them():
    x, y = tables(5, 1800, 1500)
    gamma, rows = median_gamma(x, y)
    assert rows == 2000
    assert (gamma, rows) == median_gamma(x, y)
    assert gamma == pytest.approx(1 / np.median(pairwise.euclidean_distances(x, y, squared=True)), rel=0.05)
    details = parse_distance("mmd").prepare(x, y, Parts.of(np.arange(1800) % 5, np.arange(1500) % 7), 0).details
    assert "2000 rows" in details["gamma_from"]


def test_where_most_rows_are_equal_the_median_is_over_the_others():
    x, y = np.zeros((20, 2)), np.zeros((20, 2))
    y[:3] = 2.0
    assert median_gamma(x, y)[0] == pytest.approx(1 / 8)


def test_a_sum_of_bandwidths_is_the_sum_of_their_discrepancies():
    x, y = tables(6)
    gamma, _ = median_gamma(x, y)
    each = [maximum_mean_discrepancy(x, y, gamma=gamma * factor) for factor in (0.25, 0.5, 1, 2, 4)]
    assert maximum_mean_discrepancy(x, y, gamma="sum") == pytest.approx(sum(each), rel=1e-10)
    assert maximum_mean_discrepancy(x, y, gamma=[gamma, 2 * gamma]) == pytest.approx(each[2] + each[3], rel=1e-10)


def test_the_kernel_inception_distance_is_the_discrepancy_with_a_cubic_kernel():
    x, y = tables(7)
    expected = by_definition(x, y, lambda a, b: (np.dot(a, b) / len(a) + 1) ** 3)
    assert kernel_inception_distance(x, y, batch_size=17) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "rbg"}, "unknown kernel 'rbg': did you mean 'rbf'"),
        ({"gamma": 0}, "gamma: must be positive, not 0"),
        ({"gamma": []}, "gamma: must be positive, not an empty list"),
        ({"gamma": "median"}, "gamma: give a number, a list of numbers, 'sum' or None, not 'median'"),
        ({"kernel": "linear", "gamma": 1.0}, "gamma: the linear kernel has none"),
        ({"kernel": "polynomial", "gamma": "sum"}, "gamma: the polynomial kernel takes one number"),
        ({"batch_size": 0}, "batch_size: must be at least 1"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(options, message):
    with pytest.raises(UserError, match=message):
        maximum_mean_discrepancy(*tables(), **options)


@pytest.mark.parametrize("function", [maximum_mean_discrepancy, kernel_inception_distance, random_feature_mmd])
def test_bad_tables_are_refused_in_one_sentence(function):
    x, y = tables()
    bad = y.copy()
    bad[3, 1] = np.nan
    for pair, message in (
        ((x, bad), "Y holds NaN in row 3, feature 1"),
        ((x, y[:, :5]), "X has 8 features and Y has 5"),
        ((x[:1], y), "X has 1 rows"),
        ((np.ones((4, 2)), np.ones((5, 2))), "every feature is constant"),
    ):
        with pytest.raises(UserError, match=message):
            function(*pair)
    with pytest.raises(UserError, match="identical"):
        function(x, x[::-1])


def with_copies(x, y, parts, weights, within, kernel):
    """MMD² of the resample with every copy of a subject written out as a subject of its own."""
    subjects = parts.subject.tolist()
    domains = [
        [(row, subjects[part], copy) for row, part in zip(table, of, strict=True) for copy in range(weights[part])]
        for table, of in ((x, parts.of_x), (y, parts.of_y))
    ]

    def mean(left, right):
        same = left is right
        values = [
            kernel(a[0], b[0])
            for i, a in enumerate(left)
            for j, b in enumerate(right)
            if not (same and i == j) and (a[1] != b[1] or (within and a[2] == b[2]))
        ]
        return sum(values) / len(values)

    return mean(domains[0], domains[0]) + mean(domains[1], domains[1]) - 2 * mean(*domains)


MIXED = np.repeat(["a", "b", "c", "d"], [2, 1, 3, 2]), np.repeat(["c", "d", "e", "f", "g"], [1, 2, 2, 1, 3])


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("pairs", ["subjects", "rows"])
def test_labels_and_weights_of_subjects_give_what_the_definition_gives(pairs, few, monkeypatch):
    if not few:  # the way for many subjects, in several blocks
        monkeypatch.setattr(kernel_sums, "_FEW_PARTS", 0)
        monkeypatch.setattr(kernel_sums, "_BATCH", 3)
    units_x, units_y = MIXED
    x, y = tables(8, len(units_x), len(units_y), 3)
    order = np.random.default_rng(0).permutation(len(x))
    x, units_x = x[order], units_x[order]
    parts = Parts.of(units_x, units_y)
    kernel = lambda a, b: np.exp(-0.1 * ((a - b) ** 2).sum())  # noqa: E731
    prepared = MMD(gamma=0.1, pairs=pairs).prepare(x, y, parts, 0)
    first, weights = parts.relabellings(12, 0).first, parts.resamples(12, 0)
    labels, drawn = prepared.meet(first, weights)
    assert (weights > 1).any()

    both, of = np.concatenate([x, y]), np.concatenate([parts.of_x, parts.of_y])
    once = np.ones(parts.count, int)
    tolerance = {"rel": 1e-10} if few else {"abs": 1e-6}  # many subjects meet the kernel in float32
    for row, found in zip(first, labels, strict=True):
        exchanged = Parts.of(parts.subject[of[row[of]]], parts.subject[of[~row[of]]])
        expected = with_copies(both[row[of]], both[~row[of]], exchanged, once, pairs == "rows", kernel)
        assert found == pytest.approx(expected, **tolerance)
    for row, found in zip(weights, drawn, strict=True):
        assert found == pytest.approx(with_copies(x, y, parts, row, pairs == "rows", kernel), **tolerance)
    assert prepared.value == pytest.approx(with_copies(x, y, parts, once, pairs == "rows", kernel), rel=1e-10)


def test_where_every_row_is_a_subject_the_measured_value_is_the_functions():
    x, y = tables(9)
    for pairs in ("subjects", "rows"):
        for kernel in KERNELS:
            found = measure(MMD(kernel=kernel, pairs=pairs), x, y, np.arange(60), np.arange(60, 105), permutations=20)
            assert found.value == pytest.approx(maximum_mean_discrepancy(x, y, kernel), rel=1e-9)


def test_pairs_of_rows_of_one_subject_make_two_halves_of_a_domain_look_apart():
    found = []
    for seed in range(100):
        x, y, u, v = of_subjects(seed)
        found.append(
            [MMD(gamma=0.1, pairs=pairs).prepare(x, y, Parts.of(u, v), 0).value for pairs in ("rows", "subjects")]
        )
    rows, subjects = np.array(found).T
    assert abs(subjects.mean()) < 3 * subjects.std() / 100**0.5
    assert rows.mean() > 10 * rows.std() / 100**0.5


@pytest.mark.parametrize("paired", [False, True])
def test_p_is_uniform_for_two_halves_of_one_domain_and_would_not_be_by_slices(paired):
    p, by_slices = [], []
    for seed in range(200):
        x, y, u, v = of_subjects([seed, paired], paired=paired)
        options = {"permutations": 99, "resamples": 0, "seed": seed}
        p.append(measure(MMD(), x, y, u, v, **options).p)
        if seed < 50:
            by_slices.append(measure(MMD(), x, y, np.arange(len(x)), 1000 + np.arange(len(y)), **options).p)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert stats.kstest(by_slices, "uniform").pvalue < 1e-12


def test_two_shifted_domains_are_told_apart_with_the_smallest_p_there_is():
    for paired in (False, True):
        x, y, u, v = of_subjects(10, (6, 6), shift=2.0, paired=paired)
        found = measure(MMD(), x, y, u, v)
        assert found.exact
        assert found.p == found.smallest_p == pytest.approx(2 / (64 if paired else 924))
        assert found.low > 0
        assert found.normalised > 3 or paired


def test_the_interval_covers_the_distance_of_the_domains():
    """95 % of intervals, less what 200 trials and so few subjects leave open."""
    x, y, *_ = of_subjects(11, (3000, 3000), rows=1, shift=0.5)
    truth = maximum_mean_discrepancy(x, y, gamma=0.1)
    hits = 0
    for seed in range(200):
        x, y, u, v = of_subjects([12, seed], (25, 20), rows=3, shift=0.5)
        found = measure(MMD(gamma=0.1), x, y, u, v, permutations=0, resamples=200, seed=seed)
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / 200 <= 0.99


@pytest.mark.parametrize("gamma", [None, "sum", 0.3])
def test_random_features_are_within_a_few_standard_errors(gamma):
    x, y = tables(13, 500, 400)
    exact = maximum_mean_discrepancy(x, y, gamma=gamma)
    off = []
    for seed in range(30):
        found = random_feature_mmd(x, y, gamma, features=256, seed=seed)
        off.append((found.value - exact) / found.standard_error)
    assert max(np.abs(off)) < 4.5
    assert 0.6 < np.std(off) < 1.5  # the stated error is neither too small nor too large
    assert abs(np.mean(off)) < 3.5 / 30**0.5


def test_more_random_features_are_closer():
    x, y = tables(14, 300, 300)
    few, many = (random_feature_mmd(x, y, features=number).standard_error for number in (128, 12800))
    assert many < few / 7
    with pytest.raises(UserError, match="features: must be an even number"):
        random_feature_mmd(x, y, features=33)


def test_random_features_need_only_slices_of_a_table(monkeypatch):
    monkeypatch.setattr(feature_tables, "_BYTES", 2**20)

    class Sliced:
        def __init__(self, table):
            self.table, self.shape, self.most = table, table.shape, 0

        def __getitem__(self, rows):
            found = self.table[rows]
            self.most = max(self.most, len(found))
            return found

    x, y = tables(15, 12_000, 9000, 32)
    sliced = Sliced(x), Sliced(y)
    assert random_feature_mmd(*sliced, features=16) == random_feature_mmd(x, y, features=16)
    assert sliced[0].most <= 4096


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("pairs", ["subjects", "rows"])
def test_random_features_of_subjects_tend_to_the_exact_values(pairs, kept, monkeypatch):
    if not kept:  # the way for many subjects, in several blocks
        monkeypatch.setattr(mmd_random_features, "_KEPT_BYTES", 0)
        monkeypatch.setattr(mmd_random_features, "BLOCK", 4)
        monkeypatch.setattr(frequencies, "BLOCK", 5)
    x, y = tables(16, len(MIXED[0]), len(MIXED[1]), 3)
    parts = Parts.of(*MIXED)
    exact = MMD(gamma=0.1, pairs=pairs).prepare(x, y, parts, 0)
    rough = RandomFeatureMMD(gamma=0.1, pairs=pairs, features=40_000).prepare(x, y, parts, 0)
    first, weights = parts.relabellings(12, 0).first, parts.resamples(12, 0)
    assert rough.value == pytest.approx(exact.value, abs=5 * rough.standard_error)
    for a, b in zip(rough.meet(first, weights), exact.meet(first, weights), strict=True):
        np.testing.assert_allclose(a, b, atol=0.03)
    assert rough.details["standard_error_of_features"] == rough.standard_error < 0.01


@pytest.mark.slow
def test_thousands_of_subjects_meet_their_permutations_block_by_block():
    """Every row a subject of its own; against the kernel of scikit-learn, permuted."""
    x, y = tables(17, 2300, 2100, 32, shift=0.02)
    parts = Parts.of(np.arange(2300), 10_000 + np.arange(2100))
    prepared = parse_distance("mmd").prepare(x, y, parts, 0)
    first = parts.relabellings(12, 0).first
    found = prepared.relabelled(first)
    of_rows = first[:, np.concatenate([parts.of_x, parts.of_y])]
    kernel = pairwise.rbf_kernel(np.concatenate([x, y]), gamma=prepared.kernel.gammas[0])
    np.fill_diagonal(kernel, 0)
    for row, value in zip(of_rows, found, strict=True):
        within = sum(kernel[np.ix_(side, side)].sum() / (side.sum() * (side.sum() - 1)) for side in (row, ~row))
        expected = within - 2 * kernel[np.ix_(row, ~row)].mean()
        assert value == pytest.approx(expected, abs=1e-3 * found.std())
