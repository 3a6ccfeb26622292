"""Orthogonal wavelets: energy, inverse, vanishing moments, and the filters' published values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mrtransfer.models.wavelets import analyse, daubechies, synthesise


def _image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(height, width, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


@given(height=st.integers(1, 5), width=st.integers(1, 5), levels=st.integers(1, 3), moments=st.integers(1, 8))
def test_the_transform_keeps_energy_and_is_inverted_by_its_adjoint(height, width, levels, moments):
    image = _image(height * 2**levels, width * 2**levels)
    other = _image(height * 2**levels, width * 2**levels, seed=1)
    coefficients = analyse(image, levels, moments)
    torch.testing.assert_close(coefficients.norm(), image.norm())
    torch.testing.assert_close(synthesise(coefficients, levels, moments), image)
    torch.testing.assert_close(
        torch.vdot(other.flatten(), coefficients.flatten()),
        torch.vdot(synthesise(other, levels, moments).flatten(), image.flatten()),
    )


def test_two_moments_give_daubechies_published_filter():
    root = np.sqrt(3)  # Daubechies 1988, section 4
    expected = np.array([1 + root, 3 + root, 3 - root, 1 - root]) / (4 * np.sqrt(2))
    np.testing.assert_allclose(daubechies(2), expected, atol=1e-14)


@pytest.mark.parametrize("moments", range(1, 9))
def test_filters_equal_those_of_pywavelets(moments):
    pywt = pytest.importorskip("pywt")
    np.testing.assert_allclose(daubechies(moments), pywt.Wavelet(f"db{moments}").rec_lo, atol=1e-9)


@pytest.mark.parametrize("moments", [1, 2, 4])
def test_polynomials_below_the_number_of_moments_leave_no_detail(moments):
    size = 64
    image = torch.linspace(-1, 1, size, dtype=torch.float64).pow(moments - 1).expand(size, size)
    detail = analyse(image, 1, moments)[:, size // 2 : size - moments]  # the last ones see the periodic edge
    assert detail.abs().max() < 1e-9


def test_one_level_of_haar_is_sums_and_differences_of_pairs():
    image = _image(4, 6).real
    pairs = image.reshape(2, 2, 3, 2)
    coefficients = analyse(image, 1, 1)
    torch.testing.assert_close(coefficients[:2, :3], pairs.sum((1, 3)) / 2)
    torch.testing.assert_close(coefficients[2:, :3].abs(), (pairs[:, 0] - pairs[:, 1]).sum(-1).abs() / 2)


def test_a_second_level_transforms_only_the_coarse_image():
    image = _image(16, 24)
    once, twice = analyse(image, 1, 2), analyse(image, 2, 2)
    torch.testing.assert_close(twice[:8, :12], analyse(once[:8, :12], 1, 2))
    torch.testing.assert_close(twice[8:], once[8:])
    torch.testing.assert_close(twice[:, 12:], once[:, 12:])
