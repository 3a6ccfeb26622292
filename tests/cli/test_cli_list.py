"""What ``mrtransfer list`` shows is what a recipe accepts."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mrtransfer.cli import list_
from mrtransfer.cli.main import app


def listed(*arguments: str) -> dict[str, dict[str, str]]:
    result = CliRunner().invoke(app, ["list", *arguments, "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_all_kinds_are_listed_and_every_entry_says_what_it_is():
    everything = listed()
    assert list(everything)[:5] == ["methods", "models", "datasets", "weights", "recipes"]
    assert list(everything)[5:] == ["features", "distances", "scores", "harmonisers"]
    for entries in everything.values():
        assert entries
        assert all(entries.values())


def test_methods_and_datasets_are_those_of_the_registries():
    assert {"scratch", "linear_probe", "mlp_probe", "fine_tune"} <= set(listed("methods")["methods"])
    assert {"folder", "figshare", "lgg", "table"} <= set(listed("datasets")["datasets"])


def test_questions_of_the_recipes_equal_what_a_yaml_parser_reads():
    yaml = pytest.importorskip("yaml")
    for name, question in listed("recipes")["recipes"].items():
        path = list_.RECIPES / f"{name}.yaml"
        assert question == " ".join(yaml.safe_load(path.read_text(encoding="utf-8"))["question"].split())


def test_a_pattern_narrows_the_list():
    assert set(listed("methods", "probe")["methods"]) == {"linear_probe", "mlp_probe"}
    assert set(listed("methods", "*probe")["methods"]) == {"linear_probe", "mlp_probe"}


def test_a_pattern_for_models_searches_timm():
    assert {"resnet18", "resnet18d"} <= set(listed("models", "resnet18")["models"])


def test_segmentation_networks_are_among_the_models_and_say_so():
    models = listed("models")["models"]
    assert {"unet", "resunet", "unet3d", "residual_unet", "dynunet", "cbr_tiny"} <= set(models)
    assert models["unet3d"].startswith("Segmentation: 3-D U-Net of Çiçek")
    assert not models["cbr_tiny"].startswith("Segmentation")


def test_reconstructions_are_among_the_models_and_a_name_of_two_tasks_is_told_for_both():
    models = listed("models")["models"]
    assert {"varnet", "zero_filled", "sense", "l1_wavelet", "unet"} <= set(models)
    assert models["varnet"].startswith("Reconstruction: End-to-end variational network")
    assert models["unet"].startswith("Segmentation: ")
    assert "Reconstruction: U-Net of fastMRI" in models["unet"]


def test_listing_networks_imports_no_torch():
    code = (
        "import sys, mrtransfer.cli.list_ as l; l.models(); sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_named_kind_of_weights_is_accepted_by_a_recipe():
    weights = pytest.importorskip("mrtransfer.models.weights")
    for name in list_.WEIGHTS:
        if name != "FILE":
            assert weights.parse_weights(name).kind == name


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["metods"], "did you mean 'methods'?"), (["methods", "fine_tnue"], "did you mean 'fine_tune'?")],
)
def test_a_misspelt_name_is_answered_with_the_nearest_one(arguments, sentence):
    result = CliRunner().invoke(app, ["list", *arguments])
    assert result.exit_code == 2
    assert sentence in result.stderr
