"""Centred orthonormal Fourier transforms."""

import numpy as np
import pytest
import torch

from mrtransfer.physics.fourier import fft2c, ifft2c

SIZES = [(8, 8), (6, 10), (7, 7), (9, 6), (6, 9), (1, 4), (2, 1), (18, 22)]
PLANE = (-2, -1)


def _complex(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", SIZES)
def test_both_directions_agree_with_numpy(size):
    x = _complex(2, 3, *size)
    shifted = np.fft.ifftshift(x.numpy(), axes=PLANE)
    forward = np.fft.fftshift(np.fft.fft2(shifted, axes=PLANE, norm="ortho"), axes=PLANE)
    backward = np.fft.fftshift(np.fft.ifft2(shifted, axes=PLANE, norm="ortho"), axes=PLANE)
    np.testing.assert_allclose(fft2c(x).numpy(), forward, atol=1e-12)
    np.testing.assert_allclose(ifft2c(x).numpy(), backward, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_the_transform_agrees_with_its_defining_sum(size):
    height, width = size
    rows, columns = (np.arange(n) - n // 2 for n in size)
    row_waves = np.exp(-2j * np.pi * np.outer(rows, rows) / height) / np.sqrt(height)
    column_waves = np.exp(-2j * np.pi * np.outer(columns, columns) / width) / np.sqrt(width)
    x = _complex(*size)
    np.testing.assert_allclose(fft2c(x).numpy(), row_waves @ x.numpy() @ column_waves.T, atol=1e-11)


@pytest.mark.parametrize("size", SIZES)
def test_energy_is_kept_and_the_inverse_is_the_adjoint(size):
    x, y = _complex(3, *size), _complex(3, *size, seed=1)
    assert fft2c(x).abs().square().sum() == pytest.approx(x.abs().square().sum().item(), rel=1e-12)
    torch.testing.assert_close(ifft2c(fft2c(x)), x)
    torch.testing.assert_close(fft2c(ifft2c(x)), x)
    image_side, kspace_side = torch.vdot(x.flatten(), ifft2c(y).flatten()), torch.vdot(fft2c(x).flatten(), y.flatten())
    torch.testing.assert_close(image_side, kspace_side)


@pytest.mark.parametrize("size", SIZES)
def test_a_point_at_the_centre_is_a_constant_and_a_constant_is_a_point_at_the_centre(size):
    height, width = size
    point = torch.zeros(size, dtype=torch.complex128)
    point[height // 2, width // 2] = 1
    flat = torch.full(size, (height * width) ** -0.5, dtype=torch.complex128)
    torch.testing.assert_close(fft2c(point), flat)
    torch.testing.assert_close(fft2c(flat), point)


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (8, 9)])
def test_a_shifted_image_is_a_phase_ramp_in_kspace(size):
    height, width = size
    x = _complex(*size)
    rows, columns = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    turns = 2 * rows[:, None].double() / height - columns.double() / width
    ramp = torch.polar(torch.ones_like(turns), -2 * torch.pi * turns)
    torch.testing.assert_close(fft2c(x.roll((2, -1), PLANE)), fft2c(x) * ramp)


@pytest.mark.parametrize("size", [(4, 6), (3, 4), (3, 5)])
def test_gradients_are_right(size):
    x = _complex(2, *size).requires_grad_()
    assert torch.autograd.gradcheck(fft2c, x)
    assert torch.autograd.gradcheck(ifft2c, x)


def test_single_precision_stays_single_and_the_input_is_left_alone():
    x = _complex(8, 64, 48, dtype=torch.complex64)
    before = x.clone()
    single = fft2c(x)
    assert single.dtype == torch.complex64
    assert torch.equal(x, before)
    torch.testing.assert_close(single.to(torch.complex128), fft2c(x.to(torch.complex128)), atol=1e-6, rtol=1e-5)


def test_a_first_call_in_inference_mode_does_not_spoil_later_training():
    size = (22, 34)  # used by no other test, so nothing is cached yet
    with torch.inference_mode():
        fft2c(_complex(*size))
    x = _complex(*size).requires_grad_()
    fft2c(x).abs().sum().backward()
    assert x.grad is not None
