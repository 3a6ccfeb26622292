"""Metrics of a volume agree with their formulas in slow float64 loops, with scikit-image and with fastMRI."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.tasks.reconstruction import metrics as own
from mrtransfer.tasks.reconstruction.similarity import structural_similarity


def volume(seed=0, *, shape=(3, 19, 15), offset=0.0, scale=1.0, noise=0.05):
    """Smooth slices of very different brightness, and the same with noise."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[1], : shape[2]] / 5
    target = np.stack([2.0**-k * (1 + np.sin(rows + k) * np.cos(columns * (k + 1))) for k in range(shape[0])])
    pred = np.abs(target + noise * generator.standard_normal(shape))
    return scale * (pred + offset), scale * (target + offset), scale * (float(target.max()) + offset)


def slow_ssim(pred, target, data_range):
    """Wang et al. 2004, equation 13, one window after the other; the sample covariance as NumPy's cov has it."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    slices = []
    for x, y in zip(pred.astype(np.float64), target.astype(np.float64), strict=True):
        values = []
        for row in range(3, x.shape[0] - 3):
            for column in range(3, x.shape[1] - 3):
                a = x[row - 3 : row + 4, column - 3 : column + 4].ravel()
                b = y[row - 3 : row + 4, column - 3 : column + 4].ravel()
                both = np.cov(a, b)
                above = (2 * a.mean() * b.mean() + c1) * (2 * both[0, 1] + c2)
                values.append(above / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (both[0, 0] + both[1, 1] + c2)))
        slices.append(np.mean(values))
    return slices


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_metrics_are_their_formulas(dtype, offset):
    pred, target, largest = volume(offset=offset)
    pred, target = pred.astype(dtype), target.astype(dtype)
    found = own.evaluate_volume(pred, target, largest)
    x, y = pred.astype(np.float64), target.astype(np.float64)
    assert found["ssim"] == pytest.approx(np.mean(slow_ssim(pred, target, largest)), abs=1e-9)
    assert found["psnr"] == pytest.approx(10 * math.log10(largest**2 / np.mean((x - y) ** 2)), abs=1e-9)
    assert found["nmse"] == pytest.approx(np.sum((x - y) ** 2) / np.sum(y**2), rel=1e-9)


def test_ssim_of_every_slice_has_the_range_of_the_volume():
    pred, target, largest = volume(shape=(6, 12, 11))
    found = own.ssim_of_slices(pred, target, largest)
    np.testing.assert_allclose(found, slow_ssim(pred, target, largest), atol=1e-9)
    assert own.ssim(pred, target, largest).item() == pytest.approx(found.mean().item(), abs=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-7, 3e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_metrics_agree_with_scikit_image(scale, dtype):
    skimage = pytest.importorskip("skimage.metrics")
    pred, target, largest = (np.asarray(one, dtype) for one in volume(shape=(4, 40, 33), scale=scale))
    found = own.evaluate_volume(torch.from_numpy(pred), torch.from_numpy(target), float(largest))
    pairs = list(zip(target.astype(np.float64), pred.astype(np.float64), strict=True))
    expected = np.mean([skimage.structural_similarity(*pair, data_range=float(largest)) for pair in pairs])
    assert found["ssim"] == pytest.approx(expected, abs=1e-8)
    assert found["psnr"] == pytest.approx(
        skimage.peak_signal_noise_ratio(target.astype(float), pred.astype(float), data_range=float(largest)), abs=1e-8
    )
    root = skimage.normalized_root_mse(target.astype(float), pred.astype(float))  # Frobenius norms by default
    assert found["nmse"] == pytest.approx(root**2, rel=1e-8)


def test_metrics_agree_with_fastmri():
    fastmri = pytest.importorskip("fastmri.evaluate", exc_type=ImportError)
    pred, target, largest = volume(shape=(4, 40, 33))
    found = own.evaluate_volume(pred, target, largest)
    assert found["ssim"] == pytest.approx(float(fastmri.ssim(target, pred)[0]), abs=1e-8)
    assert found["psnr"] == pytest.approx(float(fastmri.psnr(target, pred)), abs=1e-8)
    assert found["nmse"] == pytest.approx(float(fastmri.nmse(target, pred)), rel=1e-8)


@pytest.mark.real_data
def test_metrics_of_a_real_slice_are_their_formulas(real_data):
    raw = np.fromfile(real_data / "kspace" / "brain_8coil.cfl", np.complex64).reshape((230, 180, 8), order="F")
    coils = np.moveaxis(raw, 2, 0)
    kept = np.abs(np.arange(180) - 90) < 30
    target, pred = (
        np.sqrt((np.abs(np.fft.ifft2(np.fft.ifftshift(k, axes=(1, 2)))) ** 2).sum(0)) for k in (coils, coils * kept)
    )
    target, pred = (np.float32(np.fft.fftshift(one))[None, 60:120, 50:110] for one in (target, pred))
    largest = float(target.max())
    found = own.evaluate_volume(pred, target, largest)
    assert found["ssim"] == pytest.approx(slow_ssim(pred, target, largest)[0], abs=1e-9)
    assert 0.3 < found["ssim"] < 1
    assert found["nmse"] < 0.2


def test_psnr_is_that_of_the_volume_not_the_mean_over_slices():
    target = np.ones((2, 8, 8))
    pred = target + np.array([0.1, 0.001])[:, None, None]
    expected = -10 * math.log10((0.1**2 + 0.001**2) / 2)
    assert own.psnr(pred, target, 1.0).item() == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.floats(1e-9, 1e9), st.integers(0, 99))
def test_units_do_not_matter_not_even_in_single_precision(scale, seed):
    plain = own.evaluate_volume(*volume(seed))
    pred, target, largest = volume(seed, scale=scale)
    for one in (own.evaluate_volume(pred, target, largest), own.evaluate_volume(np.float32(pred), target, largest)):
        assert one == pytest.approx(plain, rel=2e-5)
    single = structural_similarity(*(torch.from_numpy(np.float32(a)) for a in (pred, target)), np.float32(largest))
    assert single.mean().item() == pytest.approx(plain["ssim"], abs=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 999))
def test_ssim_is_symmetric_and_between_minus_one_and_one(seed):
    generator = np.random.default_rng(seed)
    x, y = generator.standard_normal((2, 2, 9, 8)) * generator.uniform(0, 9, (2, 2, 1, 1))
    there, back = own.ssim(x, y, 2.0).item(), own.ssim(y, x, 2.0).item()
    assert there == pytest.approx(back, abs=1e-12)
    assert -1 <= there <= 1


@pytest.mark.parametrize("offset", [0.0, 1.0, 20.0, 300.0])
def test_single_precision_keeps_its_digits_beside_a_bright_offset(offset):
    pred, target, largest = (torch.as_tensor(one) for one in volume(shape=(3, 64, 64), offset=offset, noise=0.2))
    exact = structural_similarity(pred, target, largest)
    single = structural_similarity(pred.float(), target.float(), largest.float())
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-6)


def test_a_perfect_volume_scores_best():
    _, target, largest = volume()
    found = own.evaluate_volume(target, target, largest)
    assert found == {"ssim": pytest.approx(1, abs=1e-12), "psnr": math.inf, "nmse": 0.0}


def test_a_blank_slice_of_a_volume_is_scored():
    pred, target, largest = volume()
    target[1] = pred[1] = 0
    np.testing.assert_allclose(own.ssim_of_slices(pred, target, largest)[1], 1, atol=1e-12)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_network_that_gave_no_numbers_scores_no_number(wrong):
    pred, target, largest = volume()
    pred[1, 9, 9] = wrong
    found = own.evaluate_volume(pred, target, largest)
    assert math.isnan(found["ssim"])
    assert not math.isfinite(found["psnr"])
    assert not math.isfinite(found["nmse"])


@pytest.mark.parametrize("largest", [0.0, -1.0, math.nan, math.inf])
def test_a_maximum_that_is_no_positive_number_is_refused(largest):
    pred, target, _ = volume()
    with pytest.raises(UserError, match=r"the target's maximum is .*; it must be a positive number"):
        own.evaluate_volume(pred, target, largest)


def test_images_that_do_not_belong_together_are_refused():
    pred, target, largest = volume()
    for a, b in ((pred[:2], target), (pred[0], target[0]), (pred[:, :9], target), (pred[:0], target[:0])):
        with pytest.raises(ValueError, match=r"must both be real, \(S, h, w\)"):
            own.evaluate_volume(a, b, largest)
    with pytest.raises(ValueError, match="complex64"):
        own.evaluate_volume(pred.astype(np.complex64), target, largest)
    with pytest.raises(UserError, match="6 × 15 pixels; each side must be at least 7"):
        own.evaluate_volume(pred[:, :6], target[:, :6], largest)


def test_every_metric_is_described():
    assert set(own.evaluate_volume(*volume())) == set(own.RECONSTRUCTION_METRICS)
    for table in (own.HIGHER_IS_BETTER, own.RANGES, own.WORDS):
        assert tuple(table) == own.RECONSTRUCTION_METRICS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_metrics_are_computed_where_the_images_are():
    pred, target, largest = volume(shape=(6, 40, 33))
    there = own.ssim_of_slices(torch.from_numpy(pred).cuda(), target, largest)
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), own.ssim_of_slices(pred, target, largest), rtol=0, atol=1e-12)
