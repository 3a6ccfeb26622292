"""Noise, bias field and resolution."""

import numpy as np
import pytest
from scipy import stats

from mrtransfer.physics.bias import bias_field
from mrtransfer.physics.noise import complex_noise, rician, rician_mean
from mrtransfer.physics.resolution import limit_resolution


@pytest.mark.parametrize("amplitude", [0.0, 0.5, 2.0, 10.0])
def test_rician_mean_and_samples_agree_with_scipy(amplitude):
    sigma = 0.7
    expected = stats.rice.mean(amplitude / sigma, scale=sigma)
    assert rician_mean(np.array(amplitude), sigma) == pytest.approx(expected, rel=1e-9)
    drawn = rician(np.full((300, 300), amplitude), sigma, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(expected, abs=5 * sigma / 300)
    assert drawn.std() == pytest.approx(stats.rice.std(amplitude / sigma, scale=sigma), rel=0.02)


def test_complex_noise_has_its_sigma_in_each_part_and_no_correlation():
    noise = complex_noise((400, 400), 2.0, np.random.default_rng(1))
    assert noise.dtype == np.complex64
    assert noise.real.std() == pytest.approx(2.0, rel=0.01)
    assert noise.imag.std() == pytest.approx(2.0, rel=0.01)
    assert abs(np.corrcoef(noise.real.ravel(), noise.imag.ravel())[0, 1]) < 0.01


@pytest.mark.parametrize("shape", [(64, 48), (12, 20, 16)])
def test_the_bias_field_is_positive_smooth_and_of_the_given_strength(shape):
    logs = []
    for seed in range(20):
        field = bias_field(shape, 0.2, np.random.default_rng(seed))
        assert field.shape == shape
        assert field.min() > 0
        steps = np.concatenate([np.abs(np.diff(np.log(field), axis=axis)).ravel() for axis in range(len(shape))])
        assert steps.max() < 0.2
        logs.append(np.log(field))
    assert np.std(logs) == pytest.approx(0.2, rel=0.1)
    assert np.mean(logs) == pytest.approx(0, abs=1e-6)


def test_no_strength_means_no_bias():
    np.testing.assert_allclose(bias_field((8, 8), 0.0, np.random.default_rng(0)), 1)


def wave(frequency, n=64):
    """A cosine of ``frequency`` cycles across the image."""
    return np.tile(np.cos(2 * np.pi * frequency * np.arange(n) / n), (n, 1)).astype(np.float32)


def test_resolution_keeps_slow_waves_and_loses_fast_ones():
    # 64 pixels of 1 mm at a resolution of 2 mm: waves above 16 cycles are lost, those below half of that are untouched.
    np.testing.assert_allclose(limit_resolution(wave(6), 1.0, 2.0), wave(6), atol=1e-5)
    np.testing.assert_allclose(limit_resolution(wave(20), 1.0, 2.0), 0, atol=1e-5)
    np.testing.assert_allclose(limit_resolution(wave(15), 1.0, 2.0, taper=0), wave(15), atol=1e-5)


def test_resolution_finer_than_the_pixels_changes_nothing_without_taper():
    image = np.random.default_rng(0).random((2, 32, 30)).astype(np.float32)
    np.testing.assert_allclose(limit_resolution(image, 2.0, 1.0, taper=0), image, atol=1e-5)


def test_resolution_keeps_the_mean():
    image = np.random.default_rng(0).random((33, 40)).astype(np.float32)
    assert limit_resolution(image, 1.0, 3.0).mean() == pytest.approx(image.mean(), rel=1e-5)
