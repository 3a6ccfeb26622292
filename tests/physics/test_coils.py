"""Combining coil images, the SENSE model, and sensitivities estimated with ESPIRiT."""

import numpy as np
import pytest
import torch

from mrtransfer.common.errors import UserError
from mrtransfer.physics.coils import adjoint, combine, espirit, expand, forward, rss
from mrtransfer.physics.fourier import fft2c, ifft2c


def _complex(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_rss_is_the_root_of_the_sum_of_squares_also_in_single_precision():
    x = _complex(2, 5, 6, 7)
    expected = np.sqrt((np.abs(x.numpy()) ** 2).sum(1))
    np.testing.assert_allclose(rss(x).numpy(), expected, rtol=1e-12)
    assert rss(x.to(torch.complex64)).dtype == torch.float32
    assert rss(torch.zeros(3, 4, 4, dtype=torch.complex64)).eq(0).all()


def test_the_gradient_of_rss_is_right_and_finite_where_there_is_no_signal():
    x = _complex(3, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(rss, x)
    empty = torch.zeros(3, 2, 4, dtype=torch.complex64, requires_grad=True)
    rss(empty).sum().backward()
    assert empty.grad is not None
    assert empty.grad.eq(0).all()


def test_combine_is_the_adjoint_of_expand_and_undoes_it_for_normalised_maps():
    maps, image, images = _complex(4, 6, 5), _complex(6, 5, seed=1), _complex(4, 6, 5, seed=2)
    torch.testing.assert_close(
        torch.vdot(expand(image, maps).flatten(), images.flatten()),
        torch.vdot(image.flatten(), combine(images, maps).flatten()),
    )
    unit = maps / rss(maps)
    torch.testing.assert_close(combine(expand(image, unit), unit), image)


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (6, 9)])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_forward_and_adjoint_are_adjoint(size, batch):
    maps = _complex(*batch, 4, *size)
    image, kspace = _complex(*batch, *size, seed=1), _complex(*batch, 4, *size, seed=2)
    columns = torch.rand(*batch, size[1], generator=torch.Generator().manual_seed(3)) > 0.5
    sampled = forward(image, maps, columns)
    assert sampled.shape == kspace.shape
    assert sampled.movedim(-1, 0)[~columns.any(dim=tuple(range(len(batch))))].eq(0).all()
    torch.testing.assert_close(
        torch.vdot(sampled.flatten(), kspace.flatten()),
        torch.vdot(image.flatten(), adjoint(kspace, maps, columns).flatten()),
    )


def test_with_all_columns_the_adjoint_inverts_forward_for_normalised_maps():
    maps = _complex(4, 8, 10)
    maps, image = maps / rss(maps), _complex(8, 10, seed=1)
    columns = torch.ones(10, dtype=torch.bool)
    torch.testing.assert_close(adjoint(forward(image, maps, columns), maps, columns), image)


def _smooth_case(height: int = 64, width: int = 56, coils: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An object (H, W), normalised maps (C, H, W) of coils around it, and its noise-free k-space (C, H, W)."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    angles = 2 * np.pi * np.arange(coils) / coils
    away = [(y - 1.3 * np.sin(angle)) ** 2 + (x - 1.3 * np.cos(angle)) ** 2 for angle in angles]
    phases = [np.exp(1j * (angle + 0.8 * y * np.cos(angle) + 0.6 * x)) for angle in angles]
    maps = np.stack([np.exp(-distance / 2) * phase for distance, phase in zip(away, phases, strict=True)])
    maps = torch.from_numpy(maps / np.sqrt((np.abs(maps) ** 2).sum(0)))
    ellipse = (y / 0.8) ** 2 + (x / 0.7) ** 2 < 1
    texture = 1 + 0.3 * np.cos(9 * x + 4 * y) + 0.2 * np.random.default_rng(0).standard_normal(y.shape)
    image = torch.from_numpy(ellipse * texture * np.exp(1j * (0.5 * y + x**2)))
    return image, maps, fft2c(expand(image, maps)).to(torch.complex64)


def test_espirit_finds_known_maps_up_to_a_phase():
    image, maps, kspace = _smooth_case()
    found = espirit(kspace, 24).to(torch.complex128)
    inside = image.abs() > 0
    overlap = combine(maps, found).abs()[inside]
    assert overlap.min() > 0.999
    assert rss(found)[inside].sub(1).abs().max() < 1e-5


def test_espirit_maps_are_zero_or_normalised_with_one_smooth_phase():
    image, _, kspace = _smooth_case()
    found = espirit(kspace, 24)
    size = rss(found)
    assert ((size < 1e-6) | ((size - 1).abs() < 1e-5)).all()
    assert size[0, 0] == 0  # far from the object nothing is explained
    inside = (image.abs() > 0)[:, 1:] & (image.abs() > 0)[:, :-1]
    neighbours = (found[..., 1:].conj() * found[..., :-1]).sum(0)[inside]
    assert neighbours.real.min() > 0.95  # no jump, neither of size nor of phase


def _textbook(kspace: np.ndarray, side: int, patch: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """ESPIRiT as the paper writes it, float64: FFTs of zero-padded singular vectors, then an SVD in each pixel."""
    coils, height, width = kspace.shape
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    rows = []
    for y in range(side - patch + 1):
        for x in range(side - patch + 1):
            rows.append(kspace[:, top + y : top + y + patch, left + x : left + x + patch].ravel())
    _, singular, right = np.linalg.svd(np.array(rows), full_matrices=False)
    kernels = right[singular > threshold * singular[0]].reshape(-1, coils, patch, patch)
    pixels_y, pixels_x = np.arange(height) - height // 2, np.arange(width) - width // 2
    taps = np.arange(patch)
    waves_y = np.exp(2j * np.pi * np.outer(pixels_y, taps) / height)
    waves_x = np.exp(2j * np.pi * np.outer(pixels_x, taps) / width)
    spectra = np.einsum("mcab,ya,xb->yxcm", kernels, waves_y, waves_x) / patch
    left_vectors, sizes, _ = np.linalg.svd(spectra)
    return left_vectors[..., 0], sizes[..., 0] ** 2


@pytest.mark.parametrize(("size", "side", "patch"), [((16, 14), 9, 3), ((15, 17), 12, 4), ((20, 16), 6, 2)])
def test_espirit_agrees_with_the_textbook_form(size, side, patch):
    _, _, kspace = _smooth_case(*size, coils=3)
    expected, values = _textbook(kspace.numpy().astype(np.complex128), side, patch, 0.05)
    found = espirit(kspace, (side, side), kernel=patch, threshold=0.05, crop=0.9)
    kept = rss(found).numpy() > 0
    clear = np.abs(values - 0.9) > 1e-4
    np.testing.assert_array_equal(kept[clear], (values >= 0.9)[clear])
    assert 0.05 < kept.mean() <= 1
    overlap = np.abs((expected.conj() * found.numpy().transpose(1, 2, 0)).sum(-1))
    np.testing.assert_allclose(overlap[kept], 1, atol=1e-4)


def test_espirit_depends_on_the_centre_alone_and_not_on_the_scale():
    _, _, kspace = _smooth_case()
    whole = espirit(kspace, (20, 16))
    middle = torch.zeros_like(kspace)
    middle[:, 22:42, 20:36] = kspace[:, 22:42, 20:36]
    assert torch.equal(espirit(middle, (20, 16)), whole)
    torch.testing.assert_close(espirit(kspace * 1e-7, (20, 16)), whole, atol=1e-3, rtol=0)


def test_espirit_for_one_coil_is_one_where_there_is_signal():
    image, _, kspace = _smooth_case(coils=1)
    found = espirit(kspace, 24)[0][image.abs() > 0]
    torch.testing.assert_close(found, torch.ones_like(found))


@pytest.mark.parametrize(
    ("centre", "message"),
    [
        (3, "the sampled centre has 24 rows and 3 columns; it needs at least 4 of each"),
        ((2, 24), "the sampled centre has 2 rows and 24 columns"),
    ],
)
def test_espirit_refuses_a_centre_that_is_too_small(centre, message):
    with pytest.raises(UserError, match=message):
        espirit(_smooth_case()[2], centre)


def test_espirit_refuses_an_empty_centre():
    with pytest.raises(UserError, match="holds no signal"):
        espirit(torch.zeros(4, 32, 32, dtype=torch.complex64), 24)


@pytest.fixture(scope="module")
def brain(real_data) -> torch.Tensor:
    """The real fully sampled k-space (8, 230, 180)."""
    stored = np.fromfile(real_data / "kspace" / "brain_8coil.cfl", dtype=np.complex64)
    return torch.from_numpy(stored.reshape((230, 180, 8), order="F").transpose(2, 0, 1).copy())


@pytest.mark.real_data
@pytest.mark.parametrize(("centre", "most"), [(24, 1.0), (14, 1.0), (7, 1.06)])
def test_on_a_real_head_only_noise_is_left_when_coil_images_are_projected_onto_the_maps(brain, centre, most):
    """24, 14 and 7 centre lines: the residual is 7.8, 7.9 and 8.2 % of the signal; noise alone would leave 7.9 %.

    Projecting onto one of 8 dimensions leaves 7/8 of the noise, whose power is measured in the image's corners.
    """
    images = ifft2c(brain)
    signal = rss(images)
    head = signal > 0.1 * signal.max()
    maps = espirit(brain, centre)
    assert (rss(maps)[head] > 0.99).all()
    residual = rss(expand(combine(images, maps), maps) - images)[head]
    corners = torch.cat([images[:, :12, :12], images[:, :12, -12:], images[:, -12:, :12], images[:, -12:, -12:]], 1)
    noise = corners.abs().square().mean(dim=(1, 2)).sum() * 7 / 8
    assert residual.square().mean() < (most * noise.sqrt()) ** 2
    assert residual.square().sum().sqrt() < 0.083 * signal[head].square().sum().sqrt()


@pytest.mark.real_data
def test_on_a_real_head_the_maps_are_smooth_and_the_background_is_left_out(brain):
    maps = espirit(brain, 24)
    signal = rss(ifft2c(brain))
    assert (rss(maps)[signal < 0.05 * signal.max()] > 0).float().mean() < 0.5
    head = signal > 0.1 * signal.max()
    inside = head[:, 1:] & head[:, :-1]
    steps = (maps[..., 1:] - maps[..., :-1]).abs()[:, inside]
    assert steps.mean() < 0.02
