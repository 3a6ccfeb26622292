"""The Fréchet distance is the one of the definition, for every labelling and resample."""

import numpy as np
import pytest
from scipy import linalg
from sklearn.decomposition import PCA

from mrtransfer.shift.distances import frechet
from mrtransfer.shift.distances.frechet import Frechet, frechet_distance, principal_components
from mrtransfer.shift.parts import Parts


def _by_definition(x, y):
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(cov_x @ cov_y)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov_x + cov_y - 2 * np.real(root))


def _tables(seed=0, subjects=20, width=8):
    generator = np.random.default_rng(seed)
    mix = generator.normal(size=(width, width))
    units = [np.repeat([f"{letter}{i}" for i in range(subjects)], 1 + np.arange(subjects) % 4) for letter in "xy"]
    x = generator.normal(size=(len(units[0]), width)) @ mix
    return x, generator.normal(size=(len(units[1]), width)) @ mix.T + 0.3, *units


def _exactly(rows, mean, covariance, seed):
    """A table whose sample mean and covariance are exactly these."""
    table = np.random.default_rng(seed).normal(size=(rows, len(mean)))
    table -= table.mean(0)
    white = table @ np.linalg.inv(np.linalg.cholesky(np.cov(table, rowvar=False))).T
    return mean + white @ np.linalg.cholesky(covariance).T


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_matrix_square_root(seed):
    x, y, *_ = _tables(seed)
    assert frechet_distance(x, y) == pytest.approx(_by_definition(x, y), rel=1e-6)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-12)


def test_gaussians_with_known_moments():
    """With diagonal covariances the squared distance is the sum of squared differences of means and of deviations."""
    spread_x, spread_y, moved = np.array([1.0, 2.0, 0.5]), np.array([1.5, 2.0, 3.0]), np.array([1.0, -1.0, 0.25])
    x = _exactly(40, np.zeros(3), np.diag(spread_x**2), 0)
    y = _exactly(30, moved, np.diag(spread_y**2), 1)
    assert frechet_distance(x, y) == pytest.approx((moved**2).sum() + ((spread_x - spread_y) ** 2).sum(), rel=1e-10)


def test_a_mere_offset_is_its_squared_length():
    x = _tables()[0]
    offset = np.arange(8.0)
    assert frechet_distance(x, x + offset) == pytest.approx((offset**2).sum(), rel=1e-9)


def test_fewer_rows_than_features():
    """One table lies in a line, so its covariance has one eigenvalue, and the root's trace is a length."""
    generator = np.random.default_rng(3)
    direction = generator.normal(size=12)
    x = np.outer([-1.0, 1.0], direction)
    y = generator.normal(size=(7, 12))
    cov_y = np.cov(y, rowvar=False)
    both = np.sqrt(2 * direction @ cov_y @ direction)
    expected = (y.mean(0) ** 2).sum() + 2 * direction @ direction + np.trace(cov_y) - 2 * both
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("shape", [(60, 10), (25, 80)])
def test_components_are_those_of_both_domains_together(shape):
    generator = np.random.default_rng(4)
    x, y = generator.normal(size=(2, *shape)) * np.linspace(1, 3, shape[1])
    pca = PCA(5, svd_solver="full").fit(np.concatenate([x, y]))
    expected = _by_definition(pca.transform(x), pca.transform(y))
    assert frechet_distance(x, y, components=5) == pytest.approx(expected, rel=1e-6)
    pooled = np.concatenate([x, y])
    _, kept = principal_components(pooled - pooled.mean(0), 5)
    assert kept == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-9)


def test_all_components_change_nothing():
    generator = np.random.default_rng(5)
    x, y = generator.normal(size=(2, 12, 60))
    assert frechet_distance(x, y, components=60) == pytest.approx(frechet_distance(x, y), rel=1e-6)


@pytest.mark.parametrize("moments", ["kept", "summed each time"])
@pytest.mark.parametrize("components", [None, 4])
def test_relabelled_and_resampled_are_the_distance_of_those_rows(moments, components, monkeypatch):
    if moments != "kept":
        monkeypatch.setattr(frechet, "_MOMENTS", 0)
    x, y, units_x, units_y = _tables()
    parts = Parts.of(units_x, units_y)
    prepared = Frechet(components=components).prepare(x, y, parts, 0)
    rows, part = np.concatenate([x, y]), np.concatenate([parts.of_x, parts.of_y])
    if components:
        rows, _ = principal_components(rows - rows.mean(0), components)
    in_x = np.arange(len(rows)) < len(x)
    assert prepared.value == pytest.approx(_by_definition(rows[in_x], rows[~in_x]), rel=1e-6)
    first = parts.relabellings(4, 0).first
    expected = [_by_definition(rows[to_x[part]], rows[~to_x[part]]) for to_x in first]
    np.testing.assert_allclose(prepared.relabelled(first), expected, rtol=1e-6)
    weights = parts.resamples(4, 0)
    expected = [
        _by_definition(np.repeat(rows[in_x], w[part[in_x]], axis=0), np.repeat(rows[~in_x], w[part[~in_x]], axis=0))
        for w in weights
    ]
    np.testing.assert_allclose(prepared.resampled(weights), expected, rtol=1e-6)


def test_singular_covariances_agree_with_the_direct_route():
    """Fewer rows than components: the moments' route and the rows' route see the same distance."""
    x, y, units_x, units_y = _tables(subjects=4, width=30)
    prepared = Frechet(components=None).prepare(x, y, Parts.of(units_x, units_y), 0)
    assert prepared.value == pytest.approx(frechet_distance(x, y), rel=1e-6)


def test_too_few_rows_are_said():
    x, y, units_x, units_y = _tables(subjects=4, width=30)
    details = Frechet().prepare(x, y, Parts.of(units_x, units_y), 0).details
    assert "10 rows are too few" in details["note"]
    assert details["components"] == 19
    few = Frechet(components=3).prepare(x, y, Parts.of(units_x, units_y), 0).details
    assert "note" not in few
    assert 0 < few["variance_kept"] < 1
