"""Weights for segmentation networks: published encoders, models of another domain, other channels, 2-D to 3-D."""

import pytest
import timm
import torch
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.models import hub
from mrtransfer.models.adapt import adapt_channels
from mrtransfer.models.load import load_into
from mrtransfer.models.network import build_network, network_state
from mrtransfer.models.package import save_model
from mrtransfer.models.segmentation import build_segmentation_network, pixel_head
from mrtransfer.models.state_files import read_state, write_state
from mrtransfer.models.weights import apply_weights

SPEC = {
    "task": "segmentation",
    "plan": {},
    "mask_labels": {},
    "loss": "dice_ce",
    "channels": ["flair", "t1ce"],
    "postprocess": None,
    "provenance": {"subjects": ["p1"]},
    "record": {},
}


def unet(encoder="resnet18", depth=4, dims=2, in_channels=3, seed=0):
    return build_segmentation_network(
        "unet", in_channels=in_channels, dims=dims, options={"encoder": encoder, "depth": depth}, seed=seed
    )


def published(encoder, path, classes=7):
    """A file as published: plain names, with a classifier; and the network that it belongs to."""
    network = timm.create_model(encoder, num_classes=classes)
    write_state(path, network.state_dict())
    return network.eval()


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    file = tmp_path_factory.mktemp("published") / "resnet18.safetensors"
    return published("resnet18", file), str(file)


def encoder_features(network, image):
    with torch.inference_mode():
        return network.eval().body.encoder(image)[1:]


@pytest.mark.parametrize(
    ("encoder", "depth"), [("resnet18", 5), ("mobilenetv2_100", 3), ("mobilenetv2_100", 5), ("convnext_atto", 4)]
)
def test_a_published_file_goes_into_the_encoder_whole(tmp_path, encoder, depth):
    """Reference: timm's own features of the published network."""
    whole = published(encoder, tmp_path / "w.safetensors")
    network = unet(encoder, depth)
    before = {key: value.clone() for key, value in network_state(network).items()}
    report = apply_weights(network, str(tmp_path / "w.safetensors"))
    theirs = timm.create_model(encoder, features_only=True).eval()
    renamed = {
        name.replace("stages.", "stages_").replace("stem.", "stem_"): v for name, v in whole.state_dict().items()
    }
    if encoder == "mobilenetv2_100":
        renamed = whole.state_dict()  # timm's features of this one keep their names
    assert not theirs.load_state_dict(renamed, strict=False).missing_keys
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = theirs(image)
    for maps, reference in zip([m for m in encoder_features(network, image) if m.shape[1]], expected, strict=False):
        torch.testing.assert_close(maps, reference)
    decoder = {name for name in before if name.startswith("decoder")}
    assert {row.name for row in report.rows if row.status == "fresh"} == decoder
    assert all(torch.equal(before[name], network_state(network)[name]) for name in decoder)
    details = [row.detail for row in report.rows if row.status == "skipped"]
    assert report.counts["loaded"] + len(details) == len(whole.state_dict())
    assert set(details) <= {"head", "after the encoder's last feature maps"}
    assert f"the file is one of {encoder}" in report.notes[0]
    assert network.encoder_prefix == "encoder.model."


@pytest.mark.parametrize(("channels", "count"), [("mean", 1), ("sum", 2), ("repeat", 5), ("zero_pad", 5)])
def test_the_first_convolution_is_adapted_to_other_channels_when_asked(resnet18, channels, count):
    whole, file = resnet18
    network = unet(depth=2, in_channels=count)
    with pytest.raises(UserError, match=r"encoder.model.conv1.weight \(64, 3, 7, 7\).*set channels: mean\|sum"):
        apply_weights(network, file)
    report = apply_weights(network, {"file": file, "channels": channels})
    assert [row.name for row in report.rows if row.status == "adapted"] == ["encoder.model.conv1.weight"]
    expected = adapt_channels(whole.conv1.weight, count, channels)
    assert torch.equal(network.body.encoder.model.conv1.weight, expected)


def test_imagenet_weights_are_those_of_the_encoder(tmp_path, monkeypatch):
    whole = published("resnet18", tmp_path / "model.safetensors", classes=1000)
    monkeypatch.setattr(hub, "_fetch", lambda *_: tmp_path / "model.safetensors")
    network = unet(depth=3)
    report = apply_weights(network, "imagenet")
    assert report.provenance["timm"].startswith("resnet18.")
    assert torch.equal(network.body.encoder.model.layer2[1].conv2.weight, whole.layer2[1].conv2.weight)
    with pytest.raises(UserError, match="there are none for dynunet"):
        apply_weights(build_segmentation_network("dynunet", in_channels=3, dims=2), "imagenet")


def test_until_and_mean_var_reach_into_the_encoder(resnet18):
    whole, file = resnet18
    network = unet(depth=3, seed=1)
    fresh = network.body.encoder.model.layer2[0].conv1.weight.clone()
    report = apply_weights(network, {"file": file, "until": "layer1"})
    model = network.body.encoder.model
    assert torch.equal(model.layer1[0].conv1.weight, whole.layer1[0].conv1.weight)
    assert torch.equal(model.layer2[0].conv1.weight, fresh)
    assert {row.detail for row in report.rows if row.status == "fresh"} == {"after layer1"}
    apply_weights(network, {"kind": "mean_var", "file": file})
    ours, theirs = model.layer2[0].conv2.weight, whole.layer2[0].conv2.weight
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.05)
    assert not torch.equal(ours, theirs)


def test_a_file_of_another_encoder_is_refused(resnet18):
    with pytest.raises(UserError, match=r"tensors fit and \d+ do not.*is this a file of another network\?"):
        apply_weights(unet("resnet50", 2), resnet18[1])


def test_a_backbone_that_was_tuned_on_mr_images_goes_into_an_encoder(tmp_path):
    backbone = build_network("resnet18", seed=5)
    spec = {
        "task": "classification",
        "size": 64,
        "fit": "stretch",
        "input": {"normalise": "imagenet", "channels": 3},
        "classes": ["a", "b"],
        "provenance": {},
    }
    folder = save_model(tmp_path / "model", backbone, nn.Sequential(nn.Linear(512, 2)), spec)
    network = unet(depth=5)
    assert apply_weights(network, str(folder)).counts["loaded"] == 120
    assert torch.equal(network.body.encoder.model.layer4[1].conv2.weight, backbone.body.layer4[1].conv2.weight)


def test_a_checkpoint_of_an_smp_unet_inside_a_trainer_loads():
    import segmentation_models_pytorch as smp

    theirs = smp.Unet("tu-resnet18", 4, None, decoder_channels=(128, 64, 32, 16), classes=2)
    state = {f"model.{name}": value for name, value in theirs.state_dict().items()}
    network = unet()
    report = load_into(network, state)
    assert report.counts["fresh"] == 0
    assert [row.name for row in report.rows if row.detail == "head"] == [
        "segmentation_head.0.weight",
        "segmentation_head.0.bias",
    ]
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        expected = theirs.eval().decoder(theirs.encoder(x))
        torch.testing.assert_close(network.eval()(x.unsqueeze(-1)).squeeze(-1), expected)


ALL = [("unet", 2), ("unet", 3), ("resunet", 2), ("unet3d", 3), ("residual_unet", 3), ("dynunet", 2)]


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_a_source_model_goes_into_a_network_for_other_classes_and_channels(small, tmp_path, name, dims):
    source = small(name, dims, seed=1)
    folder = save_model(tmp_path / "source", source, pixel_head(source.features, 4), SPEC)
    network = small(name, dims, seed=2)
    report = apply_weights(network, str(folder))
    own = network_state(source)
    assert report.counts == {"loaded": len(own), "adapted": 0, "skipped": 2, "fresh": 0}
    assert {row.name for row in report.rows} == {*own, "head.0.weight", "head.0.bias"}
    assert report.provenance["trained_on"] == {"subjects": ["p1"]}
    assert all(torch.equal(value, network_state(network)[key]) for key, value in own.items())
    wider = small(name, dims, in_channels=3, seed=2)
    with pytest.raises(UserError, match="set channels"):
        apply_weights(wider, str(folder))
    adapted = apply_weights(wider, {"file": str(folder), "channels": "repeat"})
    first = {f"{path}.weight" for path in network.first_conv}
    assert {row.name for row in adapted.rows if row.status == "adapted"} == first
    assert adapted.counts["fresh"] == 0


def test_everything_but_the_head_is_strict(small, tmp_path):
    source = small("dynunet", 3, residual=False)
    folder = save_model(tmp_path / "source", source, pixel_head(4, 2), SPEC)
    with pytest.raises(UserError, match=r"lacks .* first encoder1.conv3"):
        apply_weights(small("dynunet", 3), str(folder))
    with pytest.raises(UserError, match="is this a file of another network"):
        apply_weights(small("unet3d", 3), str(folder))


def test_source_weights_may_come_from_whoever_trained_them(small, tmp_path):
    source = small("unet3d", 3, seed=1)
    folder = save_model(tmp_path / "source", source, pixel_head(4, 2), SPEC)
    network = small("unet3d", 3)
    report = apply_weights(network, "source", resolve_source=lambda: (read_state(folder)[0], {"dataset": "brats"}))
    assert report.provenance["trained_on"] == {"dataset": "brats"}
    assert report.counts["skipped"] == 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"encoder": "resnet18"}),
        ("unet", {"encoder": "mobilenetv2_100"}),
        ("unet", {"encoder": "resnet18d"}),
        ("resunet", {}),
        ("residual_unet", {"norm": "batch"}),
        ("dynunet", {"norm": "batch"}),
    ],
)
def test_an_inflated_network_sees_equal_slices_as_the_flat_one_did(small, shaken, tmp_path, name, options):
    """Away from the first and last slices, where there is padding instead of more of the same."""
    flat, deep = shaken(small(name, 2, **options)), small(name, 3, seed=1, **options).eval()
    folder = save_model(tmp_path / "flat", flat, pixel_head(flat.features, 2), SPEC)
    report = apply_weights(deep, str(folder))
    assert report.counts["fresh"] == 0
    assert any("inflated" in row.detail for row in report.rows)
    image = torch.rand(1, 2, 8, 8, 1)
    with torch.inference_mode():
        expected, found = flat(image), deep(image.repeat(1, 1, 1, 1, 80))
    for z in range(36, 44):
        torch.testing.assert_close(found[..., z : z + 1], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.real_data
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("encoder", "depth", "file", "until", "loaded"),
    [
        ("resnet18", 4, "resnet18.imagenet-through-layer3", None, 90),
        ("resnet18", 5, "resnet18.imagenet-through-layer3", "layer3", 90),
        ("mobilenetv2_100", 5, "mobilenetv2_100.imagenet", None, 306),
    ],
)
def test_real_weights_load_into_encoders(weights_folder, dims, encoder, depth, file, until, loaded):
    path = str(weights_folder / f"{file}.safetensors")
    network = unet(encoder, depth, dims)
    if until is not None:
        with pytest.raises(UserError, match="set until: layer3"):
            apply_weights(network, path)
    report = apply_weights(network, {"file": path, "until": until})
    assert report.counts["loaded"] + report.counts["adapted"] == loaded
    assert (report.counts["adapted"] > 0) == (dims == 3)


@pytest.mark.real_data
def test_a_real_encoder_gives_the_features_of_the_same_backbone(weights_folder):
    path = str(weights_folder / "resnet18.imagenet-through-layer3.safetensors")
    network, backbone = unet(depth=4), build_network("resnet18", until="layer3").eval()
    apply_weights(network, path)
    apply_weights(backbone, path)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(encoder_features(network, image)[3], backbone.maps(image))
