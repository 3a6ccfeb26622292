"""What is frozen follows from settings and epoch alone, and what is frozen does not change by a byte."""

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.models.network import build_network, network_state
from mrtransfer.models.segmentation import build_segmentation_network
from mrtransfer.models.state_files import write_state
from mrtransfer.models.weights import apply_weights
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.transfer.freeze import (
    apply_freeze,
    frozen_stages,
    normalisation_layers,
    parameter_groups,
    recalibrate,
)
from mrtransfer.transfer.method import parse_method

STAGES = ["stem", "layer1", "layer2", "layer3"]


def fine_tune(**settings):
    return parse_method({"name": "fine_tune", **settings})


@pytest.fixture
def network():
    return build_network("cbr_tiny", seed=1)


def test_a_prefix_of_the_stages_is_frozen():
    assert frozen_stages(fine_tune(), 0, STAGES) == []
    assert frozen_stages(fine_tune(freeze="layer1"), 5, STAGES) == ["stem", "layer1"]
    assert frozen_stages(fine_tune(freeze="all"), 5, STAGES) == STAGES


@given(st.sampled_from([*STAGES, "all", None]), st.one_of(st.none(), st.integers(1, 6)), st.integers(0, 9))
def test_freezing_holds_for_the_given_epochs_and_only_ever_ends(freeze, epochs, epoch):
    method = fine_tune(freeze=freeze, freeze_epochs=epochs)
    now, later = (frozen_stages(method, when, STAGES) for when in (epoch, epoch + 1))
    assert later in (now, [])
    assert now == ([] if epochs is not None and epoch >= epochs else frozen_stages(method, 0, STAGES))


def test_a_stage_that_is_not_there_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="did you mean 'layer3'"):
        frozen_stages(fine_tune(freeze="layer33"), 0, STAGES)


def test_the_state_is_the_same_whatever_was_applied_before(network):
    method = fine_tune(freeze="block2", freeze_epochs=2, batch_norm="train")

    def state():
        trainable = [parameter.requires_grad for parameter in network.parameters()]
        return trainable, [module.training for module in network.modules()]

    apply_freeze(network, method, 0)
    frozen_first = state()
    apply_freeze(network, method, 3)
    assert all(state()[0])
    network.eval()
    apply_freeze(network, method, 1)
    assert state() == frozen_first


@pytest.mark.parametrize(("policy", "moving"), [("train", 2), ("freeze", 0), ("recalibrate", 0)])
def test_batch_norm_follows_the_batches_only_where_asked_for_and_not_frozen(network, policy, moving):
    apply_freeze(network, fine_tune(freeze="block2", batch_norm=policy), 0)
    assert sum(layer.training for layer in normalisation_layers(network)) == moving
    assert len(normalisation_layers(network)) == 4


def test_a_new_decoder_follows_the_batches_while_its_pretrained_encoder_keeps_its_statistics(tmp_path):
    write_state(tmp_path / "resnet18.safetensors", timm.create_model("resnet18", num_classes=2).state_dict())
    options = {"encoder": "resnet18", "depth": 3}
    unet = build_segmentation_network("unet", in_channels=3, dims=2, options=options)

    def moving(weights, **settings):
        apply_weights(unet, weights, seed=0, resolve_source=lambda: (network_state(unet), {}))
        apply_freeze(unet, fine_tune(**settings), 0)
        layers = dict(unet.body.named_modules())
        norms = {id(layer) for layer in normalisation_layers(unet)}
        return {name.split(".")[0] for name, layer in layers.items() if id(layer) in norms and layer.training}

    published = str(tmp_path / "resnet18.safetensors")
    assert moving(published) == {"decoder"}
    assert moving(published, batch_norm="recalibrate") == {"decoder"}
    assert moving(published, batch_norm="train") == {"encoder", "decoder"}
    assert moving(published, freeze="all") == set()
    assert moving("source") == set()


def test_nothing_is_recorded_for_the_backward_pass_before_the_first_trainable_stage(network):
    apply_freeze(network, fine_tune(freeze="block2", batch_norm="train"), 0)
    recorded = {}
    for name in network.stage_names:
        last = network.stage_modules(name)[-1]
        last.register_forward_hook(lambda _m, _i, out, name=name: recorded.update({name: out.requires_grad}))
    network(torch.rand(2, 3, 32, 32))
    assert recorded == {"block1": False, "block2": False, "block3": True, "block4": True}


def test_recalibration_gives_the_average_of_the_batches_own_statistics(network):
    batches = [torch.rand(4, 3, 32, 32) + 3, torch.rand(4, 3, 32, 32) - 1]
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    with torch.no_grad():
        seen = [first(batch) for batch in batches]
    layer = normalisation_layers(network)[0]
    momentum, weights = layer.momentum, [parameter.clone() for parameter in network.parameters()]
    recalibrate(network, batches)
    mean = torch.stack([out.mean(dim=(0, 2, 3)) for out in seen]).mean(dim=0)
    variance = torch.stack([out.var(dim=(0, 2, 3)) for out in seen]).mean(dim=0)
    torch.testing.assert_close(layer.running_mean, mean)
    torch.testing.assert_close(layer.running_var, variance)
    assert layer.momentum == momentum
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))


def test_every_parameter_is_in_one_group_for_life_and_norms_and_biases_are_not_decayed(network):
    head = build_head("mlp", network.features, 3)
    groups = parameter_groups(network, head, fine_tune(rate=1e-3, backbone_rate=1e-5, weight_decay=0.1, freeze="all"))
    grouped = [parameter for group in groups for parameter in group["params"]]
    everything = [*network.parameters(), *head.parameters()]
    assert len(grouped) == len(everything)
    assert {id(p) for p in grouped} == {id(p) for p in everything}
    assert all(parameter.ndim > 1 for group in groups if group["weight_decay"] for parameter in group["params"])
    assert {group["name"]: group["lr"] for group in groups} == {"head": 1e-3, "backbone": 1e-5}
