"""Zero-filled, SENSE and L1-wavelet: exact where everything is known, optimal on tiny problems, ordered on a brain."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mrtransfer.common.errors import UserError
from mrtransfer.models.coil_operators import kept_columns
from mrtransfer.models.parallel_imaging import Encoding, encode
from mrtransfer.models.reconstruction import build_reconstruction_network
from mrtransfer.models.reconstructors.l1_wavelet import fista
from mrtransfer.models.reconstructors.sense import conjugate_gradients
from mrtransfer.models.wavelets import analyse
from mrtransfer.physics.coils import adjoint, forward, rss
from mrtransfer.physics.fourier import fft2c, ifft2c
from mrtransfer.physics.masks import Sampling

NAMES = ("zero_filled", "sense", "l1_wavelet")


def _noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _object(height: int, width: int) -> Tensor:
    """Ellipses with a smooth phase."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    image = torch.zeros(height, width)
    for value, cy, cx, ry, rx in ((1.0, 0, 0, 0.8, 0.7), (-0.4, 0.2, -0.2, 0.25, 0.2), (0.5, -0.3, 0.25, 0.1, 0.2)):
        image += value * (((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1)
    return torch.polar(image, 0.5 * x + y**2)


def _coils(count: int, height: int, width: int) -> Tensor:
    """Smooth sensitivities (C, H, W) around the object, not normalised."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    angles = torch.arange(count) * 2 * torch.pi / count
    y, x = (axis - 1.3 * wave[:, None, None] for axis, wave in ((y, angles.sin()), (x, angles.cos())))
    return torch.polar(1 / (y**2 + x**2 + 0.3), torch.atan2(y, x) + angles[:, None, None])


def _kspace(coils: int = 8, height: int = 96, width: int = 80, noise: float = 0.002) -> Tensor:
    clean = fft2c(_coils(coils, height, width) * _object(height, width))
    return clean + noise * _noise(*clean.shape)


def _undersampled(kspace: Tensor, acceleration: float = 4, fraction: float = 0.16) -> tuple[Tensor, Tensor, Tensor]:
    drawn = Sampling(mask="random", acceleration=acceleration, centre_fraction=fraction).draw(kspace.shape[-1], 1)
    columns = torch.from_numpy(drawn.columns)
    return (kspace * columns)[None], columns[None], torch.tensor([drawn.centre])


def _psnr(image: Tensor, reference: Tensor) -> float:
    return float(10 * torch.log10(reference.max() ** 2 / (image - reference).square().mean()))


def _tiny(height: int = 8, width: int = 8, coils: int = 3) -> tuple[Encoding, Tensor]:
    """An encoding with random maps in float64, and the same as a matrix (C·H·W, H·W) beside its data."""
    maps = _noise(coils, height, width, dtype=torch.complex128)
    maps = maps / rss(maps)
    columns = torch.arange(width) % 3 != 1
    data = forward(_noise(height, width, seed=1, dtype=torch.complex128), maps, columns)
    data = data + 0.1 * forward(_noise(height, width, seed=2, dtype=torch.complex128), maps, columns)
    unit = torch.eye(height * width, dtype=torch.complex128).reshape(-1, height, width)
    matrix = torch.stack([forward(one, maps, columns).flatten() for one in unit], dim=1)
    measured = adjoint(data, maps, columns)
    model = Encoding(maps, kept_columns(columns[None], torch.float64), measured, torch.tensor(1.0))
    return model, torch.cat((matrix, data.flatten()[:, None]), dim=1)


def test_the_normal_operator_is_the_adjoint_after_the_forward_model():
    for height, width in ((8, 8), (6, 9)):
        model, dense = _tiny(height, width)
        matrix, image = dense[:, :-1], _noise(height, width, seed=3, dtype=torch.complex128)
        expected = matrix.mH @ (matrix @ image.flatten())
        torch.testing.assert_close(model.normal(image).flatten(), expected)


@pytest.mark.parametrize("strength", [0.0001, 0.01, 0.3])
def test_sense_solves_the_regularised_least_squares_problem(strength):
    model, dense = _tiny()
    matrix, data = dense[:, :-1].numpy(), dense[:, -1].numpy()
    stacked = np.concatenate((matrix, np.sqrt(strength) * np.eye(matrix.shape[1])))
    expected = np.linalg.lstsq(stacked, np.concatenate((data, np.zeros(matrix.shape[1]))))[0]
    found = conjugate_gradients(lambda image: model.normal(image) + strength * image, model.measured, 40)
    np.testing.assert_allclose(found.numpy().ravel(), expected, atol=1e-8)


def test_iterations_beyond_convergence_change_nothing():
    model, _ = _tiny(4, 4)
    right = model.measured.clone()
    right[1] = 0  # an empty row
    few, many = (conjugate_gradients(lambda image: model.normal(image) + image, right, n) for n in (20, 2000))
    torch.testing.assert_close(many, few)
    assert not many[1].any()


@pytest.mark.parametrize("strength", [0.1, 0.3])
@pytest.mark.parametrize("shape", [(8, 8), (6, 9)])
def test_l1_wavelet_meets_the_conditions_of_optimality(shape, strength):
    model, _ = _tiny(*shape)
    levels, moments = 2, 2
    found = fista(model, strength, np.zeros((4000, 2), int), levels, moments)
    downhill = torch.zeros_like(found)  # the negative gradient of the data term; none where A does not see
    downhill[: shape[0], : shape[1]] = model.measured - model.normal(found[: shape[0], : shape[1]])
    slopes, coefficients = (analyse(image, levels, moments) for image in (downhill, found))
    zero = coefficients.abs() < 1e-9
    assert 0 < zero.sum() < zero.numel()
    assert slopes[zero].abs().max() <= strength * (1 + 1e-6)
    directions = coefficients[~zero] / coefficients[~zero].abs()
    torch.testing.assert_close(slopes[~zero], strength * directions, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_fully_sampled_data_give_the_root_sum_of_squares(name):
    kspace = _kspace(noise=0)
    reference = rss(ifft2c(kspace))
    network = build_reconstruction_network(name, options={} if name == "zero_filled" else {"strength": 0})
    found = network(kspace[None], torch.ones(1, kspace.shape[-1], dtype=torch.bool))[0]
    inside = reference > 0.1 * reference.max()
    torch.testing.assert_close(found[inside], reference[inside], rtol=1e-6 if name == "zero_filled" else 0.02, atol=0)
    assert found.dtype == torch.float32


@pytest.mark.parametrize("name", ["sense", "l1_wavelet"])
def test_undersampled_data_give_the_brightness_of_the_root_sum_of_squares(name):
    kspace = _kspace()
    reference = rss(ifft2c(kspace))
    found = build_reconstruction_network(name)(*_undersampled(kspace))[0]
    inside = reference > 0.2 * reference.max()
    assert abs(float((found / reference)[inside].median()) - 1) < 0.02


def test_parallel_imaging_beats_zero_filling_and_sparsity_helps_further():
    kspace = _kspace()
    reference = rss(ifft2c(kspace))
    quality = [_psnr(build_reconstruction_network(name)(*_undersampled(kspace))[0], reference) for name in NAMES]
    assert quality[0] + 3 < quality[1] < quality[2] - 1


@pytest.mark.parametrize("name", NAMES)
def test_classical_reconstructions_have_nothing_to_learn_or_load(name):
    network = build_reconstruction_network(name)
    assert not network.learns
    assert not network.stages
    assert not network.state_dict()


@pytest.mark.parametrize("name", NAMES)
def test_brightness_follows_the_data_in_any_unit(name):
    kspace, columns, centre = _undersampled(_kspace(height=48, width=40))
    network = build_reconstruction_network(name)
    small = network(kspace * 1e-7, columns, centre)
    torch.testing.assert_close(small, 1e-7 * network(kspace, columns, centre), rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_items_of_a_batch_are_reconstructed_each_by_its_own_mask(name):
    whole = _kspace(height=48, width=40)
    four, two = _undersampled(whole), _undersampled(whole, acceleration=2, fraction=0.3)
    batch = [torch.cat(pair) for pair in zip(four, two, strict=True)]
    network = build_reconstruction_network(name)
    torch.testing.assert_close(network(*batch), torch.cat((network(*four), network(*two))), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_reduced_precision_of_a_trainer_does_not_reach_the_solvers(name):
    measured = _undersampled(_kspace(height=48, width=40))
    network = build_reconstruction_network(name)
    plain = network(*measured)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(*measured), plain, rtol=0, atol=0)


def test_l1_wavelet_takes_one_coil():
    kspace, columns, centre = _undersampled(_kspace()[:1], acceleration=2, fraction=0.3)
    reference = rss(ifft2c(_kspace()[:1]))
    found, zero = (build_reconstruction_network(n)(kspace, columns, centre)[0] for n in ("l1_wavelet", "zero_filled"))
    assert _psnr(found, reference) > _psnr(zero, reference) + 1


@pytest.mark.parametrize("name", NAMES)
def test_a_slice_without_signal_is_black(name):
    found = build_reconstruction_network(name)(torch.zeros(1, 4, 32, 32, dtype=torch.complex64), torch.ones(1, 32) > 0)
    assert not found.any()


def test_the_centre_is_found_where_it_is_not_given():
    kspace, columns, _ = _undersampled(_kspace(height=48, width=40))
    columns = torch.zeros_like(columns)
    columns[:, [3, 9, *range(15, 25), 30]] = True
    network = build_reconstruction_network("sense")
    torch.testing.assert_close(network(kspace, columns), network(kspace, columns, torch.tensor([10])), rtol=0, atol=0)


def test_too_few_centre_lines_are_refused():
    with pytest.raises(UserError, match="2 lines; it needs at least 3"):
        encode(_kspace(height=32, width=32), torch.ones(32) > 0, 2)


@pytest.mark.parametrize(("option", "value"), [("strength", -1), ("iterations", 0)])
@pytest.mark.parametrize("name", ["sense", "l1_wavelet"])
def test_impossible_options_are_refused(name, option, value):
    with pytest.raises(UserError, match=f"network {name}: {option}"):
        build_reconstruction_network(name, options={option: value})


@pytest.mark.real_data
@pytest.mark.slow
def test_order_of_the_methods_on_a_real_brain(real_data):
    kspace = _bart(real_data / "kspace" / "brain_8coil")
    reference = rss(ifft2c(kspace))
    measured = _undersampled(kspace, acceleration=4, fraction=0.08)
    zero, sense, sparse = (_psnr(build_reconstruction_network(n)(*measured)[0], reference) for n in NAMES)
    assert zero + 2 < sense < sparse - 2


def _bart(path: Path) -> Tensor:
    """K-space (C, H, W) of one slice."""
    sizes = [int(size) for size in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    values = np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape(sizes, order="F")[0, :, :, :]
    return torch.from_numpy(np.ascontiguousarray(values.reshape(*sizes[1:4]).transpose(2, 0, 1)))
