"""Methods are found by name, refuse what they do not know, and write themselves down in full."""

import json

import pytest
from pydantic import BaseModel

from mrtransfer.common.errors import UserError
from mrtransfer.transfer.method import Adaptation, Method, parse_method
from mrtransfer.transfer.methods import METHODS


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_has_a_name_a_summary_and_defaults_that_survive_json(name):
    method = parse_method(name)
    assert method.name == name
    assert METHODS.summaries()[name]
    written = json.loads(json.dumps(method.model_dump()))
    assert parse_method(written) == method


def test_the_four_methods_of_the_classification_studies_are_there():
    assert {"scratch", "linear_probe", "mlp_probe", "fine_tune"} <= set(METHODS.names())
    assert [name for name in METHODS.names() if METHODS.get(name).cached] == ["linear_probe", "mlp_probe"]


def test_only_methods_that_train_the_network_have_steps_and_a_rhythm_of_validation():
    for name in ("scratch", "fine_tune"):
        method = parse_method({"name": name, "steps": 250, "validate_every": 5})
        assert (method.steps, method.validate_every) == (250, 5)
        assert (parse_method(name).steps, parse_method(name).validate_every) == (None, 1)
        for wrong in ({"steps": 0}, {"validate_every": 0}):
            with pytest.raises(UserError, match=next(iter(wrong))):
                parse_method({"name": name, **wrong})
    with pytest.raises(UserError, match="unknown key 'steps'"):
        parse_method({"name": "mlp_probe", "steps": 3})


def test_a_field_declared_as_method_is_written_with_all_settings_of_the_method_at_hand():
    class Arm(BaseModel):
        method: Method

    written = Arm(method=parse_method({"name": "fine_tune", "freeze": "layer2"})).model_dump(mode="json")
    assert written["method"]["name"] == "fine_tune"
    assert written["method"]["freeze"] == "layer2"


def test_a_misspelt_key_is_refused_with_the_nearest_valid_one():
    with pytest.raises(UserError, match=r"method fine_tune: unknown key 'backbone_rte': did you mean 'backbone_rate'"):
        parse_method({"name": "fine_tune", "backbone_rte": 1e-5})


def test_a_misspelt_name_is_refused_with_the_nearest_valid_one():
    with pytest.raises(UserError, match="did you mean 'fine_tune'"):
        parse_method("finetune")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"name": "scratch", "epochs": 0}, "epochs"),
        ({"name": "scratch", "rate": -1}, "rate"),
        ({"name": "fine_tune", "batch_norm": "sometimes"}, "batch_norm"),
        ({"name": "linear_probe", "l2": []}, "l2"),
        ({"name": "linear_probe", "l2": [0.1, -1]}, "l2"),
        ({"name": "mlp_probe", "hidden": [10, 0]}, "hidden"),
        ({"epochs": 3}, "name"),
    ],
)
def test_bad_settings_are_refused_and_named(settings, key):
    with pytest.raises(UserError, match=key):
        parse_method(settings)


def test_the_tumour_detection_recipe_can_be_said():
    method = parse_method(
        {
            "name": "mlp_probe",
            "hidden": [256, 128],
            "dropout": 0.3,
            "optimizer": "sgd",
            "rate": 1e-4,
            "momentum": 0.5,
            "weight_decay": 0,
            "schedule": "constant",
            "batch": 8,
            "epochs": 30,
            "standardise": False,
        }
    )
    assert (method.rate, method.momentum, method.batch, method.epochs) == (1e-4, 0.5, 8, 30)


def test_regularisations_are_kept_in_rising_order_and_a_single_number_will_do():
    assert parse_method({"name": "linear_probe", "l2": [1.0, 0.01]}).l2 == (0.01, 1.0)
    assert parse_method({"name": "linear_probe", "l2": 0.5}).l2 == (0.5,)


def test_only_a_linear_head_starts_from_the_probe():
    assert parse_method("fine_tune").starts_from_probe
    assert not parse_method({"name": "fine_tune", "head": "mlp"}).starts_from_probe
    assert not parse_method("scratch").starts_from_probe


ADAPTATIONS = {"adaptive_batch_norm", "dann", "dan", "deep_coral", "mcc"}


def test_methods_that_need_no_labels_of_the_target_say_so():
    assert {name for name in METHODS.names() if not METHODS.get(name).labels} == ADAPTATIONS
    for name in ADAPTATIONS:
        method = parse_method(name)
        assert isinstance(method, Adaptation)
        assert (method.select, method.head, method.starts_from_probe) == ("last", "linear", False)
        assert method.learns
        assert not method.cached


def test_an_adaptation_begins_with_the_sources_head_and_so_with_no_probe():
    with pytest.raises(UserError, match=r"method dann: head_start"):
        parse_method({"name": "dann", "head_start": "probe"})


@pytest.mark.parametrize(
    "settings", [{"rate": 1e-3}, {"epochs": 3}, {"freeze": "layer1"}, {"class_weights": "balanced"}]
)
def test_adaptive_batch_norm_trains_nothing_and_refuses_settings_of_training(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        parse_method({"name": "adaptive_batch_norm", **settings})
    assert parse_method({"name": "adaptive_batch_norm", "batch": 64, "steps": 5}).epochs == 0
