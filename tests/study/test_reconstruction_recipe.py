"""Recipes of reconstruction: their defaults, and every mistake as one sentence that names the key."""

import pytest
import yaml

from mrtransfer.augment.kspace import MRAugment
from mrtransfer.common.errors import UserError
from mrtransfer.models.reconstructors import RECONSTRUCTORS
from mrtransfer.study.recipe import load_recipe, parse_recipe
from mrtransfer.study.recipe.reconstruction import ReconstructionRecipe
from mrtransfer.study.tasks.reconstruction import ReconstructionWorkshop

MINIMAL = {
    "question": "Does it help?",
    "task": "reconstruction",
    "target": {"dataset": "phantom", "task": "reconstruction", "subjects": 6},
    "source": {"dataset": "phantom", "task": "reconstruction", "anatomy": "knee", "subjects": 6},
    "arms": {
        "scratch": {"network": "varnet", "method": "scratch"},
        "tuned": {"network": "varnet", "weights": "some/model", "method": "fine_tune"},
    },
}


def with_arm(**fields):
    return {**MINIMAL, "arms": {"only": {"network": "varnet", "method": "scratch", **fields}}}


def classical(**fields):
    return {**MINIMAL, "arms": {"only": {"network": "zero_filled", **fields}}}


def test_a_minimal_recipe_gets_the_stated_defaults():
    recipe = parse_recipe(MINIMAL)
    assert isinstance(recipe, ReconstructionRecipe)
    assert recipe.metric == "ssim"
    assert recipe.sampling.acceleration == (4, 8)
    assert recipe.sampling.centre_fraction == (0.08, 0.04)
    assert (recipe.arms["scratch"].loss, recipe.arms["scratch"].augment) == ("ssim", None)
    assert recipe.comparisons == (("tuned", "scratch"),)


@pytest.mark.parametrize("name", RECONSTRUCTORS.names())
def test_only_a_network_without_parameters_is_classical_and_need_not_say_so(name):
    data = {**MINIMAL, "arms": {"only": {"network": name}}}
    if name in ("varnet", "unet"):
        with pytest.raises(UserError, match=r"arms\.only\.method: Field required"):
            parse_recipe(data)
    else:
        assert parse_recipe(data).arms["only"].method.name == "classical"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("none", None), (None, None), ("mraugment", MRAugment()), ({"strength": 0.3}, MRAugment(strength=0.3))],
)
def test_augmentation_is_a_word_or_settings(written, meant):
    assert parse_recipe(with_arm(augment=written)).arms["only"].augment == meant


@pytest.mark.parametrize(
    ("said", "learned"),
    [({}, [None, MRAugment()]), ({"augment": "arm"}, [None, MRAugment()]), ({"augment": "none"}, [None, None]),
     ({"augment": "mraugment"}, [MRAugment(), MRAugment()])],
)  # fmt: skip
def test_the_source_is_learned_with_the_arms_augmentation_unless_it_says(said, learned):
    arms = {
        "plain": {"network": "unet", "weights": "source", "method": "zero_shot", "loss": "l1"},
        "moved": {"network": "unet", "weights": "source", "method": "zero_shot", "augment": "mraugment"},
    }
    recipe = parse_recipe({**MINIMAL, "source": {**MINIMAL["source"], **said}, "arms": arms})
    workshop = ReconstructionWorkshop(recipe, None, None, None)
    found = [workshop.source_arm(arm) for arm in recipe.arms.values()]
    assert [arm.augment for arm in found] == learned
    assert [arm.loss for arm in found] == ["l1", "ssim"]
    assert {arm.method.name for arm in found} == {"scratch"}


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (with_arm(network="varnett"), "arms.only.network: unknown reconstruction 'varnett': did you mean 'varnet'?"),
        (with_arm(network={"name": "varnet", "cascade": 3}), "unknown key 'cascade': did you mean 'cascades'?"),
        (with_arm(network={"name": "varnet", "cascades": 0}), "network varnet: cascades"),
        (with_arm(network={"name": "varnet", "until": "sens_net"}), "until: a reconstruction network cannot be cut"),
        (with_arm(loss="ssmi"), "arms.only.loss: unknown loss 'ssmi': did you mean 'ssim'?"),
        (with_arm(loss={"ssim": 0.8, "l1": -1}), "arms.only.loss: the weight of l1 is -1"),
        (with_arm(augment={"hflp": 0.5}), "arms.only.augment: unknown key 'hflp': did you mean 'hflip'?"),
        (with_arm(augment="mragment"), "arms.only.augment: unknown augmentation 'mragment': did you mean 'mraugment'?"),
        (with_arm(method="linear_probe"), "linear_probe is for classification; reconstruct with scratch, fine_tune"),
        (with_arm(method={"name": "scratch", "class_weights": "balanced"}), "class_weights: is for classification"),
        (with_arm(method={"name": "scratch", "head": "mlp"}), "head: mlp is for classification"),
        (with_arm(method={"name": "fine_tune", "backbone_rate": 1e-5}), "backbone_rate: a reconstruction has no head"),
        (with_arm(method="classical"), "classical is not for varnet, which has parameters to be trained"),
        (with_arm(method="zero_shot"), "method zero_shot: needs a trained model; set weights: source, or name a file"),
        (with_arm(weights="imagenet"), "arms.only.weights: imagenet is for networks that see images"),
        (with_arm(weights="mean_var"), "arms.only.weights: mean_var is for networks that see images"),
        (with_arm(weights="sorce"), "arms.only.weights: unknown weights 'sorce': did you mean 'source'?"),
        (with_arm(weights={"kind": "source", "trained_on": ["val"]}), "trained_on: is about a file"),
        (with_arm(weights={"file": "a.pt", "trained_on": ["vall"]}), "unknown split 'vall': did you mean 'val"),
        (classical(method="scratch"), "method: scratch is not for zero_filled, which has no parameters; leave method"),
        (classical(weights="source"), "weights: zero_filled has no parameters to give values to; leave weights out"),
        (classical(network={"name": "sense", "iterations": 0}), "network sense: iterations"),
        ({**MINIMAL, "source": {**MINIMAL["source"], "weights": "source"}}, "source.weights: the source cannot start"),
        ({**MINIMAL, "source": {**MINIMAL["source"], "method": "classical"}}, "classical changes no network"),
        ({**MINIMAL, "source": {**MINIMAL["source"], "augment": "arms"}}, "unknown augmentation 'arms'"),
        ({**MINIMAL, "sampling": {"mask": "randm", "acceleration": 4, "centre_fraction": 0.08}}, "did you mean 'rand"),
        ({**MINIMAL, "sampling": {"mask": "random", "acceleration": 0.5, "centre_fraction": 0.08}}, "1 (all lines) or"),
        (
            {**MINIMAL, "sampling": {"mask": "random", "acceleration": [4, 4], "centre_fraction": [0.08, 0.04]}},
            "sampling: acceleration: each may be there once",
        ),
        (with_arm(method={"name": "fine_tune", "freeze": "all"}), "freeze: all leaves nothing to train"),
        (
            {**MINIMAL, "target": {**MINIMAL["target"], "split": {"test": 1}}},
            "target.split.test: 1 leaves nothing that arm 'scratch' could learn from",
        ),
        (
            {**classical(), "target": {**MINIMAL["target"], "split": {"test": 1}}, "budgets": [4]},
            "budgets: with target.split.test: 1 nothing is labelled",
        ),
        ({**MINIMAL, "input": {"size": 64}}, "unknown key 'input'"),
        ({**MINIMAL, "metric": "dice"}, "metric: unknown metric 'dice'"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(data, named):
    with pytest.raises(UserError, match=r"^mine\.yaml: ") as caught:
        parse_recipe(data, where="mine.yaml")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        {"question": "?", "target": {"dataset": "folder"}, "arms": {"a": {"network": "resnet18"}}},
        {
            "question": "?",
            "task": "segmentation",
            "target": {"dataset": "phantom"},
            "arms": {"a": {"network": "unet"}},
        },
    ],
)
def test_other_tasks_have_nothing_classical(data):
    data["arms"]["a"]["method"] = "classical"
    with pytest.raises(UserError, match="classical is for reconstructions without parameters"):
        parse_recipe(data)


@pytest.mark.parametrize(("given", "rate"), [({}, 1e-4), ({"rate": 3e-4}, 3e-4)])
def test_fine_tuning_has_one_rate(given, rate):
    method = parse_recipe(with_arm(weights="source", method={"name": "fine_tune", **given})).arms["only"].method
    assert (method.rate, method.backbone_rate) == (rate, rate)


def test_what_is_written_reads_back_as_the_same():
    arms = {
        "zero": {"network": "zero_filled"},
        "as it is": {"network": "varnet", "weights": "source", "method": "zero_shot", "augment": "mraugment"},
        "tuned": {"network": "varnet", "weights": "source", "method": {"name": "fine_tune", "rate": 3e-4}},
        "mixed": {"network": "unet", "method": {"name": "scratch", "batch": 3}, "loss": {"ssim": 0.8, "l1": 0.2}},
    }
    recipe = parse_recipe({**MINIMAL, "arms": arms})
    again = parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json", exclude={"vary", "shared"}))))
    assert again.model_dump() == recipe.model_dump()
    assert "batch" in again.arms["mixed"].method.model_fields_set
    assert "batch" not in again.source.method.model_fields_set


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_the_bundled_recipe_crosses_augmentation_with_transfer(profile):
    published = load_recipe("knee-to-brain", ["source.path=knee", "target.path=brain"], profile)
    phantom = load_recipe("knee-to-brain", [], profile)
    for recipe in (published, phantom):
        learned = {name: arm for name, arm in recipe.arms.items() if arm.method.name != "classical"}
        crossed = {(arm.weights, arm.method.name, arm.augment is not None) for arm in learned.values()}
        ways = {("random", "scratch"), ("source", "zero_shot"), ("source", "fine_tune")}
        assert crossed == {(*way, augmented) for way in ways for augmented in (False, True)}
        assert {arm.network.name for arm in recipe.arms.values()} == {"varnet", "zero_filled", "l1_wavelet"}
        assert recipe.source.augment == "arm"
    assert (published.target.dataset, published.source.options["anatomy"]) == ("fastmri", "knee")
    assert published.arms["scratch"].network.options == {}
    assert (phantom.target.dataset, phantom.source.options["anatomy"]) == ("phantom", "knee")
