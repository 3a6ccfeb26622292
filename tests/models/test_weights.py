import socket
import time

import pytest
import timm
import torch
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.models import hub
from mrtransfer.models.network import build_network, network_state
from mrtransfer.models.state_files import state_digest, write_state
from mrtransfer.models.weights import apply_weights, parse_weights


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "w.safetensors"
    write_state(
        path, network_state(build_network("cbr_tiny", seed=9)), {"provenance": {"subjects": ["p1"]}, "note": "x"}
    )
    return path


def test_words_paths_and_mappings_are_understood(file):
    assert parse_weights("mean_var").kind == "mean_var"
    assert (parse_weights(str(file)).kind, parse_weights(str(file)).file) == ("file", str(file))
    spec = parse_weights({"file": str(file), "until": "layer1", "channels": "sum", "partial": True})
    assert (spec.kind, spec.until, spec.channels, spec.partial) == ("file", "layer1", "sum", True)
    assert parse_weights({"kind": "imagenet", "until": "layer1"}).kind == "imagenet"
    assert parse_weights(spec) is spec


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("imagnet", "did you mean 'imagenet'"),
        ("xyzzy", "neither one of"),
        ({"file": "a.pt", "untill": "layer1"}, "did you mean 'until'"),
        ({"file": "a.pt", "channels": "average"}, "channels"),
        ({"until": "layer1"}, "file: missing"),
        ({"kind": "imagenet", "file": "a.pt"}, "take no file"),
        ({"kind": "random", "until": "layer1"}, "mean nothing"),
    ],
)
def test_wrong_weights_are_explained(bad, said):
    with pytest.raises(UserError, match=said):
        parse_weights(bad)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"nowhere\.pt: the file does not exist"):
        apply_weights(build_network("cbr_tiny"), "nowhere.pt")
    with pytest.raises(UserError, match=r"nowhere\.pt: the file does not exist"):
        parse_weights("nowhere.pt").file_digest()


def test_random_weights_are_those_the_network_was_built_with():
    network = build_network("cbr_tiny", seed=4)
    report = apply_weights(network, "random")
    assert report.counts["fresh"] == len(network_state(network))
    assert report.digest == state_digest(network_state(build_network("cbr_tiny", seed=4)))


def test_a_file_gives_its_weights_and_what_they_were_trained_on(file):
    network = build_network("cbr_tiny")
    report = apply_weights(network, str(file))
    assert report.digest == state_digest(network_state(build_network("cbr_tiny", seed=9)))
    assert report.provenance["trained_on"] == {"subjects": ["p1"]}
    assert report.provenance["digest"] == parse_weights(str(file)).file_digest()
    assert "the file says: x" in report.to_text()


def test_the_file_digest_follows_the_bytes_not_the_name(file):
    before = parse_weights(str(file)).file_digest()
    moved = file.rename(file.with_name("other.safetensors"))
    assert parse_weights(str(moved)).file_digest() == before
    write_state(moved, network_state(build_network("cbr_tiny", seed=8)))
    assert parse_weights(str(moved)).file_digest() != before


def test_source_weights_come_from_whoever_trains_them():
    state = network_state(build_network("cbr_tiny", seed=7))
    network = build_network("cbr_tiny")
    report = apply_weights(network, "source", resolve_source=lambda: (state, {"dataset": "phantom"}))
    assert report.digest == state_digest(state)
    assert report.provenance["trained_on"] == {"dataset": "phantom"}
    with pytest.raises(UserError, match="no source dataset"):
        apply_weights(network, "source")


def test_mean_var_keeps_each_tensors_scale_and_destroys_its_features(tmp_path):
    trained = build_network("cbr_large_t", seed=3)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(3).add_(0.25)
    write_state(tmp_path / "w.safetensors", network_state(trained))
    network, spec = build_network("cbr_large_t", seed=3), {"kind": "mean_var", "file": str(tmp_path / "w.safetensors")}
    report = apply_weights(network, spec, seed=1)
    for (name, new), old in zip(network.body.named_parameters(), trained.body.parameters(), strict=True):
        if old.numel() > 1000:
            assert new.mean().item() == pytest.approx(old.mean().item(), rel=0.05), name
            assert new.std().item() == pytest.approx(old.std().item(), rel=0.05), name
            assert abs(torch.corrcoef(torch.stack((new.flatten(), old.flatten())))[0, 1]) < 0.1
    assert report.counts["adapted"] == 15
    assert report.counts["fresh"] == 15  # running statistics stay those of a new network
    again, other = build_network("cbr_large_t"), build_network("cbr_large_t")
    assert apply_weights(again, spec, seed=1).digest == report.digest
    assert apply_weights(other, spec, seed=2).digest != report.digest


@pytest.mark.parametrize(
    ("value", "until", "random"),
    [
        ("random", None, True),
        ("imagenet", None, False),
        ("source", None, False),
        ("mean_var", None, True),
        ({"file": "a.pt"}, None, False),
        ({"file": "a.pt", "until": "layer3"}, None, True),
        ({"file": "a.pt", "until": "layer3"}, "layer3", False),
        ({"file": "a.pt", "partial": True}, "layer3", True),
    ],
)
def test_it_is_known_whether_a_seed_makes_a_difference(value, until, random):
    assert parse_weights(value).is_random(build_network("resnet18", until=until)) is random


def test_imagenet_weights_are_timms(tmp_path, monkeypatch):
    published = timm.create_model("resnet18", num_classes=1000)
    write_state(tmp_path / "model.safetensors", published.state_dict())
    monkeypatch.setattr(hub, "_fetch", lambda *_: tmp_path / "model.safetensors")
    network = build_network("resnet18")
    report = apply_weights(network, "imagenet")
    assert report.counts == {"loaded": 120, "adapted": 0, "skipped": 2, "fresh": 0}
    assert report.provenance["timm"].startswith("resnet18.")
    assert torch.equal(network.body.conv1.weight, published.conv1.weight)
    with pytest.raises(UserError, match="set channels"):
        apply_weights(build_network("resnet18", in_channels=1), "imagenet")


def test_offline_imagenet_weights_are_refused_quickly_with_the_way_out(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "create_connection", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: None)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be fetched .*give a local file instead: weights: path/to/file"):
        apply_weights(build_network("resnet18"), "imagenet")
    assert time.monotonic() - started < 15


def test_a_network_of_our_own_has_no_imagenet_weights():
    with pytest.raises(UserError, match="there are none for cbr_tiny"):
        apply_weights(build_network("cbr_tiny"), "imagenet")


def natural_image(size=224):
    """Smooth shades with edges and texture: what a photograph has, and noise has not."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    disc = ((x - 0.6) ** 2 + (y - 0.4) ** 2 < 0.06).float()
    grey = 0.3 + 0.4 * x * y + 0.3 * disc + 0.1 * torch.sin(60 * x) * (y > 0.7)
    return torch.stack((grey, grey * 0.9, grey * 0.7)).unsqueeze(0).clamp(0, 1)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "until", "file", "normalise", "tensors"),
    [
        ("resnet18", "layer3", "resnet18.imagenet-through-layer3", "imagenet", 90),
        ("mobilenetv2_100", None, "mobilenetv2_100.imagenet", "half", 312),
    ],
)
def test_real_weights_load_strictly_and_see_something(weights_folder, name, until, file, normalise, tensors):
    from mrtransfer.augment.prepare import to_input

    network = build_network(name, until=until)
    report = apply_weights(network, str(weights_folder / f"{file}.safetensors"))
    assert report.counts["loaded"] == tensors
    assert report.counts["fresh"] == report.counts["adapted"] == 0
    images = torch.cat((natural_image(), natural_image().flip(2), torch.full((1, 3, 224, 224), 0.5)))
    with torch.inference_mode():
        out = network.eval()(to_input(images, channels=3, normalise=normalise))
    assert torch.isfinite(out).all()
    assert (out[0] > 0.01).float().mean() > 0.2  # many features respond
    assert out[0].std() > 0.05
    assert torch.corrcoef(out)[0, 2] < 0.95  # a picture is not a grey wall


@pytest.mark.real_data
def test_the_real_classifier_gives_a_sensible_distribution(weights_folder):
    """The whole MobileNetV2 file in timm's own network: the headless one must give the same pooled features."""
    from mrtransfer.models.state_files import read_state

    state, _ = read_state(weights_folder / "mobilenetv2_100.imagenet.safetensors")
    whole = timm.create_model("mobilenetv2_100", num_classes=1000).eval()
    whole.load_state_dict(state)
    network = build_network("mobilenetv2_100").eval()
    apply_weights(network, str(weights_folder / "mobilenetv2_100.imagenet.safetensors"))
    x = natural_image() * 2 - 1
    with torch.inference_mode():
        assert torch.allclose(whole.forward_head(whole.forward_features(x), pre_logits=True), network(x), atol=1e-5)
        assert whole(x).softmax(1).max() > 5 / 1000


@pytest.mark.real_data
def test_folded_batch_norm_only_adds_its_bias_in_evaluation_mode(weights_folder):
    network = build_network("resnet18", until="layer3").eval()
    apply_weights(network, str(weights_folder / "resnet18.imagenet-through-layer3.safetensors"))
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            x = torch.randn(2, layer.num_features, 4, 4)
            assert torch.allclose(layer(x), x + layer.bias[:, None, None], atol=1e-4)
