"""Augmented k-space, its target and its data range belong together; the sampling mask comes afterwards."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.augment.kspace import MRAugment, acquired, augmented
from mrtransfer.augment.kspace_geometry import MRParams
from mrtransfer.physics.coils import rss
from mrtransfer.physics.fourier import fft2c, ifft2c
from mrtransfer.physics.masks import apply_mask

SHAPES = [(24, 24), (28, 20), (21, 26), (19, 23), (22, 18)]
PLANE = (-2, -1)


def scans(n=3, coils=2, shape=(24, 24), seed=0, dtype=torch.complex128):
    return torch.randn(n, coils, *shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def drawn(n, shape, seed=0, probability=0.7, **settings):
    return MRAugment(**settings).sample(n, shape, probability, torch.Generator().manual_seed(seed))


def centre(images, size):
    top, left = ((images.shape[axis] - size[axis]) // 2 for axis in PLANE)
    return images[..., top : top + size[0], left : left + size[1]]


def only(**values):
    base = MRParams.identity(1)
    return base.changed(**{name: torch.as_tensor([value]).to(getattr(base, name)) for name, value in values.items()})


WHOLE_PIXELS = [{"hflip": True}, {"vflip": True}, {"rot90": 1}, {"rot90": 2}, {"rot90": 3}]
OTHERS = [{"translate": (2, -3)}, {"rotate": 30.0}, {"shear": (8.0, -4.0)}, {"scale": 0.8}]


@given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES), upsample=st.sampled_from([1, 2]))
@settings(max_examples=30, deadline=None)
def test_kspace_and_target_are_those_of_the_moved_coil_images(seed, shape, upsample):
    kspace, params = scans(shape=shape, seed=seed), drawn(3, shape, seed, upsample=upsample)
    moved = MRAugment.apply(ifft2c(kspace), params)
    spectra, targets, _ = augmented(kspace, params, (16, 14))
    torch.testing.assert_close(spectra, fft2c(moved), atol=1e-10, rtol=0)
    torch.testing.assert_close(targets, centre(rss(moved), (16, 14)), atol=1e-10, rtol=0)
    assert spectra.square().abs().sum() == pytest.approx(moved.square().abs().sum().item())  # the energy of the images


@given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES))
@settings(max_examples=20, deadline=None)
def test_augmentation_of_kspace_is_linear(seed, shape):
    a, b, params = scans(shape=shape, seed=seed), scans(shape=shape, seed=seed + 1), drawn(3, shape, seed)
    together = augmented(a + 3j * b, params, shape)[0]
    torch.testing.assert_close(together, augmented(a, params, shape)[0] + 3j * augmented(b, params, shape)[0])


@pytest.mark.parametrize("shape", [(28, 20), (21, 26)])
def test_all_slices_at_once_as_on_an_accelerator_give_the_same(monkeypatch, shape):
    kspace, params = scans(9, shape=shape), drawn(9, shape, probability=0.3)
    assert 0 < params.changes.sum() < 9
    expected = augmented(kspace, params, (16, 14))
    monkeypatch.setattr("mrtransfer.augment.kspace.chunks", lambda images: [slice(0, len(images))])
    for found, wanted in zip(augmented(kspace, params, (16, 14)), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-10, rtol=0)


def test_one_coil_gives_its_magnitude():
    kspace, params = scans(coils=1), drawn(3, (24, 24))
    targets = augmented(kspace, params, (20, 20))[1]
    torch.testing.assert_close(targets, centre(MRAugment.apply(ifft2c(kspace), params)[:, 0].abs(), (20, 20)))


@pytest.mark.parametrize("shape", [(24, 20), (21, 20)])
def test_slices_without_changes_keep_their_kspace_to_the_bit_and_are_not_the_same_memory(shape):
    kspace = scans(shape=shape, dtype=torch.complex64)
    params = MRParams.cat([MRParams.identity(1), only(hflip=True), MRParams.identity(1)])
    for some in (params, MRParams.identity(3)):
        spectra = augmented(kspace, some, (16, 16))[0]
        assert torch.equal(spectra[[0, 2]], kspace[[0, 2]])
        assert spectra.data_ptr() != kspace.data_ptr()
    alone = augmented(kspace[:1], MRParams.identity(1), (16, 16))[0]
    assert alone.data_ptr() != kspace.data_ptr()


@pytest.mark.parametrize("shape", [(24, 20), (21, 20)])
def test_trap_5_the_target_is_computed_alike_with_and_without_augmentation(shape):
    kspace = scans(shape=shape)
    plain, moved = only(), only(hflip=True)
    kept = augmented(kspace[:1], plain, (16, 16))[1]
    torch.testing.assert_close(kept, centre(rss(ifft2c(kspace[:1])), (16, 16)))
    torch.testing.assert_close(
        augmented(kspace[:1], moved, (16, 16))[1], centre(rss(ifft2c(kspace[:1])).flip(-1), (16, 16))
    )


def test_the_target_is_that_of_the_returned_kspace():
    kspace, params = scans(8, 4, (32, 24), dtype=torch.complex64), drawn(8, (32, 24), probability=1.0)
    spectra, targets, _ = augmented(kspace, params, (20, 20))
    torch.testing.assert_close(targets, centre(rss(ifft2c(spectra)), (20, 20)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("change", WHOLE_PIXELS)
def test_trap_2_the_data_range_stays_where_values_only_change_places(change):
    kspace = scans(1)
    volume = torch.tensor([17.0], dtype=torch.float64)
    found = augmented(kspace, only(**change), (24, 24), max_value=volume)[2]
    torch.testing.assert_close(found, volume)


def test_trap_2_the_data_range_follows_what_leaves_the_picture_and_what_enters_it():
    image = torch.full((1, 1, 32, 32), 1.0 + 0j, dtype=torch.complex128)
    image[0, 0, 22, 16] = 10
    kspace, volume, up = fft2c(image), torch.tensor([20.0], dtype=torch.float64), only(translate=(-9, 0))
    gone = augmented(fft2c(image.flip(2)), up, (16, 16), max_value=volume)[2]  # row 9 leaves a crop of rows 8 to 23
    assert gone.item() == pytest.approx(2.0)
    hidden = torch.full_like(image, 1.0)
    hidden[0, 0, 28, 16] = 10
    entered = augmented(fft2c(hidden), up, (16, 16), max_value=torch.tensor([4.0]))[2]
    assert entered.item() == pytest.approx(10.0)  # the slice now shows more than its volume did
    assert augmented(fft2c(hidden), up, (16, 16), max_value=volume)[2].item() == pytest.approx(20.0)
    assert augmented(kspace, only(), (16, 16), max_value=volume)[2].item() == 20.0


@given(seed=st.integers(0, 10_000), factor=st.floats(1e-6, 1e6), shape=st.sampled_from(SHAPES))
@settings(max_examples=25, deadline=None)
def test_trap_2_the_data_range_scales_with_the_scan_and_covers_the_target(seed, factor, shape):
    kspace, params = scans(shape=shape, seed=seed), drawn(3, shape, seed)
    volume = rss(ifft2c(kspace)).amax(dim=PLANE) * 1.5
    _, targets, found = augmented(kspace, params, (16, 16), max_value=volume)
    assert (found >= targets.amax(dim=PLANE)).all()
    assert (found <= torch.maximum(volume, targets.amax(dim=PLANE))).all()
    _, _, scaled = augmented(kspace * factor, params, (16, 16), max_value=volume * factor)
    torch.testing.assert_close(scaled, found * factor)
    assert torch.equal(augmented(kspace, params, (16, 16))[2], targets.amax(dim=PLANE))  # alone, a volume of its own


def test_an_empty_slice_keeps_its_volumes_data_range():
    found = augmented(
        torch.zeros(1, 2, 16, 16, dtype=torch.complex64), only(rotate=20.0), (12, 12), max_value=torch.ones(1)
    )
    assert found[2].tolist() == [1.0]
    assert torch.isfinite(found[0].abs()).all()


@pytest.mark.parametrize("width", [24, 23])
@pytest.mark.parametrize("window", [(5, 20), (1, 23), (3, 12), None])
@pytest.mark.parametrize("change", [{}, *WHOLE_PIXELS, *OTHERS])
def test_trap_3_the_acquired_columns_go_with_the_signal(width, window, change):
    kspace, params = scans(1, shape=(22, width)), only(**change)
    first, end = window or (0, width)
    kspace[..., :first], kspace[..., end:] = 0, 0
    spectrum = augmented(kspace, params, (16, 16))[0]
    energy = spectrum.abs().square().sum(dim=(0, 1, 2))
    (found,) = acquired(params, [window], width)
    if found is None:
        assert window is None or set(change) & {"rot90", "translate", "rotate", "shear", "scale"}
        return
    columns = np.arange(width)
    inside = (columns >= found[0]) & (columns < found[1])
    assert energy[~inside].sum() < 1e-20 * energy.sum()
    assert found[1] - found[0] == end - first


def test_trap_3_windows_with_the_outermost_column_of_an_even_width_cannot_be_mirrored_as_one():
    assert acquired(only(hflip=True), [(0, 20)], 24) == [None]
    assert acquired(only(hflip=True), [(0, 20)], 23) == [(3, 23)]
    assert acquired(MRParams.identity(2), [(0, 20), None], 24) == [(0, 20), None]
    assert acquired(only(hflip=True, rot90=2), [(4, 20)], 24) == [(4, 20)]  # mirrored twice


def test_the_mask_comes_after_augmentation_and_keeps_its_columns():
    kspace, params = scans(4, dtype=torch.complex64), drawn(4, (24, 24), probability=1.0)
    columns = torch.zeros(24, dtype=torch.bool)
    columns[::3] = True
    masked = apply_mask(augmented(kspace, params, (20, 20))[0], columns)
    assert (masked[..., ~columns] == 0).all()
    # The other way about, an affine map smears what was sampled over columns that were not.
    smeared = augmented(apply_mask(kspace, columns), only(rotate=30.0).take([0, 0, 0, 0]), (20, 20))[0]
    assert smeared[..., ~columns].abs().square().sum() > 0.1 * smeared.abs().square().sum()


@pytest.mark.parametrize("resolution", [(16, 20), (17, 12), (64, 64)])
def test_a_training_resolution_keeps_the_centre_of_every_image(resolution):
    kspace, params = scans(shape=(24, 20)), MRParams.cat([MRParams.identity(1), drawn(2, (24, 20))])
    size = (min(24, resolution[0]), min(20, resolution[1]))
    spectra, targets, _ = augmented(kspace, params, (14, 64), resolution=resolution)
    moved = centre(MRAugment.apply(ifft2c(kspace), params), size)
    torch.testing.assert_close(spectra, fft2c(moved), atol=1e-10, rtol=0)
    torch.testing.assert_close(targets, centre(rss(moved), (14, min(size[1], 64))), atol=1e-10, rtol=0)


def test_noise_stays_complex_noise_of_the_same_strength_and_is_not_coloured_across_coils():
    kspace, params = scans(4, 3, (64, 64), dtype=torch.complex64), drawn(4, (64, 64), probability=1.0).without_affine()
    spectra = augmented(kspace, params, (64, 64))[0]
    assert spectra.abs().square().mean().item() == pytest.approx(kspace.abs().square().mean().item(), rel=0.02)
    flat = ifft2c(spectra).transpose(0, 1).flatten(1)
    covariance = (flat @ flat.conj().T / flat.shape[1]).abs()
    assert (covariance - torch.diag(covariance.diagonal())).max() < 0.03


def test_the_arguments_are_left_alone_and_their_number_is_checked():
    kspace, params = scans(), drawn(3, (24, 24), probability=1.0)
    kept = kspace.clone()
    augmented(kspace, params, (16, 16), max_value=torch.ones(3))
    assert torch.equal(kspace, kept)
    with pytest.raises(ValueError, match="parameters for 2"):
        augmented(kspace, MRParams.identity(2), (16, 16))


@pytest.mark.real_data
def test_a_real_slice_turns_with_its_coils_and_keeps_its_quality(real_data):
    flat = np.fromfile(real_data / "kspace" / "brain_8coil.cfl", dtype=np.complex64)
    kspace = torch.from_numpy(flat.reshape(8, 180, 230).transpose(0, 2, 1).copy())[None]  # column-major, 230 × 180
    image = rss(ifft2c(kspace))
    spectra, targets, _ = augmented(kspace, only(rot90=2, hflip=True), (230, 180))
    torch.testing.assert_close(targets, image.flip(-2), atol=1e-4 * image.max().item(), rtol=0)
    spectra, targets, ranges = augmented(kspace, only(rotate=12.0, shear=(4.0, -3.0), scale=0.95), (180, 160))
    mask = targets[0] > 0.2 * targets.max()
    combined = MRAugment.apply(image[:, None] + 0j, only(rotate=12.0, shear=(4.0, -3.0), scale=0.95))[:, 0].real
    error = (targets - centre(combined, (180, 160)))[0][mask].abs().mean() / targets[0][mask].mean()
    assert error < 0.03  # interpolating coil images is almost interpolating their combination: phase is smooth
    assert 0.7 * image.max() < ranges[0] <= 1.01 * image.max()
    centre_energy = spectra[..., 95:135, 70:110].abs().square().sum() / spectra.abs().square().sum()
    assert centre_energy > 0.8  # still k-space of anatomy
