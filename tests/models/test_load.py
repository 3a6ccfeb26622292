import pytest
import torch
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.models.adapt import adapt_channels, inflate
from mrtransfer.models.load import load_into
from mrtransfer.models.network import build_network, network_state


def state_of(name, seed=1, classes=None, **options):
    """As a published file would have it, with a classifier where ``classes`` is given."""
    network = build_network(name, seed=seed, **options)
    state = {key: value.clone() for key, value in network_state(network).items()}
    if classes:
        state |= {"fc.weight": torch.zeros(classes, network.features), "fc.bias": torch.zeros(classes)}
    return state


def same(network, state, names):
    own = network_state(network)
    return all(torch.equal(own[name], state[name]) for name in names)


def test_a_whole_file_is_loaded_and_its_classifier_skipped():
    network, state = build_network("resnet18"), state_of("resnet18", classes=10)
    report = load_into(network, state, source="mine.pt")
    assert report.counts == {"loaded": 120, "adapted": 0, "skipped": 2, "fresh": 0}
    assert same(network, state, network_state(network))
    assert [row.detail for row in report.rows if row.status == "skipped"] == ["head", "head"]


def test_a_cut_network_takes_the_whole_file():
    network, state = build_network("resnet18", until="layer2"), state_of("resnet18", classes=10)
    report = load_into(network, state)
    assert report.counts["loaded"] == 60
    assert report.counts["fresh"] == 0
    assert report.counts["skipped"] == 62
    assert "after layer2, where the network ends" in report.to_text()


def test_until_loads_a_prefix_and_leaves_the_rest_fresh():
    network, state = build_network("resnet18"), state_of("resnet18")
    before = {key: value.clone() for key, value in network_state(network).items()}
    report = load_into(network, state, until="layer1")
    first = [name for name in state if name.startswith(("conv1", "bn1", "layer1"))]
    rest = [name for name in state if name not in first and not name.endswith("num_batches_tracked")]
    assert same(network, state, first)
    assert same(network, before, rest)
    assert {row.name for row in report.rows if row.status == "loaded"} == set(first)
    assert {row.name for row in report.rows if row.status == "fresh"} == set(state) - set(first)


def test_a_prefix_file_into_a_whole_network_says_how():
    state = state_of("resnet18", until="layer3")
    with pytest.raises(UserError, match=r"lacks 25 of the network's 120 tensors.*until: layer3"):
        load_into(build_network("resnet18"), state)
    assert load_into(build_network("resnet18"), state, until="layer3").counts["loaded"] == 90
    assert load_into(build_network("resnet18"), state, partial=True).counts == {
        "loaded": 90,
        "adapted": 0,
        "skipped": 0,
        "fresh": 30,
    }


def test_channels_are_adapted_only_when_asked():
    network, state = build_network("resnet18", in_channels=1), state_of("resnet18")
    wanted = r"file has conv1.weight \(64, 3, 7, 7\), network wants \(64, 1, 7, 7\): set channels: mean\|sum"
    with pytest.raises(UserError, match=wanted):
        load_into(network, state)
    report = load_into(network, state, channels="sum")
    assert report.counts["adapted"] == 1
    assert torch.allclose(network_state(network)["conv1.weight"], state["conv1.weight"].sum(1, keepdim=True))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_sum_and_repeat_keep_the_response_to_a_grey_image(channels):
    weight = torch.rand(4, 3, 3, 3)
    grey = torch.rand(1, 1, 8, 8)
    old = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), weight)
    new = nn.functional.conv2d(grey.expand(-1, channels, -1, -1), adapt_channels(weight, channels, "sum"))
    assert torch.allclose(old, new, atol=1e-5)


def test_the_other_channel_policies_are_what_their_names_say():
    weight = torch.rand(4, 3, 3, 3)
    assert torch.allclose(adapt_channels(weight, 2, "mean")[:, 1], weight.mean(1))
    repeated = adapt_channels(weight, 4, "repeat")
    assert torch.allclose(repeated[:, 3], weight[:, 0] * 0.75)
    padded = adapt_channels(weight, 5, "zero_pad")
    assert torch.equal(padded[:, :3], weight)
    assert not padded[:, 3:].any()
    assert torch.equal(adapt_channels(weight, 2, "zero_pad"), weight[:, :2])


def test_an_inflated_kernel_responds_to_equal_slices_as_the_flat_one_did():
    weight, image = torch.rand(4, 3, 3, 3), torch.rand(1, 3, 8, 8)
    flat = nn.functional.conv2d(image, weight)
    deep = nn.functional.conv3d(image.unsqueeze(4).repeat(1, 1, 1, 1, 5), inflate(weight, 5))
    assert torch.allclose(deep[..., 0], flat, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (4, 2, 1), (3, 3, 0)])
def test_an_inflated_transposed_kernel_does_so_too(kernel, stride, padding):
    weight, image = torch.rand(3, 4, kernel, kernel), torch.rand(1, 3, 6, 6)
    more = {"stride": stride, "padding": padding, "output_padding": max(stride - kernel + 2 * padding, 0) % stride}
    flat = nn.functional.conv_transpose2d(image, weight, **more)
    volume = image.unsqueeze(4).repeat(1, 1, 1, 1, 8)
    deep = nn.functional.conv_transpose3d(volume, inflate(weight, kernel, stride), **more)
    for z in range(kernel, deep.shape[4] - kernel):
        assert torch.allclose(deep[..., z], flat, atol=1e-5)


def test_a_2d_file_is_inflated_into_a_3d_network_with_other_channels():
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
    deep = nn.Sequential(nn.Conv3d(1, 4, 3), nn.Conv3d(4, 2, 3))
    report = load_into(deep, flat.state_dict(), channels="sum")
    assert report.counts == {"loaded": 2, "adapted": 2, "skipped": 0, "fresh": 0}
    assert "inflated to depth 3; 3 input channels made 1 by sum" in report.to_text()
    assert torch.allclose(deep[0].weight.sum(4)[:, 0], flat[0].weight.sum(1), atol=1e-6)


@pytest.mark.parametrize(
    ("network", "file"), [("resnet18", "mobilenetv2_100"), ("resnet50", "resnet18"), ("cbr_small", "cbr_tiny")]
)
def test_a_file_of_another_network_is_refused(network, file):
    with pytest.raises(UserError, match=r"tensors fit and \d+ do not .*is this a file of another network\?"):
        load_into(build_network(network), state_of(file))


def test_a_refused_file_leaves_the_network_as_it_was():
    network = build_network("resnet18")
    before = {key: value.clone() for key, value in network_state(network).items()}
    with pytest.raises(UserError):
        load_into(network, state_of("resnet50"))
    assert same(network, before, before)


def test_nothing_in_common_is_refused_even_when_partial():
    with pytest.raises(UserError, match="0 tensors fit"):
        load_into(build_network("cbr_tiny"), {"weights": torch.zeros(3)}, partial=True)


def test_a_dry_run_reports_and_changes_nothing():
    network = build_network("resnet18")
    before = {key: value.clone() for key, value in network_state(network).items()}
    report = load_into(network, state_of("resnet18"), dry_run=True)
    assert report.counts["loaded"] == 120
    assert same(network, before, before)


def test_the_prefix_of_a_wrapper_is_left_out_and_said():
    network, state = build_network("cbr_tiny"), state_of("cbr_tiny")
    wrapped = {f"model.backbone.{name}": value for name, value in state.items()} | {"model.head.weight": torch.zeros(2)}
    with pytest.raises(UserError, match=r"1 do not .*model.head.weight|head.weight"):
        load_into(network, wrapped)
    del wrapped["model.head.weight"]
    report = load_into(network, wrapped)
    assert "names start with 'model.backbone.'" in report.notes[0]
    assert same(network, state, state)


def test_weights_that_are_not_finite_are_refused():
    state = state_of("cbr_tiny")
    state["block1.conv.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match=r"block1.conv.weight holds values that are not finite"):
        load_into(build_network("cbr_tiny"), state)


def test_files_without_batch_counters_are_complete():
    state = {name: value for name, value in state_of("resnet18").items() if "num_batches" not in name}
    assert load_into(build_network("resnet18"), state).counts["loaded"] == 100


def test_a_misspelt_stage_is_named():
    with pytest.raises(UserError, match="did you mean 'layer1'"):
        load_into(build_network("resnet18"), state_of("resnet18"), until="leyer1")


def test_the_report_is_complete_for_machines():
    report = load_into(build_network("cbr_tiny"), state_of("cbr_tiny"), source="mine.pt").to_json()
    assert report["source"] == "mine.pt"
    assert len(report["tensors"]) == 24
    assert report["tensors"][0] == {
        "name": "block1.conv.weight",
        "status": "loaded",
        "shape": [32, 3, 5, 5],
        "detail": "",
    }
    assert len(report["digest"]) == 16


def test_a_record_of_a_run_does_not_repeat_every_training_image():
    report = load_into(build_network("cbr_tiny"), state_of("cbr_tiny"))
    report.provenance = {"trained_on": {"row_digests": ["d"] * 500, "datasets": ["phantom"]}}
    assert report.to_json()["provenance"] == {"trained_on": {"row_digests": "500 entries", "datasets": ["phantom"]}}
    assert len(report.provenance["trained_on"]["row_digests"]) == 500
