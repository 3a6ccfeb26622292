"""Patches and masks are moved alike, by the geometry that is asked for, and everything is a function of its seeds."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mrtransfer.augment.volume import VolumeAugment, VolumeParams

EVERYTHING = VolumeAugment(
    flip=0.5, rotate=30, scale=0.2, gamma=0.3, contrast=0.25, brightness=0.2, noise=0.2, blur=1, low_resolution=0.5
)
SHAPE = (12, 14, 10)


def patches(n=3, channels=2, shape=SHAPE, seed=0):
    images = torch.randn(n, channels, *shape, generator=torch.Generator().manual_seed(seed))
    masks = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, (n, *shape), dtype=np.uint8))
    return images, masks


def draw(augment, n=3, seed=0, channels=2):
    return augment.sample(n, torch.Generator().manual_seed(seed), channels)


def rotation(degrees):
    """About X, then Y, then Z; textbook matrices."""
    a, b, c = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


def test_identity_parameters_and_an_augmentation_without_settings_change_nothing():
    images, masks = patches()
    assert not VolumeAugment().active
    for params in (VolumeParams.identity(3, 2), draw(VolumeAugment())):
        moved, moved_masks = VolumeAugment.apply(images, masks, params)
        assert torch.equal(moved, images)
        assert torch.equal(moved_masks, masks)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flip_is_a_flip_to_the_byte_along_its_axis(axis):
    images, masks = patches()
    params = draw(VolumeAugment(flip=tuple(float(axis == number) for number in range(3))))
    moved, moved_masks = VolumeAugment.apply(images, masks, params)
    assert torch.equal(moved, images.flip(axis + 2))
    assert torch.equal(moved_masks, masks.flip(axis + 1))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.5, 3.0)])
@pytest.mark.parametrize("degrees", [(0, 0, 25), (20, 0, 0), (10, -15, 20)])
def test_rotation_and_scale_agree_with_scipy_in_millimetres(degrees, spacing):
    shape, scale = (20, 18, 16), 1.2
    images, masks = patches(1, 1, shape)
    params = VolumeParams.identity(1).changed(
        rotate=torch.tensor([degrees], dtype=torch.float32), scale=torch.tensor([scale])
    )
    mm, centre = np.diag(spacing), (np.array(shape) - 1) / 2
    matrix = np.linalg.inv(mm) @ rotation(degrees).T @ mm / scale
    options = {"matrix": matrix, "offset": centre - matrix @ centre, "mode": "constant"}
    expected = scipy.ndimage.affine_transform(images[0, 0].numpy(), order=1, **options)
    moved, moved_masks = VolumeAugment.apply(images, masks, params, spacing=spacing, outside=torch.zeros(1, 1))
    inner = (slice(5, -5), slice(5, -5), slice(5, -5))  # away from borders, where conventions differ
    assert np.abs(moved[0, 0].numpy()[inner] - expected[inner]).max() < 1e-4
    nearest = scipy.ndimage.affine_transform(masks[0].numpy(), order=0, **options)
    assert (moved_masks[0].numpy()[inner] == nearest[inner]).mean() > 0.99  # ties may go either way


def test_a_quarter_turn_about_each_axis_is_rot90():
    images, masks = patches(shape=(12, 12, 12))
    for axis, plane in ((0, (1, 2)), (1, (2, 0)), (2, (0, 1))):
        degrees = torch.zeros(3, 3)
        degrees[:, axis] = 90
        moved, moved_masks = VolumeAugment.apply(images, masks, VolumeParams.identity(3, 2).changed(rotate=degrees))
        assert torch.allclose(moved, torch.rot90(images, 1, [a + 2 for a in plane]), atol=1e-4)
        assert torch.equal(moved_masks, torch.rot90(masks, 1, [a + 1 for a in plane]))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_image_and_mask_keep_to_each_other_whatever_the_geometry(seed):
    _, masks = patches(2, 1, (16, 16, 16))
    labels = scipy.ndimage.zoom((masks[:, :4, :4, :4].numpy() > 1).astype(float), (1, 4, 4, 4), order=0)  # blocks
    masks = torch.from_numpy(labels.astype(np.uint8))
    images = masks[:, None].float()
    params = draw(VolumeAugment(flip=0.5, rotate=180, scale=0.3), n=2, seed=seed, channels=1)
    moved, moved_masks = VolumeAugment.apply(images, masks, params, outside=torch.zeros(2, 1))
    assert set(moved_masks.unique().tolist()) <= {0, 1}
    sure = (moved[:, 0] < 0.05) | (moved[:, 0] > 0.95)
    assert ((moved[:, 0] > 0.5) == (moved_masks == 1))[sure].all()


def test_slices_turn_in_their_plane_only_and_stay_slices():
    images, masks = patches(shape=(16, 18, 1))
    params = VolumeParams.identity(3, 2).changed(rotate=torch.tensor([[40.0, 50.0, 30.0]] * 3))
    in_plane = VolumeParams.identity(3, 2).changed(rotate=torch.tensor([[0.0, 0.0, 30.0]] * 3))
    moved, moved_masks = VolumeAugment.apply(images, masks, params)
    expected, expected_masks = VolumeAugment.apply(images, masks, in_plane)
    assert moved.shape == images.shape
    assert torch.equal(moved, expected)
    assert torch.equal(moved_masks, expected_masks)
    thick = VolumeAugment.apply(images.expand(-1, -1, -1, -1, 3), masks.expand(-1, -1, -1, 3), in_plane)[0]
    assert torch.allclose(thick[..., 1:2], moved, atol=1e-5)  # as the same slice in a volume
    for everything in (draw(EVERYTHING, seed=seed) for seed in range(3)):
        assert VolumeAugment.apply(images, masks, everything)[0].shape == images.shape


def test_what_comes_from_outside_is_the_least_value_or_as_asked_for_and_background_in_the_mask():
    images, masks = patches()
    masks = masks.clamp_min(1)
    params = VolumeParams.identity(3, 2).changed(scale=torch.full((3,), 0.2))
    moved, moved_masks = VolumeAugment.apply(images, masks, params)
    least = images.amin(dim=(2, 3, 4))
    assert torch.allclose(moved[:, :, 0, 0, 0], least, atol=1e-5)
    assert (moved_masks[:, 0, 0, 0] == 0).all()
    asked = VolumeAugment.apply(images, masks, params, outside=torch.full((3, 2), 7.0))[0]
    assert torch.allclose(asked[:, :, 0, 0, 0], torch.tensor(7.0), atol=1e-5)


def test_contrast_and_brightness_are_about_the_mean_and_in_standard_deviations_of_each_channel():
    images, masks = patches(1)
    images[:, 1] = images[:, 1] * 50 + 300
    params = VolumeParams.identity(1, 2).changed(
        contrast=torch.tensor([[1.5, 0.5]]), brightness=torch.tensor([[0.1, -0.2]])
    )
    moved = VolumeAugment.apply(images, masks, params)[0]
    for channel, (factor, added) in enumerate([(1.5, 0.1), (0.5, -0.2)]):
        own = images[0, channel].numpy().astype(np.float64)
        expected = (own - own.mean()) * factor + own.mean() + added * own.std()
        np.testing.assert_allclose(moved[0, channel].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_gamma_bends_the_range_and_keeps_its_ends_and_order():
    images, masks = patches(1)
    moved = VolumeAugment.apply(images, masks, VolumeParams.identity(1, 2).changed(gamma=torch.full((1, 2), 1.4)))[0]
    own = images[0, 0].numpy().astype(np.float64)
    unit = (own - own.min()) / np.ptp(own)
    np.testing.assert_allclose(moved[0, 0].numpy(), unit**1.4 * np.ptp(own) + own.min(), atol=1e-5)
    flat = torch.full_like(images, 3.0)
    assert torch.allclose(VolumeAugment.apply(flat, masks, draw(EVERYTHING, n=1))[0], flat, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.5, 1.3])
def test_blur_is_scipys_gaussian_filter(sigma):
    images, masks = patches(1)
    moved = VolumeAugment.apply(images, masks, VolumeParams.identity(1, 2).changed(blur=torch.tensor([sigma])))[0]
    radius = int(np.ceil(3 * sigma))
    for channel in range(2):
        expected = scipy.ndimage.gaussian_filter(images[0, channel].numpy(), sigma, mode="nearest", radius=radius)
        np.testing.assert_allclose(moved[0, channel].numpy(), expected, atol=1e-5)


def test_a_coarser_grid_loses_detail_and_keeps_the_mean_of_smooth_images():
    _, masks = patches(1)
    x = torch.arange(12.0)[:, None, None].expand(*SHAPE)
    params = VolumeParams.identity(1, 1).changed(zoom=torch.tensor([0.5]))
    ramp = VolumeAugment.apply(x[None, None], masks, params)[0]
    assert ramp.mean().item() == pytest.approx(x.mean().item(), abs=0.6)
    noise = torch.randn(1, 1, 24, 24, 24)
    coarse = VolumeAugment.apply(noise, torch.zeros(1, 24, 24, 24, dtype=torch.uint8), params)[0]
    assert coarse.diff(dim=2).std() < 0.6 * noise.diff(dim=2).std()


def test_noise_has_the_share_of_each_channels_deviation_that_is_asked_for():
    images = torch.randn(1, 2, 32, 32, 32) * torch.tensor([1.0, 40.0]).reshape(1, 2, 1, 1, 1)
    masks = torch.zeros(1, 32, 32, 32, dtype=torch.uint8)
    params = VolumeParams.identity(1, 2).changed(noise=torch.tensor([0.3]), noise_seed=torch.tensor([5]))
    added = VolumeAugment.apply(images, masks, params)[0] - images
    assert added[0, 0].std().item() == pytest.approx(0.3, rel=0.03)
    assert added[0, 1].std().item() == pytest.approx(12, rel=0.03)
    assert abs(added[0, 0].mean().item()) < 0.01


@given(seed=st.integers(0, 10_000), row=st.integers(0, 2))
@settings(max_examples=15, deadline=None)
def test_every_patch_is_changed_on_its_own_and_the_same_seed_gives_the_same_voxels(seed, row):
    images, masks = patches()
    params = draw(EVERYTHING, seed=seed)
    moved, moved_masks = VolumeAugment.apply(images, masks, params)
    alone, alone_masks = VolumeAugment.apply(images[row : row + 1], masks[row : row + 1], params.take([row]))
    assert torch.allclose(moved[row], alone[0], atol=1e-5)
    assert torch.equal(moved_masks[row], alone_masks[0])
    again, again_masks = VolumeAugment.apply(images, masks, draw(EVERYTHING, seed=seed))
    assert torch.equal(moved, again)
    assert torch.equal(moved_masks, again_masks)


def test_the_arguments_are_left_alone():
    images, masks = patches()
    before, masks_before = images.clone(), masks.clone()
    VolumeAugment.apply(images, masks, draw(EVERYTHING))
    assert torch.equal(images, before)
    assert torch.equal(masks, masks_before)


def test_parameters_stay_within_their_limits_and_happen_as_often_as_asked_for():
    params = draw(EVERYTHING.model_copy(update={"probability": 0.25}), n=2000)
    assert params.rotate.abs().max() <= 30
    assert (params.scale - 1).abs().max() <= 0.2
    assert params.gamma.min() >= 1 / 1.3 - 1e-6
    assert params.gamma.max() <= 1.3 + 1e-6
    assert params.zoom.min() >= 0.5
    assert (params.rotate != 0).any(dim=1).float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert (params.blur > 0).float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert params.flip.float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_switching_one_change_on_leaves_the_other_draws_alone():
    alone, together = draw(VolumeAugment(rotate=10)), draw(VolumeAugment(rotate=10, noise=0.1, flip=0.5, gamma=0.2))
    assert torch.equal(alone.rotate, together.rotate)


def test_settings_take_one_number_for_all_axes_and_refuse_what_they_do_not_know():
    assert VolumeAugment(flip=0.5).flip == (0.5, 0.5, 0.5)
    assert VolumeAugment(rotate=(0, 0, 15)).rotate == (0, 0, 15)
    for wrong in ({"flip": 1.5}, {"rotate": [10, 10]}, {"scale": 1}, {"rotat": 10}):
        with pytest.raises(ValidationError):
            VolumeAugment(**wrong)
    with pytest.raises(ValueError, match="parameters for 2"):
        VolumeAugment.apply(*patches(), VolumeParams.identity(2, 2))
