"""The normalised U-Net, against plain layers of PyTorch and against fastMRI's own."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mrtransfer.models.network import seeded
from mrtransfer.models.norm_act import norm_act
from mrtransfer.models.norm_unet import NormUnet, UNet, smallest_side


def plain_norm_act(x):
    return nn.functional.leaky_relu(nn.functional.instance_norm(x), 0.2)


def plain_unet(state, x, pools):
    """The same network from its tensors by name, with nothing but PyTorch's layers."""

    def block(name, x):
        for number in (0, 4):
            x = plain_norm_act(nn.functional.conv2d(x, state[f"{name}.layers.{number}.weight"], padding=1))
        return x

    skips = []
    for level in range(pools):
        skips.append(block(f"down_sample_layers.{level}", x))
        x = nn.functional.avg_pool2d(skips[-1], 2)
    x = block("conv", x)
    for level in range(pools):
        x = plain_norm_act(
            nn.functional.conv_transpose2d(x, state[f"up_transpose_conv.{level}.layers.0.weight"], stride=2)
        )
        skip = skips.pop()
        x = nn.functional.pad(x, (0, skip.shape[3] - x.shape[3], 0, skip.shape[2] - x.shape[2]), "reflect")
        last = level == pools - 1
        x = block(f"up_conv.{level}.0" if last else f"up_conv.{level}", torch.cat([x, skip], 1))
    return nn.functional.conv2d(x, state[f"up_conv.{pools - 1}.1.weight"], state[f"up_conv.{pools - 1}.1.bias"])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_norm_and_activation_are_those_of_pytorch(batch, layout):
    x = torch.randn(batch, 5, 6, 7, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    found = norm_act(x)
    torch.testing.assert_close(found, plain_norm_act(x), rtol=1e-12, atol=1e-12)
    assert found.is_contiguous(memory_format=layout)
    assert torch.autograd.gradcheck(norm_act, x)


@given(mean=st.floats(-30, 30), spread=st.floats(0.01, 100), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_bfloat16_is_as_near_to_the_truth_as_pytorchs_own(mean, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 6, 24, 24)
    x = (mean * spread + spread * torch.randn(shape, generator=generator)).bfloat16()
    slope = torch.randn(shape, generator=generator).bfloat16()
    exact = x.double().requires_grad_()
    truth = plain_norm_act(exact)
    (gradient,) = torch.autograd.grad(truth, exact, slope.double())
    errors = {}
    for name, function in (("theirs", plain_norm_act), ("ours", norm_act)):
        leaf = x.clone().contiguous(memory_format=torch.channels_last).requires_grad_()
        y = function(leaf)
        (own,) = torch.autograd.grad(y, leaf, slope)
        errors[name] = [float((a.double() - b).norm() / b.norm()) for a, b in ((y.detach(), truth), (own, gradient))]
    for ours, theirs in zip(errors["ours"], errors["theirs"], strict=True):
        assert ours < 1.5 * theirs + 2e-3


def test_norm_and_activation_keep_what_they_give_and_nothing_else():
    x = torch.randn(1, 4, 16, 16, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = norm_act(x)
    assert sum(t.numel() for t in kept if t.data_ptr() != y.data_ptr()) == 4  # the deviations


@pytest.mark.parametrize(("matrix", "pools"), [((32, 48), 2), ((33, 27), 3)])
def test_the_unet_is_made_of_plain_layers(matrix, pools):
    with seeded(0):
        network = UNet(2, 3, 4, pools).double()
    state = {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}
    x = torch.randn(2, 2, *matrix, dtype=torch.float64)
    found, expected = network(x), plain_unet(state, x, pools)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    weight = torch.randn_like(found)
    gradients = torch.autograd.grad(found, list(network.parameters()), weight)
    expected_gradients = torch.autograd.grad(expected, list(state.values()), weight)
    for own, plain in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(own, plain, rtol=1e-8, atol=1e-10)


def test_complex_images_are_normalised_padded_and_restored():
    """By hand: parts to mean 0 and deviation 1, zeros around them up to a multiple of 16, and back."""
    with seeded(0):
        network = NormUnet(3, 2).double()
    images = torch.randn(2, 21, 30, dtype=torch.complex128) * (3 + 2j) + (5 - 1j)
    parts = torch.stack([images.real, images.imag], 1)
    mean, deviation = parts.mean((2, 3), keepdim=True), parts.std((2, 3), keepdim=True)
    padded = nn.functional.pad((parts - mean) / deviation, (1, 1, 5, 6))
    expected = network.unet(padded)[:, :, 5:26, 1:31] * deviation + mean
    torch.testing.assert_close(network(images), torch.complex(expected[:, 0], expected[:, 1]))


@pytest.mark.parametrize(("pools", "padded", "expected"), [(4, True, 17), (2, True, 1), (5, True, 49), (4, False, 32)])
def test_the_smallest_side_leaves_two_pixels_at_the_lowest_level(pools, padded, expected):
    assert smallest_side(pools, padded=padded) == expected
    with seeded(0):
        network = NormUnet(1, pools) if padded else UNet(1, 1, 1, pools)
    lowest = network.unet.conv if padded else network.conv
    lowest.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape))
    shapes = []
    for side in (expected, max(expected - 1, 1)):
        network(torch.rand(1, side, side).cfloat() if padded else torch.rand(1, 1, side, side))
    assert min(shapes[0][2:]) >= 2
    assert expected == 1 or min(shapes[1][2:]) < 2


@pytest.fixture(scope="module")
def fastmri_unet():
    with warnings.catch_warnings(action="ignore"):
        pytest.importorskip("fastmri")
        return pytest.importorskip("fastmri.models").Unet


@pytest.mark.parametrize(("matrix", "pools"), [((32, 32), 4), ((45, 38), 3)])
def test_the_unet_is_fastmris(fastmri_unet, matrix, pools):
    with seeded(4):
        theirs = fastmri_unet(1, 2, 4, pools)
    with seeded(4):
        ours = UNet(1, 2, 4, pools)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(2, 1, *matrix)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
