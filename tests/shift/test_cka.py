"""Linear CKA is the normalised HSIC of the definition; its interval is over subjects."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.shift import cka
from mrtransfer.shift.cka import compare_networks, linear_cka


def _hsic(k, l):  # noqa: E741 — the kernels' names in every paper
    centre = np.eye(len(k)) - 1 / len(k)
    return np.trace(k @ centre @ l @ centre) / (len(k) - 1) ** 2


def _slowly(x, y):
    k, l = x @ x.T, y @ y.T  # noqa: E741
    return _hsic(k, l) / np.sqrt(_hsic(k, k) * _hsic(l, l))


def _features(seed=0, rows=40, widths=(6, 9), common=0.5):
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=(rows, 3))
    return tuple(
        common * shared @ generator.normal(size=(3, width)) + generator.normal(size=(rows, width)) + 5
        for width in widths
    )


@pytest.mark.parametrize("widths", [(6, 9), (6, 100), (80, 100)])
def test_agrees_with_hsic(widths):
    x, y = _features(widths=widths)
    assert linear_cka(x, y) == pytest.approx(_slowly(x, y), rel=1e-10)
    assert linear_cka(y, x) == pytest.approx(linear_cka(x, y), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-100, 100))
def test_one_up_to_rotation_scale_and_offset(seed, scale, offset):
    x, y = _features()
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))
    assert linear_cka(x, scale * x @ turn + offset) == pytest.approx(1, abs=1e-9)
    assert linear_cka(scale * x @ turn + offset, y) == pytest.approx(linear_cka(x, y), rel=1e-7)


def test_orthogonal_features_have_none():
    wave = np.arange(64) * 2 * np.pi / 64
    x, y = np.stack([np.sin(wave), np.cos(wave)], 1), np.stack([np.sin(2 * wave), np.cos(3 * wave)], 1)
    assert linear_cka(x, y) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("numbers", [1 << 22, 100])
def test_resamples_are_the_cka_of_repeated_subjects(numbers, monkeypatch):
    monkeypatch.setattr(cka, "_NUMBERS_AT_ONCE", numbers)
    x, y = _features()
    unit = np.sort(np.random.default_rng(1).integers(0, 9, 40))
    weights = np.random.default_rng(2).multinomial(9, np.full(9, 1 / 9), size=6).astype(float)
    found = cka._weighed(x - x.mean(0), y - y.mean(0), unit, weights)
    expected = [_slowly(*(np.repeat(table, w[unit].astype(int), axis=0) for table in (x, y))) for w in weights]
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_the_interval_is_over_subjects():
    """It holds the value, is the same every time, and is far wider where rows are copies of few subjects."""
    x, y = _features(rows=60)
    each = compare_networks(x, y, np.arange(60), resamples=300)
    assert 0 <= each.low < each.value < each.high <= 1
    assert each == compare_networks(x, y, np.arange(60), resamples=300)
    assert each.subjects == 60
    copies = compare_networks(
        np.repeat(x[:12], 5, 0), np.repeat(y[:12], 5, 0), np.repeat(np.arange(12), 5), resamples=300
    )
    assert copies.subjects == 12
    assert copies.high - copies.low > 1.5 * (each.high - each.low)


def test_the_order_of_rows_does_not_matter():
    x, y = _features()
    units = np.arange(40) % 7
    order = np.random.default_rng(0).permutation(40)
    one = compare_networks(x, y, units, resamples=50)
    two = compare_networks(x[order], y[order], units[order], resamples=50)
    assert (two.low, two.high) == pytest.approx((one.low, one.high), rel=1e-9)


def test_says_where_few_samples_make_it_large():
    x, y = _features(rows=20, widths=(200, 300), common=0.0)
    found = compare_networks(x, y, np.arange(20), resamples=10)
    assert found.value > 0.8
    assert "20 samples for up to 300 features" in found.note
    assert not compare_networks(*_features(), np.arange(40), resamples=10).note


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y, u: (x[:-1], y, u), "the same samples"),
        (lambda x, y, u: (np.full_like(x, 3.0), y, u), "constant"),
        (lambda x, y, u: (np.where(x == x[2, 2], np.nan, x), y, u), "NaN"),
        (lambda x, y, u: (x, y[:, 0], u), "table"),
        (lambda x, y, u: (x, y, np.zeros(40)), "at least two"),
        (lambda x, y, u: (x, y, u[:-1]), "subject of every sample"),
        (lambda x, y, u: (x[:1], y[:1], u[:1]), "at least two rows"),
    ],
)
def test_bad_input_is_one_clear_sentence(change, said):
    with pytest.raises(UserError, match=said):
        compare_networks(*change(*_features(), np.arange(40)))
