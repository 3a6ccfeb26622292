import numpy as np
import pytest
import torch

from mrtransfer.augment.prepare import NORMALISE, resolve_normalise, to_input
from mrtransfer.common.errors import UserError


def images(n=3, channels=1, size=8, seed=0):
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=torch.manual_seed(seed))


def test_imagenet_normalisation_is_the_textbook_formula():
    batch = images(channels=3)
    expected = batch.numpy() / 255.0
    expected = (expected - np.array([0.485, 0.456, 0.406])[:, None, None]) / np.array([0.229, 0.224, 0.225])[
        :, None, None
    ]
    np.testing.assert_allclose(to_input(batch, channels=3).numpy(), expected, atol=1e-6)


def test_half_maps_bytes_to_minus_one_and_one():
    batch = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2)
    assert to_input(batch, channels=1, normalise="half").flatten().tolist() == [-1.0, 1.0]


def test_a_grey_image_is_repeated_over_the_channels():
    out = to_input(images(), channels=3, normalise="unit")
    assert out.shape == (3, 3, 8, 8)
    assert out.dtype == torch.float32
    assert torch.equal(out[:, 0], out[:, 2])


def test_instance_normalisation_gives_each_image_mean_zero_and_deviation_one():
    batch = torch.cat((images(2), torch.full((1, 1, 8, 8), 7, dtype=torch.uint8)))
    out = to_input(batch, channels=3, normalise="instance")
    assert torch.allclose(out[:2].mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(out[:2].std(dim=(1, 2, 3), correction=0), torch.ones(2), atol=1e-4)
    assert torch.allclose(out[2], torch.zeros(3, 8, 8), atol=1e-3)  # a constant image stays finite


def test_floats_in_zero_to_one_are_the_same_pixels_as_bytes():
    batch = images()
    assert torch.allclose(to_input(batch / 255, channels=1), to_input(batch, channels=1))


def test_the_stored_pixels_are_left_alone():
    batch = images()
    kept = batch.clone()
    to_input(batch, channels=3)
    assert torch.equal(batch, kept)


def test_numbers_for_three_channels_are_averaged_for_a_grey_network():
    out = to_input(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), channels=1, normalise="imagenet")
    assert out.item() == pytest.approx(-0.449 / 0.226, rel=1e-5)


@pytest.mark.parametrize("name", NORMALISE)
def test_every_named_normalisation_works(name):
    assert torch.isfinite(to_input(images(), channels=3, normalise=name)).all()


def test_mean_and_std_may_be_given_as_mapping_or_pair():
    assert resolve_normalise({"mean": 0.2, "std": [0.1, 0.2, 0.3]}) == ((0.2,), (0.1, 0.2, 0.3))
    assert resolve_normalise(([0.2], 0.1)) == ((0.2,), (0.1,))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("imagnet", "imagenet"),
        ({"mean": 0}, "std"),
        ((0.5, 0.0), "above 0"),
        (("a", 1), "not a number"),
        (3, "neither"),
    ],
)
def test_a_wrong_normalisation_is_explained(bad, said):
    with pytest.raises(UserError, match=said):
        resolve_normalise(bad)


def test_a_wrong_number_of_channels_is_explained():
    with pytest.raises(UserError, match="3 channels and the network wants 1"):
        to_input(images(channels=3), channels=1)
