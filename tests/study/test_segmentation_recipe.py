"""Recipes of segmentation: their defaults, and every mistake as one sentence that names the key."""

import pytest
import yaml

from mrtransfer.common.errors import UserError
from mrtransfer.study.recipe import load_recipe, parse_recipe
from mrtransfer.study.recipe.segmentation import SegmentationRecipe
from mrtransfer.transfer.method import parse_method

MINIMAL = {
    "question": "Does it help?",
    "task": "segmentation",
    "target": {"dataset": "phantom", "task": "segmentation", "subjects": 6},
    "arms": {
        "scratch": {"network": "unet3d", "method": "scratch"},
        "tuned": {"network": "unet3d", "weights": "some/model", "method": "fine_tune"},
    },
}


def with_arm(**fields):
    return {**MINIMAL, "arms": {"only": {"network": "unet3d", "method": "scratch", **fields}}}


def test_a_minimal_recipe_gets_the_stated_defaults():
    recipe = parse_recipe(MINIMAL)
    assert isinstance(recipe, SegmentationRecipe)
    assert (recipe.metric, recipe.plan) == ("dice", {})
    assert recipe.arms["scratch"].loss == "dice_ce"
    assert not recipe.arms["scratch"].augment.active
    assert recipe.inference.model_dump() == {"overlap": 0.5, "mirror": (), "clean": "validation"}
    assert recipe.comparisons == (("tuned", "scratch"),)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (with_arm(loss="dice_cee"), "arms.only.loss: unknown loss 'dice_cee': did you mean 'dice_ce'?"),
        (with_arm(network="unet3"), "arms.only.network: unknown segmentation network 'unet3': did you mean 'unet3d'"),
        (with_arm(network="resnet18"), "unknown segmentation network 'resnet18'"),
        (with_arm(network={"name": "unet3d", "widht": 8}), "unknown key 'widht': did you mean 'width'?"),
        (with_arm(network={"name": "unet3d", "width": 0}), "width"),
        (with_arm(network={"name": "unet", "depth": 9}), "network unet: depth"),
        (with_arm(network={"name": "unet3d", "dims": 4}), "dims: 4 is neither 2 nor 3"),
        (with_arm(network={"name": "unet", "until": "layer2"}), "until: a segmentation network cannot be cut"),
        (with_arm(method="linear_probe"), "linear_probe is for classification; segment with scratch, fine_tune or"),
        (with_arm(method={"name": "scratch", "class_weights": "balanced"}), "class_weights: is for classification"),
        (with_arm(method={"name": "scratch", "head": "mlp"}), "head: mlp is for classification"),
        (with_arm(method={"name": "scratch", "stepps": 4}), "did you mean 'steps'"),
        (with_arm(augment={"hflip": 0.5}), "arms.only.augment: unknown key 'hflip'"),
        (with_arm(normalise="unit"), "arms.only: unknown key 'normalise'"),
        ({**MINIMAL, "input": {"size": 64}}, "unknown key 'input'"),
        ({**MINIMAL, "plan": {"pacth": [16, 16, 16]}}, "plan: unknown key 'pacth': did you mean 'patch'?"),
        ({**MINIMAL, "inference": {"overlap": 1}}, "inference.overlap"),
        ({**MINIMAL, "inference": {"clean": "always"}}, "inference.clean"),
        ({**MINIMAL, "inference": {"mirror": True}}, "inference.mirror: arm 'scratch' never sees mirror images"),
        ({**MINIMAL, "metric": "accurcy"}, "did you mean 'accuracy'"),
        ({**MINIMAL, "metric": "auroc"}, "metric: unknown metric 'auroc'"),
        ({**MINIMAL, "source": {"dataset": "phantom", "method": "zero_shot"}}, "zero_shot changes no network"),
        ({**MINIMAL, "source": {"dataset": "phantom", "augment": {"flips": 1}}}, "did you mean 'flip'"),
        ({**MINIMAL, "task": "segmentaton"}, "unknown task 'segmentaton': did you mean 'segmentation'?"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(data, named):
    with pytest.raises(UserError, match=r"^mine\.yaml: ") as caught:
        parse_recipe(data, where="mine.yaml")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chosen", [{}, {"batch": 32}], ids=["the plan's", "chosen"])
def test_what_is_written_reads_back_as_the_same_batch(chosen):
    """``batch`` is the plan's where nobody chose one, though methods have a default for classification."""
    source = {"dataset": "phantom", "task": "segmentation", "method": {"name": "scratch", **chosen}}
    recipe = parse_recipe({**with_arm(method={"name": "scratch", **chosen}), "source": source})
    again = parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json", exclude={"vary", "shared"}))))
    assert again.model_dump() == recipe.model_dump()
    for method in (again.arms["only"].method, again.source.method):
        assert ("batch" in method.model_fields_set) == bool(chosen)
        assert method.batch == 32


@pytest.mark.parametrize(
    ("given", "rates"),
    [
        ({}, (1e-3, 1e-3)),
        ({"rate": 3e-4}, (3e-4, 3e-4)),
        ({"backbone_rate": 1e-5}, (1e-3, 1e-5)),
        ({"rate": 1e-4, "backbone_rate": None}, (1e-4, None)),
    ],
)
def test_fine_tuning_has_rates_for_heads_that_no_probe_began(given, rates):
    """The defaults of ``fine_tune`` are for classification; of segmentation the recipe says its own."""
    method = {"name": "fine_tune", **given}
    source = {"dataset": "phantom", "task": "segmentation", "method": method}
    recipe = parse_recipe({**with_arm(method=method), "source": source})
    written = recipe.model_dump(mode="json", exclude={"vary", "shared"})
    for read in (recipe, parse_recipe(written)):
        for own in (read.arms["only"].method, read.source.method):
            assert (own.rate, own.backbone_rate) == rates
    assert (written["arms"]["only"]["method"]["rate"], parse_method("fine_tune").rate) == (rates[0], 1e-4)


def test_arms_fill_in_what_is_shared_and_vary_crosses():
    data = {
        **{key: value for key, value in MINIMAL.items() if key != "arms"},
        "shared": {"network": {"name": "residual_unet", "norm": "batch"}, "augment": {"flip": [0.5, 0, 0]}},
        "vary": {"loss": ["dice", "focal_tversky"], "method": {"long": {"name": "scratch", "epochs": 9}}},
    }
    arms = parse_recipe(data).arms
    assert {arm.loss for arm in arms.values()} == {"dice", "focal_tversky"}
    for arm in arms.values():
        assert arm.network.options == {"norm": "batch"}
        assert arm.augment.active
        assert arm.method.epochs == 9


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_the_bundled_recipe_asks_about_the_modalities(profile):
    phantom, real = (load_recipe("modality-transfer", given, profile) for given in ((), ["target.path=scans"]))
    for recipe in (phantom, real):
        assert recipe.target.options["contrast" if recipe is phantom else "channels"] == [
            "t2",
            "t1",
        ]  # paired by contrast
        assert recipe.source.options["contrast" if recipe is phantom else "channels"] == ["flair", "t1ce"]
        assert recipe.arms["source as is"].method.learns is False
        assert recipe.comparisons[0] == ("fine-tuned", "scratch")
    assert real.arms["scratch"].network.name == "unet3d"
