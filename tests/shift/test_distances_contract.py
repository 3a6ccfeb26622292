"""Every distance of the registry keeps what a distance promises; a new file is covered without an edit here."""

import json

import numpy as np
import pytest
from scipy.stats import binom

from mrtransfer.common.errors import UserError
from mrtransfer.common.plain import plain
from mrtransfer.shift.distance import DISTANCES, Distance, measure, parse_distance
from mrtransfer.shift.parts import Parts

NAMES = DISTANCES.names()
_SAME = {"rel": 1e-6, "abs": 1e-9}
_FEATURES = 6


@pytest.fixture(params=NAMES)
def distance(request: pytest.FixtureRequest) -> Distance:
    return parse_distance(request.param)


def _tables(seed=0, shift=0.0, scale=1.0, subjects=(9, 7), paired=0):
    """Two tables with subjects of unlike numbers of rows, and the subjects of their rows."""
    generator = np.random.default_rng([seed, 77])
    tables, units = [], []
    for letter, number, moved, spread in (("x", subjects[0], 0.0, 1.0), ("y", subjects[1], shift, scale)):
        names = [f"both{i}" if i < paired else f"{letter}{i}" for i in range(number)]
        rows = generator.integers(3, 7, number)
        centre = np.repeat(generator.normal(size=(number, _FEATURES)), rows, axis=0)
        tables.append(moved + spread * (0.5 * centre + generator.normal(size=(int(rows.sum()), _FEATURES))))
        units.append(np.repeat(names, rows))
    return *tables, *units


def _prepared(distance, x, y, units_x, units_y):
    parts = Parts.of(units_x, units_y)
    return distance.prepare(x, y, parts, 0), parts


def test_says_what_it_is(distance):
    assert distance.name in NAMES
    assert distance.words
    assert DISTANCES.summaries()[distance.name]
    assert parse_distance(distance.model_dump()) == distance


@pytest.mark.parametrize("paired", [0, 4])
def test_the_observed_labelling_gives_the_value(distance, paired):
    prepared, parts = _prepared(distance, *_tables(shift=0.4, paired=paired))
    assert np.isfinite(prepared.value)
    assert prepared.relabelled(parts.in_x[None])[0] == pytest.approx(prepared.value, **_SAME)
    assert prepared.resampled(np.ones((1, parts.count), int))[0] == pytest.approx(prepared.value, **_SAME)


@pytest.mark.parametrize("paired", [0, 4])
def test_swapping_the_domains_changes_nothing(distance, paired):
    x, y, units_x, units_y = _tables(shift=0.4, paired=paired)
    prepared, parts = _prepared(distance, x, y, units_x, units_y)
    other, _ = _prepared(distance, y, x, units_y, units_x)
    assert other.value == pytest.approx(prepared.value, **_SAME)
    assert prepared.relabelled(~parts.in_x[None])[0] == pytest.approx(prepared.value, **_SAME)


def test_a_relabelling_is_the_distance_of_the_relabelled_tables(distance):
    """Moving parts to the other table by hand gives what ``relabelled`` says without moving anything."""
    x, y, units_x, units_y = _tables(shift=0.4)
    prepared, parts = _prepared(distance, x, y, units_x, units_y)
    first = parts.relabellings(5, 3).first
    rows, units = np.concatenate([x, y]), np.concatenate([units_x, units_y])
    part = np.concatenate([parts.of_x, parts.of_y])
    for labelling, value in zip(first, prepared.relabelled(first), strict=True):
        to_x = labelling[part]
        again, _ = _prepared(distance, rows[to_x], rows[~to_x], units[to_x], units[~to_x])
        assert value == pytest.approx(again.value, **_SAME)


def test_many_labellings_at_once_are_the_same_one_by_one(distance):
    prepared, parts = _prepared(distance, *_tables(shift=0.4, paired=3))
    first, weights = parts.relabellings(20, 1).first, parts.resamples(20, 1)
    one_by_one = [prepared.relabelled(row[None])[0] for row in first]
    np.testing.assert_allclose(prepared.relabelled(first), one_by_one, rtol=1e-8, atol=1e-10)
    one_by_one = [prepared.resampled(row[None])[0] for row in weights]
    np.testing.assert_allclose(prepared.resampled(weights), one_by_one, rtol=1e-8, atol=1e-10)


def test_nothing_between_a_table_and_itself(distance):
    x, _, units, _ = _tables()
    prepared, parts = _prepared(distance, x, x, units, np.char.add(units, "'"))
    null = prepared.relabelled(parts.relabellings(100, 0).first)
    if distance.unbiased:
        assert prepared.value < np.quantile(null, 0.5)
    else:
        assert prepared.value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("change", ["rows in another order", "subjects renamed", "float32", "all moved alike"])
def test_what_must_not_matter_does_not(distance, change):
    x, y, units_x, units_y = _tables(shift=0.4)
    if change == "float32":  # the same numbers, in both
        x, y = x.astype(np.float32).astype(np.float64), y.astype(np.float32).astype(np.float64)
    value = _prepared(distance, x, y, units_x, units_y)[0].value
    tolerance = 1e-6
    if change == "rows in another order":
        order = np.random.default_rng(0).permutation(len(x))
        x, units_x = x[order], units_x[order]
    elif change == "subjects renamed":
        units_x = np.char.add("z", units_x)
    elif change == "float32":
        x, y, tolerance = x.astype(np.float32), y.astype(np.float32), 1e-4
    elif distance.name in ("kid", "mmd_random_features"):
        pytest.skip("a polynomial kernel is not blind to a common offset; nor is a given draw of random features")
    else:
        x, y = x + 3, y + 3
    assert _prepared(distance, x, y, units_x, units_y)[0].value == pytest.approx(value, rel=tolerance, abs=1e-9)


def test_farther_is_more(distance):
    """Domains made ever farther apart, in mean and in spread, are found so."""
    values = [
        _prepared(distance, *_tables(shift=shift, scale=scale, subjects=(12, 12)))[0].value
        for shift, scale in ((0.0, 1.0), (0.4, 1.5), (0.8, 2.0))
    ]
    assert values == sorted(values)
    assert values[2] > values[0]


def test_measured_with_p_and_interval(distance):
    apart = measure(distance, *_tables(shift=2.0, scale=3.0, subjects=(10, 10)), permutations=99, resamples=99)
    alike = measure(distance, *_tables(subjects=(10, 10)), permutations=99, resamples=99)
    for found in (apart, alike):
        assert 0 < found.smallest_p <= found.p <= 1
        assert found.low <= found.high
        assert np.isfinite([found.value, found.low, found.high, found.null_mean, found.null_sd]).all()
        json.dumps(plain(found.to_json()), allow_nan=False)
    assert apart.p == 0.01
    assert apart.normalised > 3
    assert alike.p > 0.01


def test_measured_twice_is_the_same(distance):
    tables = _tables(shift=0.4)
    one, two = (measure(distance, *tables, permutations=20, resamples=20, seed=5) for _ in range(2))
    assert json.dumps(one.to_json()) == json.dumps(two.to_json())


def test_few_subjects_give_an_exact_p(distance):
    found = measure(distance, *_tables(shift=3.0, scale=4.0, subjects=(3, 3)), permutations=1000, resamples=50)
    assert found.exact
    assert found.relabellings == 20
    assert found.p >= found.smallest_p == 0.1


@pytest.mark.slow
@pytest.mark.parametrize("paired", [0, 8])
def test_p_is_uniform_between_halves_of_one_domain(distance, paired):
    """Of 200 pairs of halves, a share α has p ≤ α, within what chance allows (1 in 10,000 on each side)."""
    p = np.array(
        [
            measure(distance, *_tables(seed, subjects=(8, 8), paired=paired), permutations=19, resamples=0, seed=seed).p
            for seed in range(200)
        ]
    )
    for level in (0.05, 0.1, 0.25, 0.4):
        low, high = binom.ppf([1e-4, 1 - 1e-4], len(p), level)
        assert low <= (p <= level + 1e-9).sum() <= high, level


def test_more_features_than_rows(distance):
    x, y, units_x, units_y = _tables(shift=0.4, subjects=(4, 4))
    spread = np.random.default_rng(0).normal(size=(_FEATURES, 100))
    x, y = x @ spread + 1e-3 * np.tile(x, 17)[:, :100], y @ spread + 1e-3 * np.tile(y, 17)[:, :100]
    found = measure(distance, x, y, units_x, units_y, permutations=100, resamples=50)
    assert np.isfinite([found.value, found.p, found.low, found.high]).all()


def test_some_constant_features_do_no_harm(distance):
    x, y, units_x, units_y = _tables(shift=0.4)
    x[:, 2] = y[:, 2] = 7.0
    found = measure(distance, x, y, units_x, units_y, permutations=20, resamples=20)
    assert np.isfinite([found.value, found.p, found.low, found.high]).all()


@pytest.mark.parametrize("bad", ["one subject", "constant", "NaN", "widths", "identical", "infinite", "unit count"])
def test_bad_input_is_one_clear_sentence(distance, bad):
    x, y, units_x, units_y = _tables()
    match bad:
        case "one subject":
            units_x = np.full(len(x), "only")
        case "constant":
            x[:], y[:] = 1.0, 1.0
        case "NaN":
            x[3, 2] = np.nan
        case "widths":
            y = y[:, :-1]
        case "identical":
            y, units_y = x.copy(), units_x
        case "infinite":
            y[0, 0] = np.inf
        case "unit count":
            units_y = units_y[:-1]
    with pytest.raises(UserError) as caught:
        measure(distance, x, y, units_x, units_y, permutations=5, resamples=5)
    assert len(str(caught.value)) > 20
    assert "\n" not in str(caught.value)
