import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mrtransfer.augment.image import Augment, AugmentParams

EVERYTHING = Augment(
    hflip=0.5, vflip=0.5, rotate=30, scale=0.2, translate=0.1, brightness=0.1, contrast=0.2, noise=0.05
)


def images(n=4, channels=1, height=16, width=16, seed=0):
    return torch.rand(n, channels, height, width, generator=torch.manual_seed(seed))


def draw(augment, n=4, seed=0):
    return augment.sample(n, torch.Generator().manual_seed(seed))


def test_identity_parameters_change_nothing():
    for batch in (images(), (images() * 255).to(torch.uint8)):
        assert torch.equal(Augment.apply(batch, AugmentParams.identity(4)), batch)


def test_an_augmentation_without_settings_changes_nothing():
    assert not Augment().active
    assert torch.equal(Augment.apply(images(), draw(Augment())), images())


def test_a_horizontal_flip_is_a_flip_to_the_byte():
    batch = (images() * 255).to(torch.uint8)
    out = Augment.apply(batch, draw(Augment(hflip=1)))
    assert out.dtype == torch.uint8
    assert torch.equal(out, batch.flip(3))
    assert torch.equal(Augment.apply(batch, draw(Augment(vflip=1))), batch.flip(2))


def test_only_the_chosen_images_are_flipped():
    params = AugmentParams.identity(4).changed(hflip=torch.tensor([True, False, True, False]))
    out = Augment.apply(images(), params)
    assert torch.equal(out[0], images()[0].flip(2))
    assert torch.equal(out[1], images()[1])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_rotation_by_quarter_turns_is_rot90(turns):
    params = AugmentParams.identity(4).changed(rotate=torch.full((4,), 90.0 * turns))
    assert torch.allclose(Augment.apply(images(), params), torch.rot90(images(), turns, (2, 3)), atol=1e-4)


def test_a_rotation_agrees_with_scipy_on_an_oblong_image():
    batch = images(1, height=20, width=33)
    params = AugmentParams.identity(1).changed(rotate=torch.tensor([25.0]))
    expected = scipy.ndimage.rotate(batch[0, 0].numpy(), 25.0, reshape=False, order=1, mode="constant")
    got = Augment.apply(batch, params)[0, 0].numpy()
    assert abs(got[5:15, 8:25] - expected[5:15, 8:25]).max() < 1e-4


def test_a_translation_by_whole_pixels_is_a_shift_with_black_behind():
    params = AugmentParams.identity(1).changed(translate=torch.tensor([[2 / 16, -3 / 16]]))
    out = Augment.apply(images(1), params)
    assert torch.allclose(out[:, :, :13, 2:], images(1)[:, :, 3:, :14], atol=1e-5)
    assert out[:, :, 13:].abs().max() < 1e-5
    assert out[:, :, :, :2].abs().max() < 1e-5


def test_a_translation_does_not_turn_with_the_rotation():
    spot = torch.zeros(1, 1, 33, 33)
    spot[0, 0, 16, 16] = 1  # the centre stays put under rotation and moves by the translation alone
    params = AugmentParams.identity(1).changed(rotate=torch.tensor([90.0]), translate=torch.tensor([[5 / 33, 0.0]]))
    assert Augment.apply(spot, params)[0, 0, 16, 21] == pytest.approx(1, abs=1e-4)


def test_a_scale_above_one_enlarges():
    square = torch.zeros(1, 1, 32, 32)
    square[:, :, 12:20, 12:20] = 1
    out = Augment.apply(square, AugmentParams.identity(1).changed(scale=torch.tensor([2.0])))
    assert out.sum().item() == pytest.approx(4 * square.sum().item(), rel=0.02)


def test_contrast_and_brightness_are_about_the_mean():
    batch = images(1) * 0.2 + 0.4
    params = AugmentParams.identity(1).changed(contrast=torch.tensor([1.5]), brightness=torch.tensor([0.1]))
    expected = (batch - batch.mean()) * 1.5 + batch.mean() + 0.1
    assert torch.allclose(Augment.apply(batch, params), expected, atol=1e-6)


def test_noise_in_the_background_has_the_rayleigh_mean():
    params = AugmentParams.identity(1).changed(noise=torch.tensor([0.1]), noise_seed=torch.tensor([3]))
    out = Augment.apply(torch.zeros(1, 1, 128, 128), params)
    assert out.mean().item() == pytest.approx(0.1 * (torch.pi / 2) ** 0.5, rel=0.02)


@given(seed=st.integers(0, 10_000), row=st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_every_image_is_changed_on_its_own(seed, row):
    params = draw(EVERYTHING, seed=seed)
    alone = Augment.apply(images()[row : row + 1], params.take([row]))
    assert torch.allclose(Augment.apply(images(), params)[row], alone[0], atol=1e-6)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_same_seed_same_pixels_within_zero_and_one(seed):
    first, second = (Augment.apply(images(), draw(EVERYTHING, seed=seed)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.min() >= 0
    assert first.max() <= 1


def test_switching_one_change_on_leaves_the_other_draws_alone():
    assert torch.equal(draw(Augment(rotate=10)).rotate, draw(Augment(rotate=10, noise=0.1, hflip=0.5)).rotate)


def test_parameters_stay_within_their_limits():
    params = draw(EVERYTHING, n=500)
    assert params.rotate.abs().max() <= 30
    assert 0.8 <= params.scale.min() < 0.85
    assert 1.15 < params.scale.max() <= 1.2
    assert 0.4 < params.hflip.float().mean() < 0.6


def test_the_batch_is_left_alone():
    batch = images()
    kept = batch.clone()
    Augment.apply(batch, draw(EVERYTHING))
    assert torch.equal(batch, kept)


def test_misspelt_settings_and_impossible_values_are_refused():
    with pytest.raises(ValidationError):
        Augment(hflipp=0.5)
    with pytest.raises(ValidationError):
        Augment(hflip=1.5)
