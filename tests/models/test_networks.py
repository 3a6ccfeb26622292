import pytest
import torch
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.models.network import Backbone, build_network, network_state
from mrtransfer.models.networks import NETWORKS

# One of each way in which timm lays out a network; all take small images.
TIMM = [
    "resnet18",
    "resnet50",
    "mobilenetv2_100",
    "mobilenetv3_small_050",
    "convnext_atto",
    "densenet121",
    "regnety_002",
]
FIXED_SIZE = ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
ALL = [*NETWORKS.names(), *TIMM]


def image(channels=3, size=64, n=2):
    return torch.rand(n, channels, size, size, generator=torch.manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_contract_pooled_features_for_grey_and_colour(name, channels):
    network = build_network(name, in_channels=channels).eval()
    with torch.inference_mode():
        out = network(image(channels))
    assert out.shape == (2, network.features)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", [*ALL, *FIXED_SIZE])
def test_contract_stages_hold_every_tensor_exactly_once(name):
    network = build_network(name)
    for tensor in network_state(network):
        assert sum(stage.holds(tensor) for stage in network.stages) == 1, tensor
    parameters = [key for stage in network.stage_names for key, _ in network.stage_parameters(stage)]
    assert sorted(parameters) == sorted(key for key, _ in network.body.named_parameters())


@pytest.mark.parametrize("name", [*ALL, *FIXED_SIZE])
def test_contract_a_cut_network_gives_the_pooled_output_of_its_last_stage(name):
    """Reference: a hook on that stage in the whole network."""
    whole = build_network(name).eval()
    stage = whole.stages[len(whole.stages) // 2]
    cut = build_network(name, until=stage.name).eval()
    assert cut.stage_names[-1] == stage.name
    seen = {}
    whole.body.get_submodule(stage.members[-1]).register_forward_hook(lambda m, i, o: seen.update(out=o))
    x = image(size=224 if name in FIXED_SIZE else 64, n=1)
    with torch.inference_mode():
        whole(x)
        got = cut(x)
    maps = seen["out"]
    if name.startswith("swin"):
        expected = maps.mean(dim=(1, 2))
    elif name.startswith("vit"):
        expected = maps[:, 1:].mean(dim=1)
    else:
        expected = maps.mean(dim=(2, 3))
    assert got.shape == (1, cut.features)
    assert torch.allclose(got, expected, atol=1e-5)
    assert set(network_state(cut)) < set(network_state(whole))


@pytest.mark.parametrize("name", ["resnet18", "cbr_tiny"])
def test_weights_are_a_function_of_the_seed_and_leave_the_global_generator_alone(name):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (network_state(build_network(name, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_a_cut_network_starts_like_the_whole_one():
    whole, cut = network_state(build_network("resnet18")), network_state(build_network("resnet18", until="layer2"))
    assert all(torch.equal(whole[key], value) for key, value in cut.items())


def test_resnet_stages_have_the_names_of_the_field():
    assert build_network("resnet18").stage_names == ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert build_network("resnet18", until="layer3").features == 256
    assert build_network("resnet18", until="stem").features == 64


def test_parameter_names_are_those_of_timm():
    import timm

    timm_names = set(timm.create_model("mobilenetv2_100", num_classes=0).state_dict())
    assert set(network_state(build_network("mobilenetv2_100"))) == timm_names


@pytest.mark.parametrize(
    ("name", "millions"), [("cbr_large_t", 8.53), ("cbr_large_w", 8.43), ("cbr_small", 2.11), ("cbr_tiny", 1.08)]
)
def test_cbr_networks_have_the_published_number_of_parameters(name, millions):
    found = sum(parameter.numel() for parameter in build_network(name).parameters())
    assert found / 1e6 == pytest.approx(millions, rel=0.002)


def test_a_misspelt_network_gets_the_nearest_name():
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        build_network("resnt18")
    with pytest.raises(UserError, match="did you mean 'cbr_tiny'"):
        build_network("cbr_tinny")


def test_a_misspelt_stage_gets_the_nearest_name_and_the_list():
    with pytest.raises(UserError, match=r"did you mean 'layer3'.*layer1, layer2"):
        build_network("resnet18", until="layr3")


def test_a_network_that_cannot_be_cut_there_says_so():
    with pytest.raises(UserError, match=r"cannot be cut after 'transition1'.*stages are stem"):
        build_network("hrnet_w18_small", until="transition1")


def test_an_image_of_a_wrong_size_is_explained():
    assert build_network("resnet18").check_size(97) == 512
    with pytest.raises(UserError, match=r"100×100.*224×224"):
        build_network("vit_tiny_patch16_224").check_size(100)


def test_modules_of_a_stage_include_its_batch_norms():
    network = build_network("resnet18")
    norms = [module for module in network.stage_modules("stem") if isinstance(module, nn.BatchNorm2d)]
    assert norms == [network.body.bn1]


def test_an_impossible_number_of_channels_is_refused():
    with pytest.raises(UserError, match="in_channels"):
        build_network("resnet18", in_channels=0)


def test_maps_are_what_is_pooled():
    network: Backbone = build_network("cbr_small").eval()
    maps = network.maps(image())
    assert maps.shape == (2, 256, 4, 4)
    assert torch.allclose(maps.mean(dim=(2, 3)), network(image()))


def test_a_backbone_trains_through_the_cut():
    network = build_network("mobilenetv2_100", until="blocks.2").train()
    network(image()).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
