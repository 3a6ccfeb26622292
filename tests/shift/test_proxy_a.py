"""The proxy A-distance is what training a classifier anew for every subject left out would give."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import Ridge

from mrtransfer.common.errors import UserError
from mrtransfer.shift.distances.proxy_a import PreparedProxyA, ProxyA, ledoit_wolf, proxy_a_distance
from mrtransfer.shift.parts import Parts


def _slowly(rows, in_x, subject, shrinkage=None):
    """Balanced error of ridge classifiers, each trained by scikit-learn without one subject."""
    rows = rows - rows.mean(0)
    rows = rows / rows.std(0)
    if shrinkage is None:
        shrinkage = ledoit_wolf_shrinkage(rows, assume_centered=True)
    penalty = shrinkage / (1 - shrinkage) * (rows**2).sum() / rows.shape[1]
    wrong = np.zeros(len(rows), bool)
    for name in np.unique(subject):
        test = subject == name
        ridge = Ridge(alpha=penalty).fit(rows[~test], np.where(in_x, 1, -1)[~test])
        scores = ridge.predict(rows)
        threshold = (scores[~test & in_x].mean() + scores[~test & ~in_x].mean()) / 2
        wrong[test] = (scores[test] > threshold) != in_x[test]
    return (wrong[in_x].mean() + wrong[~in_x].mean()) / 2, wrong


def _tables(seed=0, subjects=(8, 12), width=5, paired=0, shift=0.7):
    generator = np.random.default_rng(seed)
    tables, units = [], []
    for letter, number, moved in (("x", subjects[0], 0.0), ("y", subjects[1], shift)):
        names = np.repeat(
            [f"both{i}" if i < paired else f"{letter}{i}" for i in range(number)], 1 + np.arange(number) % 5
        )
        tables.append(generator.normal(size=(len(names), width)) * np.geomspace(0.1, 10, width) + moved)
        units.append(names)
    return *tables, *units


@pytest.mark.parametrize("shrinkage", [None, 0.05])
@pytest.mark.parametrize("paired", [0, 5])
@pytest.mark.parametrize("width", [5, 90])
def test_agrees_with_classifiers_trained_one_by_one(shrinkage, paired, width):
    x, y, units_x, units_y = _tables(width=width, paired=paired)
    prepared = ProxyA(shrinkage=shrinkage).prepare(x, y, parts := Parts.of(units_x, units_y), 0)
    rows, units = np.concatenate([x, y]), np.concatenate([units_x, units_y])
    error, _ = _slowly(rows, np.arange(len(rows)) < len(x), units, shrinkage)
    assert prepared.details["balanced_error"] == pytest.approx(error, abs=1e-9)
    assert prepared.value == pytest.approx(max(0, 2 * (1 - 2 * error)), abs=1e-9)
    part = np.concatenate([parts.of_x, parts.of_y])
    first = parts.relabellings(6, 0).first
    expected = [max(0, 2 * (1 - 2 * _slowly(rows, to_x[part], units, shrinkage)[0])) for to_x in first]
    np.testing.assert_allclose(prepared.relabelled(first), expected, atol=1e-9)


def test_subjects_with_more_rows_than_the_classifier_has_features():
    generator = np.random.default_rng(7)
    units_x, units_y = np.repeat(["a", "b"], 40), np.repeat(["c", "d", "e"], 30)
    x, y = generator.normal(size=(80, 3)), generator.normal(size=(90, 3)) + 0.5
    error, _ = _slowly(np.concatenate([x, y]), np.arange(170) < 80, np.concatenate([units_x, units_y]), 0.1)
    found = proxy_a_distance(x, y, units_x, units_y, shrinkage=0.1)
    assert found == pytest.approx(max(0, 2 * (1 - 2 * error)), abs=1e-9)


def test_resamples_weigh_the_mistakes_of_subjects():
    x, y, units_x, units_y = _tables()
    parts = Parts.of(units_x, units_y)
    weights = parts.resamples(6, 0)
    rows, units = np.concatenate([x, y]), np.concatenate([units_x, units_y])
    _, wrong = _slowly(rows, np.arange(len(rows)) < len(x), units)
    expected = [
        2 - 2 * np.repeat(wrong[: len(x)], w[parts.of_x]).mean() - 2 * np.repeat(wrong[len(x) :], w[parts.of_y]).mean()
        for w in weights
    ]
    np.testing.assert_allclose(ProxyA().prepare(x, y, parts, 0).resampled(weights), np.maximum(expected, 0), atol=1e-9)


def test_domains_apart_give_two():
    x, y, units_x, units_y = _tables()
    assert proxy_a_distance(x, y + 1000, units_x, units_y) == 2.0


def test_a_subject_is_never_recognised():
    """Rows tell subjects apart perfectly and domains not at all: split by rows this would be 2."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(20):
        x, y = (np.repeat(generator.normal(size=(12, 40)), 6, axis=0) for _ in "xy")
        x, y = x + 1e-3 * generator.normal(size=x.shape), y + 1e-3 * generator.normal(size=y.shape)
        units = np.repeat(np.arange(12), 6).astype(str)
        found.append(PreparedProxyA(x, y, Parts.of(np.char.add("x", units), np.char.add("y", units)), None))
    errors = [prepared.details["balanced_error"] for prepared in found]
    assert np.mean(errors) == pytest.approx(0.5, abs=0.08)


def test_unequal_domains_make_no_difference():
    """Five times as many subjects in Y, and nothing to tell the domains apart: half are mistaken, on each side."""
    errors = []
    for seed in range(20):
        x, y, units_x, units_y = _tables(seed, subjects=(10, 50), shift=0.0)
        errors.append(ProxyA().prepare(x, y, Parts.of(units_x, units_y), 0).details["balanced_error"])
    assert np.mean(errors) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("shape", [(200, 6), (30, 30), (20, 100)])
def test_shrinkage_agrees_with_scikit_learn(shape):
    rows = np.random.default_rng(1).normal(size=shape) * np.linspace(1, 4, shape[1])
    rows -= rows.mean(0)
    values = np.linalg.eigvalsh(rows.T @ rows)
    assert ledoit_wolf(rows, values) == pytest.approx(ledoit_wolf_shrinkage(rows, assume_centered=True), rel=1e-8)


def test_fewer_than_two_subjects_in_a_domain_are_refused():
    x, y, units_x, _ = _tables()
    with pytest.raises(UserError, match="at least two"):
        proxy_a_distance(x, y, units_x, np.full(len(y), "only"))
