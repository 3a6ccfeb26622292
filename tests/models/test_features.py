import errno
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from mrtransfer.augment.prepare import to_input
from mrtransfer.common.errors import UserError
from mrtransfer.models import features as module
from mrtransfer.models.features import feature_matrix
from mrtransfer.models.network import build_network
from mrtransfer.models.weights import apply_weights


@dataclass(frozen=True)
class Pixels:
    images: np.ndarray
    content: str


@pytest.fixture
def store():
    return Pixels(np.random.default_rng(0).integers(0, 256, (7, 1, 32, 32), dtype=np.uint8), "abc")


@pytest.fixture
def network():
    return build_network("cbr_tiny")


def passes(monkeypatch):
    """Counts the images that go through a backbone."""
    seen = []
    plain = module._pooled
    monkeypatch.setattr(module, "_pooled", lambda n, x, p: seen.append(len(x)) or plain(n, x, p))
    return seen


def test_features_are_those_of_the_network_in_evaluation_mode(store, network, tmp_path):
    found = feature_matrix(network, store, cache=tmp_path, views=("plain", "hflip"), batch=3)
    x = to_input(torch.from_numpy(store.images.copy()), channels=3)
    with torch.no_grad():
        expected = torch.stack((network.eval()(x), network(x.flip(3))))
    assert found.shape == (2, 7, 256)
    assert found.dtype == np.float32
    assert isinstance(found, np.memmap)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_the_second_time_nothing_is_computed(store, network, tmp_path, monkeypatch):
    seen = passes(monkeypatch)
    first = np.array(feature_matrix(network, store, cache=tmp_path, batch=3))
    assert sum(seen) == 7
    again = feature_matrix(build_network("cbr_tiny"), store, cache=tmp_path, batch=5)
    assert sum(seen) == 7
    assert np.array_equal(first, again)


@pytest.mark.parametrize(
    "change",
    [
        {"normalise": "half"},
        {"views": ("hflip",)},
        {"precision": "bfloat16"},
        {"network": build_network("cbr_tiny", seed=1)},
        {"network": build_network("cbr_tiny", until="block3")},
        {"network": build_network("cbr_small")},
        {"content": "other"},
    ],
)
def test_whatever_defines_the_features_gives_them_another_name(store, network, tmp_path, monkeypatch, change):
    seen = passes(monkeypatch)
    settings = {"normalise": "imagenet", "views": ("plain",), "precision": "float32", "network": network, **change}
    store_now = replace(store, content=settings.pop("content", store.content))
    feature_matrix(network, store, cache=tmp_path)
    feature_matrix(settings.pop("network"), store_now, cache=tmp_path, **settings)
    assert sum(seen) == 14


def test_one_changed_weight_is_noticed(store, network, tmp_path):
    before = np.array(feature_matrix(network, store, cache=tmp_path))
    with torch.no_grad():
        network.body.block1.bn.bias[0] += 1
    assert not np.array_equal(before, feature_matrix(network, store, cache=tmp_path))


def test_the_network_comes_back_as_it_was(store, network, tmp_path):
    network.train()
    network.body.block1.bn.eval()
    kept = {key: value.clone() for key, value in network.state_dict().items()}
    feature_matrix(network, store, cache=tmp_path)
    assert network.training
    assert not network.body.block1.bn.training
    assert network.body.block2.bn.training
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in kept.items())
    assert network.body.block1.conv.weight.is_contiguous()


def test_bfloat16_agrees_within_its_precision(store, network, tmp_path):
    exact = feature_matrix(network, store, cache=tmp_path)
    rough = feature_matrix(network, store, cache=tmp_path, precision="bfloat16")
    assert 0 < np.abs(exact - rough).max() < 0.05 * np.abs(exact).max()


def test_a_damaged_file_is_computed_again(store, network, tmp_path):
    first = np.array(feature_matrix(network, store, cache=tmp_path))
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(first, feature_matrix(network, store, cache=tmp_path))


def test_an_interrupted_pass_leaves_nothing_behind(store, network, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_pooled", stop)
    with pytest.raises(KeyboardInterrupt):
        feature_matrix(network, store, cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_sentence(store, network, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_2_0", full)
    with pytest.raises(UserError, match="disk is full"):
        feature_matrix(network, store, cache=tmp_path)


def test_infinite_features_are_refused(store, network, tmp_path):
    with torch.no_grad():
        network.body.block4.bn.bias.fill_(float("inf"))
    with pytest.raises(UserError, match="not finite"):
        feature_matrix(network, store, cache=tmp_path)


def test_a_misspelt_view_and_a_wrong_size_are_explained(store, network, tmp_path):
    with pytest.raises(UserError, match="did you mean 'hflip'"):
        feature_matrix(network, store, cache=tmp_path, views=("hflp",))
    with pytest.raises(UserError, match="made for 224"):
        feature_matrix(build_network("vit_tiny_patch16_224"), store, cache=tmp_path)


@pytest.mark.real_data
def test_real_weights_tell_real_classes_apart(real_data, weights_folder, tmp_path):
    """Leave-one-out nearest centroid on a few slices of two classes, grossly separable for a network that sees."""
    from PIL import Image

    images = []
    for name in ("pituitary_tumor", "no_tumor"):
        for path in sorted((real_data / "brain_tumour_4class/Training" / name).glob("*.jpg"))[:12]:
            images.append(np.asarray(Image.open(path).convert("L").resize((96, 96))))
    store = Pixels(np.stack(images)[:, None], "real")
    labels = np.repeat([0, 1], 12)
    network = build_network("resnet18", until="layer3")
    apply_weights(network, str(weights_folder / "resnet18.imagenet-through-layer3.safetensors"))
    found = np.array(feature_matrix(network, store, cache=tmp_path)[0])
    right = 0
    for row in range(24):
        rest = np.arange(24) != row
        centres = [found[rest & (labels == c)].mean(0) for c in (0, 1)]
        right += int(np.argmin([np.linalg.norm(found[row] - centre) for centre in centres])) == labels[row]
    assert right >= 18
