"""Maps: the right method on the right rows, the same every time, and honest about what they cannot draw."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from mrtransfer.common.errors import UserError
from mrtransfer.shift import maps
from mrtransfer.shift.maps import has_umap, make_map, perplexity

needs_umap = pytest.mark.skipif(not has_umap(), reason="needs umap-learn")


@pytest.fixture(scope="module")
def apart() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(30, 8)), random.normal(6, 1, size=(20, 8))


def test_pca_is_the_singular_value_decomposition(apart):
    placed = make_map(*apart, "pca")
    rows = np.concatenate(apart)
    u, s, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(placed), np.abs(u[:, :2] * s[:2]), atol=1e-9)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_rows_of_one_domain_stay_together_and_in_order(apart, method):
    placed = make_map(*apart, method)
    assert placed.shape == (50, 2)
    assert silhouette_score(placed, [0] * 30 + [1] * 20) > 0.5


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_same_seed_gives_the_same_map(apart, method):
    np.testing.assert_array_equal(make_map(*apart, method, seed=3), make_map(*apart, method, seed=3))


@needs_umap
@pytest.mark.slow
def test_umap_separates_too_and_is_the_same_each_time(apart):
    placed = make_map(*apart, "umap", seed=1)
    assert silhouette_score(placed, [0] * 30 + [1] * 20) > 0.5
    np.testing.assert_array_equal(placed, make_map(*apart, "umap", seed=1))
    few = np.arange(10.0).reshape(5, 2)
    assert np.isfinite(make_map(few[:2], few[2:], "umap")).all()


@pytest.mark.parametrize(("rows", "expected"), [(4, 1.0), (31, 10.0), (91, 30.0), (5000, 30.0)])
def test_perplexity_is_bounded_by_the_number_of_rows(rows, expected):
    assert perplexity(rows) == expected


@pytest.mark.parametrize("rows", [4, 5, 9])
def test_a_handful_of_rows_can_be_drawn(rows):
    random = np.random.default_rng(1)
    for method in ("pca", "tsne"):
        placed = make_map(random.normal(size=(2, 3)), random.normal(size=(rows - 2, 3)), method)
        assert placed.shape == (rows, 2)
        assert np.isfinite(placed).all()


def test_one_feature_lies_on_a_line_and_rows_all_alike_on_a_point():
    line = make_map(np.arange(4.0)[:, None], np.arange(5.0)[:, None], "pca")
    assert not line[:, 1].any()
    for method in ("pca", "tsne"):
        point = make_map(np.ones((3, 4)), np.ones((3, 4)), method)
        np.testing.assert_allclose(point, np.broadcast_to(point[0], point.shape))


def test_an_unknown_map_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown map 'tsn': did you mean 'tsne'"):
        make_map(np.eye(4), np.eye(4), "tsn")


def test_three_rows_are_refused():
    with pytest.raises(UserError, match="3 slices are too few for a map"):
        make_map(np.eye(2), np.ones((1, 2)))


def test_umap_that_is_not_installed_is_said_so(monkeypatch):
    monkeypatch.setattr(maps, "has_umap", lambda: False)
    with pytest.raises(UserError, match=r"umap needs the package umap-learn; pip install 'mrtransfer\[umap\]'"):
        make_map(np.eye(4), np.eye(4), "umap")
