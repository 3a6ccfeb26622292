import json

import pytest
import torch
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.models.network import build_network
from mrtransfer.models.package import load_model, save_model
from mrtransfer.models.weights import apply_weights

SPEC = {
    "task": "classification",
    "size": 64,
    "fit": "stretch",
    "input": {"normalise": "imagenet", "channels": 3},
    "classes": ["a", "b"],
    "provenance": {"row_digests": ["x", "y"]},
    "metrics": {"accuracy": 0.9},
}


def mlp(features):
    return nn.Sequential(nn.Linear(features, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))


@pytest.fixture
def saved(tmp_path):
    network = build_network("resnet18", until="layer1", in_channels=3, seed=5)
    return save_model(tmp_path / "model", network, mlp(64), SPEC), network


def test_a_model_comes_back_with_the_same_outputs(tmp_path):
    network, head = build_network("resnet18", until="layer1", seed=5).eval(), mlp(64).eval()
    loaded = load_model(save_model(tmp_path / "model", network, head, SPEC))
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(loaded.head(loaded.network(x)), head(network(x)))
    assert not loaded.network.training
    assert not loaded.head.training
    assert loaded.spec["classes"] == ["a", "b"]
    assert loaded.spec["metrics"] == {"accuracy": 0.9}
    assert loaded.spec["network"] == {"name": "resnet18", "in_channels": 3, "until": "layer1"}


def test_the_folder_holds_two_readable_files_and_no_pickle(saved):
    folder, _ = saved
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    assert json.loads((folder / "model.json").read_text())["format"] == 1


def test_the_folder_can_be_used_as_weights_and_carries_its_provenance(saved):
    folder, network = saved
    fresh = build_network("resnet18", until="layer1", seed=0)
    report = apply_weights(fresh, str(folder))
    assert torch.equal(fresh.body.conv1.weight, network.body.conv1.weight)
    assert report.counts["fresh"] == 0
    assert report.provenance["trained_on"] == {"row_digests": ["x", "y"]}


def test_saving_again_replaces_the_model(saved):
    folder, _ = saved
    save_model(folder, build_network("cbr_tiny"), mlp(256), SPEC)
    assert load_model(folder).network.name == "cbr_tiny"


def test_halves_of_two_models_are_not_taken_for_one(saved, tmp_path):
    folder, _ = saved
    other = save_model(tmp_path / "other", build_network("resnet18", until="layer1", seed=6), mlp(64), SPEC)
    (other / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"not the file that model.json describes"):
        load_model(folder)


def test_incomplete_and_damaged_folders_are_explained(saved, tmp_path):
    folder, _ = saved
    with pytest.raises(UserError, match=r"no model.json"):
        load_model(tmp_path)
    (folder / "model.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load_model(folder)
    (folder / "model.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match="another version"):
        load_model(folder)


def test_a_spec_must_be_complete_and_a_head_plain(tmp_path):
    with pytest.raises(ValueError, match="classes"):
        save_model(tmp_path, build_network("cbr_tiny"), mlp(256), {k: v for k, v in SPEC.items() if k != "classes"})
    with pytest.raises(TypeError, match="Conv2d"):
        save_model(tmp_path, build_network("cbr_tiny"), nn.Sequential(nn.Conv2d(1, 1, 1)), SPEC)
