"""The contract of all segmentation networks: whatever is registered is covered here."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.models.network import network_state
from mrtransfer.models.package import load_model, save_model
from mrtransfer.models.segmentation import build_segmentation_network, pixel_head
from mrtransfer.models.segmenters import SEGMENTERS
from mrtransfer.transfer.freeze import apply_freeze, normalisation_layers
from mrtransfer.transfer.method import parse_method

ALL = [(name, dims) for name in SEGMENTERS.names() for dims in (2, 3) if (name, dims) != ("unet3d", 2)]
SPEC = {
    "task": "segmentation",
    "plan": {"patch": [8, 8, 8]},
    "mask_labels": {"names": ["background", "tumour"]},
    "loss": "dice_ce",
    "channels": ["t1", "t2"],
    "postprocess": None,
    "provenance": {"subjects": ["p1"], "row_digests": ["x"]},
    "record": {"best_epoch": 3},
}


def patch(network, *more, n=2, seed=0):
    sizes = [step * factor for step, factor in zip(network.divisor, more or (2, 2, 2), strict=True)]
    return torch.rand(n, network.in_channels, *sizes, generator=torch.Generator().manual_seed(seed))


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(("name", "dims"), ALL)
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(factors=st.tuples(*[st.integers(1, 3)] * 3), channels=st.integers(1, 4))
def test_contract_maps_have_the_size_of_any_patch_of_multiples(small, name, dims, factors, channels):
    network = small(name, dims, in_channels=channels).eval()
    x = patch(network, *factors, n=1) if max(factors) > 1 else patch(network, 2, 1, 1, n=1)
    with torch.inference_mode():
        maps = network(x)
    assert maps.shape == (1, network.features, *x.shape[2:])
    assert torch.isfinite(maps).all()


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_contract_every_parameter_and_input_channel_matters(small, name, dims):
    """Data-parallel training waits for a gradient of every parameter that is not frozen."""
    network = small(name, dims).train()
    x = patch(network).requires_grad_()
    head = pixel_head(network.features, 3)
    head(network(x)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in (*network.parameters(), *head.parameters()))
    assert (x.grad.abs().sum(dim=(0, 2, 3, 4)) > 0).all()


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_contract_every_tensor_belongs_to_one_stage_and_decoders_come_last(small, name, dims):
    network = small(name, dims)
    for tensor in network_state(network):
        assert sum(stage.holds(tensor) for stage in network.stages) == 1, tensor
    decoders = [stage.startswith("decoder.") for stage in network.stage_names]
    assert decoders == sorted(decoders)
    assert any(decoders)
    assert not decoders[1]
    for path in network.first_conv:
        assert network.body.get_submodule(path).in_channels == network.in_channels


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_contract_weights_are_a_function_of_the_seed_and_leave_the_global_generator_alone(small, name, dims):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (network_state(small(name, dims, seed=seed, anew=True)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_contract_a_saved_model_comes_back_with_the_same_outputs(small, name, dims, tmp_path):
    network = small(name, dims, seed=3).eval()
    head = pixel_head(network.features, 2, seed=4)
    loaded = load_model(save_model(tmp_path / "model", network, head, SPEC))
    x = patch(network)
    with torch.inference_mode():
        assert torch.equal(loaded.head(loaded.network(x)), head(network(x)))
    assert loaded.network.description == network.description
    assert (loaded.task, loaded.spec["plan"], loaded.spec["record"]) == (
        "segmentation",
        *map(SPEC.get, ("plan", "record")),
    )
    assert not loaded.network.training


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_contract_frozen_stages_keep_their_bytes_and_the_others_learn(small, name, dims):
    network = small(name, dims)
    head = pixel_head(network.features, 2)
    method = parse_method({"name": "fine_tune", "freeze": network.stage_names[1], "batch_norm": "train"})
    before = {key: value.clone() for key, value in network_state(network).items()}
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=1e-2)
    for step in range(3):
        frozen = apply_freeze(network, method, epoch=step)
        optimizer.zero_grad()
        head(network(patch(network, seed=step))).square().mean().backward()
        optimizer.step()
    assert frozen == network.stage_names[:2]
    after = network_state(network)
    held = [stage for stage in network.stages if stage.name in frozen]
    for key, value in before.items():
        if any(stage.holds(key) for stage in held):
            assert torch.equal(value, after[key]), key
    for key, parameter in network.body.named_parameters():
        if not any(stage.holds(key) for stage in held):
            assert parameter.grad is not None, key
            assert not torch.equal(before[key], parameter), key


@pytest.mark.parametrize(
    ("name", "dims", "options", "expected"),
    [
        ("residual_unet", 3, {"norm": "batch"}, 2 * 3 + 2 + 1),  # the very last convolution has no norm
        ("dynunet", 2, {"norm": "batch"}, 3 * 3 + 2 * 2),
        ("dynunet", 3, {}, 0),
        ("unet3d", 3, {"norm": "batch"}, 2 * 5),
        ("unet3d", 3, {"norm": "instance"}, 0),
        ("unet", 3, {}, 5 + 4),
        ("unet", 3, {"encoder": "mobilenetv2_100"}, 9 + 4),
    ],
)
def test_all_layers_with_running_statistics_are_found_and_can_be_kept(small, name, dims, options, expected):
    network = small(name, dims, **options)
    layers = normalisation_layers(network)
    assert len(layers) == expected
    apply_freeze(network, parse_method({"name": "fine_tune", "batch_norm": "freeze"}), 0)
    network(patch(network))
    assert all(layer.num_batches_tracked == 0 for layer in layers)


@pytest.mark.parametrize("name", [name for name, dims in ALL if dims == 2])
def test_a_flat_network_sees_a_volume_slice_by_slice(small, name):
    network = small(name, 2).eval()
    x = patch(network, 2, 3, 5)
    with torch.inference_mode():
        whole = network(x)
        for z in range(5):
            torch.testing.assert_close(whole[..., z : z + 1], network(x[..., z : z + 1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_channels_last_and_bfloat16_agree_with_float32(small, name, dims):
    network = small(name, dims).eval()
    x = patch(network, 4, 4, 4)
    with torch.inference_mode():
        exact = network(x)
        for parameter in network.parameters():
            if parameter.ndim in (4, 5):
                layout = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
                parameter.data = parameter.data.contiguous(memory_format=layout)
        turned = x.contiguous(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(network(turned), exact, rtol=1e-3, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(turned).float()
    assert (rough - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize(
    ("dims", "given", "said"),
    [
        (3, (30, 32, 32), r"cannot take 30×32×32 voxels.*multiples of 8×8×8.*the nearest is 32×32×32"),
        (3, (3, 16, 16), "the nearest is 8×16×16"),
        (3, (8, 8, 8), "the nearest is 16×8×8"),
        (2, (20, 41, 1), r"multiples of 8×8×1.*the nearest is 16×40×1"),
    ],
)
def test_a_patch_that_does_not_fit_is_answered_with_the_nearest_that_does(dims, given, said):
    network = build_segmentation_network("residual_unet", in_channels=1, dims=dims)
    with pytest.raises(UserError, match=said):
        network.check_patch(given)
    network.check_patch((24, 16, 8 if dims == 3 else 1))


def test_a_misspelt_network_or_option_gets_the_nearest_name():
    with pytest.raises(UserError, match="did you mean 'dynunet'"):
        build_segmentation_network("dynunt", in_channels=1, dims=3)
    with pytest.raises(UserError, match=r"resnet18: this is an encoder.*use unet with encoder resnet18"):
        build_segmentation_network("resnet18", in_channels=1, dims=2)
    for options, said in (
        ({"encodr": "resnet18"}, "did you mean 'encoder'"),
        ({"encoder": "resnet81"}, "did you mean 'resnet18'"),
        ({"depth": 9}, r"network unet: depth: .*less than or equal to 5"),
        ({"depth": 3, "decoder": [8, 8]}, "as many entries as the depth, which is 3"),
        ({"encoder": "vit_tiny_patch16_224"}, "cannot be an encoder of depth 5"),
    ):
        with pytest.raises(UserError, match=said):
            build_segmentation_network("unet", in_channels=1, dims=2, options=options)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"in_channels": 0}, "in_channels"),
        ({"dims": 4}, "dims: 4 is neither 2 nor 3"),
        ({"features": (4, 8, 16), "strides": [(2, 2, 2)]}, "one stride fewer"),
        ({"features": (4,)}, "2 or more levels"),
        ({"strides": [(2, 2)]}, "three positive numbers"),
        ({"dims": 2, "strides": [(2, 2, 2)]}, "does not see"),
    ],
)
def test_impossible_sizes_are_explained(settings, said):
    with pytest.raises(UserError, match=said):
        build_segmentation_network("dynunet", **{"in_channels": 1, "dims": 3, **settings})


def test_a_plans_leading_stride_of_ones_is_that_of_full_resolution():
    network = build_segmentation_network(
        "dynunet", in_channels=1, dims=3, features=(4, 8, 16), strides=[(1, 1, 1), (2, 2, 1), (2, 2, 2)]
    )
    assert network.divisor == (4, 4, 2)


def test_a_head_is_a_function_of_its_seed():
    first, again, other = (pixel_head(16, 3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert first[0].weight.abs().max() <= 0.25
    assert first(torch.rand(2, 16, 4, 5, 6)).shape == (2, 3, 4, 5, 6)
    assert isinstance(first, nn.Sequential)
