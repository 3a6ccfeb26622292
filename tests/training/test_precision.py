"""A number format is chosen where it is measurably faster and agrees with float32, and never otherwise."""

import json
import time

import numpy as np
import pytest
import torch

from mrtransfer.common.errors import UserError
from mrtransfer.models.network import build_network
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.training.precision import (
    FLOAT32,
    Precision,
    choose_device,
    choose_precision,
    placed,
    precision_for_training,
)

LOGITS = torch.tensor([[1.0, -2.0], [0.5, 3.0]])


def steps(seconds, error):
    """A training that takes ``seconds`` per step and is off by ``error``, by name of the setting."""

    def make(precision):
        def step():
            time.sleep(seconds[precision.name])
            return LOGITS * (1 + error.get(precision.name, 0.0))

        return step

    return make


PLAIN, LAST, HALF = "float32", "float32 channels_last", "bfloat16 channels_last"


@pytest.mark.parametrize(
    ("seconds", "error", "expected"),
    [
        ({PLAIN: 0.03, LAST: 0.03, HALF: 0.01}, {}, HALF),
        ({PLAIN: 0.03, LAST: 0.01, HALF: 0.02}, {}, LAST),
        ({PLAIN: 0.01, LAST: 0.03, HALF: 0.03}, {}, PLAIN),
        ({PLAIN: 0.03, LAST: 0.03, HALF: 0.01}, {HALF: 0.2}, PLAIN),
        ({PLAIN: 0.03, LAST: 0.03, HALF: 0.01}, {HALF: float("nan")}, PLAIN),
    ],
    ids=["faster", "layout alone", "slower", "disagrees", "not a number"],
)
def test_the_fastest_setting_that_agrees_is_chosen_and_the_measurement_is_kept(seconds, error, expected):
    chosen = choose_precision(steps(seconds, error))
    assert chosen.name == expected
    assert set(chosen.measured["seconds_per_step"]) == {PLAIN, LAST, HALF}


def test_a_forced_choice_is_not_measured():
    assert choose_precision(steps({}, {}), "float32") == FLOAT32
    assert choose_precision(steps({}, {}), "bfloat16") == Precision("bfloat16", True)


def test_the_choice_survives_json():
    chosen = choose_precision(steps({PLAIN: 0.01, LAST: 0.01, HALF: 0.01}, {HALF: float("nan")}))
    assert Precision.from_json(json.loads(json.dumps(chosen.to_json(), allow_nan=False))) == chosen


def test_measuring_leaves_the_modules_as_they_were():
    backbone = build_network("cbr_tiny")
    head = build_head("mlp", backbone.features, 3)
    before = [tensor.clone() for module in (backbone, head) for tensor in module.state_dict().values()]
    images = np.random.default_rng(0).integers(0, 255, (8, 1, 32, 32), dtype=np.uint8)
    settings = {"normalise": "half", "channels": 3}
    chosen = precision_for_training(backbone, head, images, input=settings, batch=4)
    assert chosen.measured["difference"]["float32 channels_last"] < 1e-3
    after = [tensor for module in (backbone, head) for tensor in module.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    forced = precision_for_training(backbone, head, images, input=settings, batch=4, requested="bfloat16")
    assert forced == Precision("bfloat16", True)


def test_modules_come_back_in_the_usual_layout():
    backbone = build_network("cbr_tiny")
    with placed(Precision("bfloat16", True), "cpu", backbone):
        assert not all(tensor.is_contiguous() for tensor in backbone.state_dict().values())
    assert all(tensor.is_contiguous() for tensor in backbone.state_dict().values())


def test_devices_that_are_not_there_are_refused():
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match="device"):
        choose_device("gpuu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="use auto or cpu"):
            choose_device("cuda")
