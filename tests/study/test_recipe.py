"""Recipes are checked in full, and every problem is one sentence that names the key."""

from pathlib import Path

import pytest
import yaml

from mrtransfer.common.errors import UserError
from mrtransfer.study.recipe import bundled_recipes, load_recipe, parse_recipe

MINIMAL = {
    "question": "Does it help?",
    "target": {"dataset": "phantom", "contrast": "t2", "subjects": 20},
    "arms": {
        "scratch": {"network": "cbr_tiny", "method": "scratch"},
        "frozen": {"network": "cbr_tiny", "method": "linear_probe"},
    },
}


def with_arm(**fields):
    return {**MINIMAL, "arms": {"only": {"network": "cbr_tiny", "method": "scratch", **fields}}}


def test_a_minimal_recipe_gets_the_stated_defaults():
    recipe = parse_recipe(MINIMAL)
    assert recipe.budgets == ("all",)
    assert recipe.seeds == (0,)
    assert recipe.target.split.fold_count == 5
    assert recipe.target.split.by == ("subject", "cluster")
    assert recipe.target.options == {"contrast": "t2", "subjects": 20}
    assert recipe.comparisons == (("frozen", "scratch"),)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({**MINIMAL, "budgtes": [10]}, "did you mean 'budgets'"),
        (with_arm(netwrok="resnet18"), "did you mean 'network'"),
        (with_arm(method="fine_tun"), "did you mean 'fine_tune'"),
        (with_arm(method={"name": "fine_tune", "epoch": 3}), "did you mean 'epochs'"),
        (with_arm(method={"name": "fine_tune", "epochs": 0}), "epochs"),
        ({**MINIMAL, "target": {"dataset": "phantm"}}, "did you mean 'phantom'"),
        ({**MINIMAL, "target": {"dataset": "phantom", "contrasts": "t2"}}, "did you mean 'contrast'"),
        ({**MINIMAL, "compare": [["frozen", "scrach"]]}, "did you mean 'scratch'"),
        ({**MINIMAL, "budgets": [0]}, "at least 1"),
        ({**MINIMAL, "seeds": 0}, "seeds"),
        ({**MINIMAL, "target": {**MINIMAL["target"], "split": {"folds": 5, "test": 0.2}}}, "one of folds, test"),
        (with_arm(weights="source"), "no source"),
        ({**MINIMAL, "arms": {}}, "at least one"),
        ({**MINIMAL, "source": {"dataset": "phantom", "method": "linear_probe"}}, "learned with scratch or fine_tune"),
    ],
)
def test_a_mistake_is_named_with_the_nearest_valid_word(data, named):
    with pytest.raises(UserError, match=r"^mine\.yaml: ") as caught:
        parse_recipe(data, where="mine.yaml")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_reach_any_field_whatever_their_order():
    given = ["arms.scratch.method.epochs=3", "budgets=[8, all]", "seeds=2"]
    for overrides in (given, given[::-1]):
        recipe = parse_recipe(MINIMAL, overrides)
        assert recipe.arms["scratch"].method.epochs == 3
        assert recipe.budgets == (8, "all")
        assert recipe.seeds == (0, 1)


def test_another_dataset_drops_the_options_of_the_former_one_but_keeps_the_split(tmp_path):
    data = {**MINIMAL, "target": {**MINIMAL["target"], "split": {"folds": 3}}}
    recipe = parse_recipe(data, [f"target.path={tmp_path}", "target.dataset=folder"])
    assert recipe.target.options == {}
    assert recipe.target.path == str(tmp_path)
    assert recipe.target.split.folds == 3


def test_the_phantom_stands_in_only_where_no_path_is_given():
    data = {
        **MINIMAL,
        "target": {"dataset": "folder"},
        "phantom": {"target": {"dataset": "phantom", "subjects": 7}},
    }
    assert parse_recipe(data).target.dataset == "phantom"
    assert parse_recipe(data, ["target.path=scans"]).target.dataset == "folder"


def test_the_first_profile_is_the_default_and_an_unknown_one_is_refused():
    data = {**MINIMAL, "profiles": {"quick": {"seeds": 1}, "full": {"seeds": 10}}}
    assert len(parse_recipe(data).seeds) == 1
    assert len(parse_recipe(data, profile="full").seeds) == 10
    with pytest.raises(UserError, match="did you mean 'full'"):
        parse_recipe(data, profile="ful")


def test_vary_crosses_every_level_of_every_field():
    data = {key: value for key, value in MINIMAL.items() if key != "arms"} | {
        "shared": {"weights": "random"},
        "vary": {
            "network": ["cbr_tiny", "cbr_small"],
            "method": {"frozen": "linear_probe", "retrained": {"name": "fine_tune", "epochs": 2}},
            "augment": {"flip": {"hflip": 0.5}, "no flip": {}},
        },
    }
    arms = parse_recipe(data).arms
    assert len(arms) == 8
    assert arms["cbr_small · retrained · flip"].method.epochs == 2
    assert arms["cbr_small · retrained · flip"].augment.hflip == 0.5
    assert arms["cbr_tiny · frozen · no flip"].augment.hflip == 0


def test_frozen_features_refuse_augmentation_that_would_change_them_every_epoch():
    with pytest.raises(UserError, match=r"augment\.rotate cannot be used"):
        parse_recipe(with_arm(method="linear_probe", augment={"rotate": 10}))


def test_a_file_that_is_no_yaml_or_absent_is_named(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("question: [unclosed")
    with pytest.raises(UserError, match=r"broken\.yaml: not valid YAML"):
        load_recipe(broken)
    with pytest.raises(UserError, match=r"absent.yaml: no such recipe file"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="unknown recipe 'tumor-classification': did you mean 'tumour-classification'"):
        load_recipe("tumor-classification")


@pytest.mark.parametrize("name", sorted(bundled_recipes()))
def test_every_bundled_recipe_is_valid_in_every_profile_with_and_without_a_path(name):
    data = yaml.safe_load(bundled_recipes()[name].read_text())
    for profile in data.get("profiles") or [None]:
        load_recipe(name, profile=profile)
        if "phantom" in data:
            assert load_recipe(name, ["target.path=scans"], profile).target.path == "scans"


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "docs/examples").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_example_of_the_documentation_is_valid(path):
    assert load_recipe(path, ["target.path=scans"]).question


def test_mirroring_is_refused_for_networks_that_never_saw_mirror_images():
    arm = {"network": "residual_unet", "method": "scratch", "augment": {"flip": [0.5, 0, 0.5]}}
    target = {"dataset": "phantom", "task": "segmentation"}
    recipe = {"question": "?", "task": "segmentation", "target": target, "arms": {"plain": arm}}
    with pytest.raises(UserError, match=r"inference.mirror: arm 'plain' never sees mirror images along y in training"):
        parse_recipe({**recipe, "inference": {"mirror": True}})
    assert parse_recipe({**recipe, "inference": {"mirror": ["x", "z"]}}).inference.mirror == ("x", "z")
    seen = {**arm, "augment": {"flip": 0.5}}
    assert parse_recipe({**recipe, "arms": {"plain": seen}, "inference": {"mirror": True}}).inference.mirror == (
        "x",
        "y",
        "z",
    )


def test_another_way_to_split_takes_the_place_of_the_former():
    recipe = load_recipe("demo", ["target.split.test=0.2"])
    assert (recipe.target.split.folds, recipe.target.split.test) == (None, 0.2)
