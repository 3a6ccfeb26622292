"""The operators between coils and images, against centred transforms as they are written."""

import pytest
import torch

from mrtransfer.models.coil_operators import corrected, kept_columns, normal
from mrtransfer.physics.fourier import fft2c, ifft2c


def example(matrix, coils=3, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.complex128, generator=generator).requires_grad_()

    columns = torch.rand(batch, matrix[1], generator=generator) < 0.4
    return draw(batch, coils, *matrix), draw(batch, *matrix), draw(batch, *matrix), columns


def sampled(images, columns):
    return ifft2c(fft2c(images) * columns[:, None, None, :])


def assert_same_gradients(found, expected, leaves, weight):
    own, plain = (torch.autograd.grad(result, leaves, weight) for result in (found, expected))
    for one, other in zip(own, plain, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("matrix", [(6, 8), (5, 7), (4, 9)])
def test_the_normal_operator_is_that_of_centred_transforms(matrix):
    maps, image, weight, columns = example(matrix)
    found = normal(image, maps, kept_columns(columns, torch.float64))
    expected = (maps.conj() * sampled(maps * image[:, None], columns)).sum(1)
    torch.testing.assert_close(found, expected)
    assert_same_gradients(found, expected, [image, maps], weight)


@pytest.mark.parametrize("matrix", [(6, 8), (5, 7)])
def test_the_last_step_is_that_of_centred_transforms(matrix):
    maps, through, free, columns = example(matrix)
    images = example(matrix, seed=1)[0]
    leaves = [images, through, free, maps]
    found = corrected(*leaves, kept_columns(columns, torch.float64))
    coils = images + sampled(maps * through[:, None], columns) - maps * free[:, None]
    expected = coils.abs().square().sum(1).sqrt()
    torch.testing.assert_close(found, expected)
    assert_same_gradients(found, expected, leaves, torch.rand_like(found))


def test_gradients_are_those_of_finite_differences():
    maps, image, free, columns = example((3, 4), coils=2)
    kept = kept_columns(columns, torch.float64)
    assert torch.autograd.gradcheck(normal, (image, maps, kept))
    assert torch.autograd.gradcheck(corrected, (maps.detach().clone().requires_grad_(), image, free, maps, kept))


def test_the_normal_operator_is_hermitian_and_takes_no_energy_from_nothing():
    maps, one, other, columns = example((6, 8))
    kept = kept_columns(columns, torch.float64)
    with torch.no_grad():
        left, right = (other.conj() * normal(one, maps, kept)).sum(), (normal(other, maps, kept).conj() * one).sum()
        torch.testing.assert_close(left, right)
        energy = (one.conj() * normal(one, maps, kept)).sum()
        assert energy.real > 0
        assert abs(energy.imag) < 1e-10 * energy.real
        everything = kept_columns(torch.ones_like(columns), torch.float64)
        torch.testing.assert_close(normal(one, maps, everything), (maps.abs().square().sum(1) * one))
