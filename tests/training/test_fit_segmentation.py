"""Segmenters learn, note honest scores, survive being killed, and see 2-D and 3-D data alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from states import KilledError, kill_after, same, state_of

from mrtransfer.augment.volume import VolumeAugment
from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.fingerprint import fingerprint
from mrtransfer.data.cases.plan import make_plan
from mrtransfer.data.cases.store import open_cases
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.models.segmentation import build_segmentation_network, pixel_head
from mrtransfer.tasks.segmentation.outputs import outputs, to_classes
from mrtransfer.training.fit_segmentation import precision_for_segmentation, train_segmenter
from mrtransfer.training.precision import FLOAT32, Precision
from mrtransfer.training.sliding import predict_case
from mrtransfer.transfer.method import parse_method

TRAIN, VALIDATION = np.arange(3), np.arange(3, 5)
AUGMENT = VolumeAugment(flip=0.5, rotate=10, noise=0.1)


class Data:
    """Phantom heads with tumours, prepared, and the plan for them."""

    def __init__(self, folder, **options):
        self.manifest = DATASETS.get("phantom")(
            subjects=5, task="segmentation", contrast=["flair", "t1ce"], first_subject=3, **options
        )
        self.labels = self.manifest.mask_labels
        found = fingerprint(self.manifest, TRAIN)
        self.plan = make_plan(found, overrides={"batch": 2, "features": [4, 8]})
        self.cases = open_cases(self.manifest, self.plan, folder)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return Data(tmp_path_factory.mktemp("volumes"), spacing=8)


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    return Data(tmp_path_factory.mktemp("slices"), slices=1, size=48)


def model(data, loss="dice_ce", seed=0, name="residual_unet"):
    network = build_segmentation_network(
        name, in_channels=2, dims=data.plan.dims, features=data.plan.features, strides=data.plan.strides, seed=seed
    )
    return network, pixel_head(network.features, outputs(loss, data.labels), seed=seed)


def run(data, settings=None, *, modules=None, rows=TRAIN, validation=VALIDATION, loss="dice_ce", **options):
    modules = modules or model(data, loss)
    method = parse_method({"name": "scratch", "epochs": 2, "batch": 2, "rate": 3e-3, **(settings or {})})
    result = train_segmenter(
        *modules, method, data.cases, rows, validation, plan=data.plan, labels=data.labels, loss=loss, **options
    )
    return modules, result


@pytest.mark.parametrize("loss", ["dice_ce", "region"])
def test_training_raises_the_dice_and_every_epoch_has_its_row(volumes, loss):
    _, result = run(volumes, {"epochs": 8, "steps": 8, "rate": 2e-2}, loss=loss, augment=AUGMENT)
    rows = result.curves
    assert [row["epoch"] for row in rows] == list(range(9))
    names = {f"{part}_{name}" for part in ("train", "validation") for name in ("loss", "dice", "accuracy")}
    assert all(set(row) == {"epoch"} | names for row in rows)
    assert rows[0]["train_dice"] is None
    assert rows[8]["train_loss"] < rows[1]["train_loss"]
    assert rows[8]["train_dice"] > rows[1]["train_dice"] + 0.1
    assert max(row["validation_dice"] for row in rows) > rows[0]["validation_dice"] + 0.05


def test_slices_are_segmented_like_volumes(slices):
    (network, head), result = run(slices, {"epochs": 3, "steps": 3}, augment=AUGMENT)
    assert slices.plan.patch[2] == 1
    assert result.curves[-1]["validation_loss"] < result.curves[0]["validation_loss"]
    found = predict_case(network, head, slices.cases.image(0), plan=slices.plan, loss="dice_ce")
    assert found.shape == (len(slices.labels.names), *slices.cases.image(0).shape[1:])


def test_validation_scores_are_those_of_a_plain_computation(volumes):
    (network, head), result = run(volumes, {"select": "last", "steps": 3})
    classes, references, losses = [], [], []
    for row in VALIDATION:
        probabilities = predict_case(
            network, head, volumes.cases.image(row), plan=volumes.plan, loss="dice_ce", overlap=0.0
        ).astype(np.float64)
        mask = np.asarray(volumes.cases.mask(row))
        classes.append(to_classes(probabilities, "dice_ce", volumes.labels).ravel())
        references.append(mask.ravel())
        there = np.eye(4)[mask].transpose(3, 0, 1, 2)
        overlap = [2 * (p * t).sum() / (p.sum() + t.sum()) for p, t in zip(probabilities, there, strict=True)]
        losses.append(1 - np.mean(overlap[1:]) - np.log((probabilities * there).sum(0)).mean())
    own, truth = np.concatenate(classes), np.concatenate(references)
    dice = []
    for member in volumes.labels.membership:
        a, b = member[own], member[truth]
        dice.append(2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 1.0)
    row = result.curves[-1]
    assert row["validation_dice"] == pytest.approx(np.mean(dice), abs=1e-6)
    assert row["validation_accuracy"] == pytest.approx((own == truth).mean(), abs=1e-6)
    assert row["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-3)


def test_the_best_epoch_has_the_highest_dice_and_its_weights_are_kept(volumes):
    settings = {"epochs": 6, "rate": 0.03, "schedule": "constant", "validate_every": 2, "steps": 2}
    modules, result = run(volumes, settings)
    dice = {row["epoch"]: row["validation_dice"] for row in result.curves[1:] if row["validation_dice"] is not None}
    assert sorted(dice) == [2, 4, 6]
    assert result.best_epoch == max(dice, key=dice.get)
    short, _ = run(volumes, settings | {"select": "last"})
    assert result.best_epoch == 6 or not same(state_of(*modules), state_of(*short))


def test_an_epoch_is_one_visit_to_every_training_case_unless_steps_say_otherwise(volumes):
    seen = []
    run(volumes, {"batch": 1}, advance=seen.append)
    assert seen == [1] * 6
    seen.clear()
    run(volumes, {"steps": 5}, advance=seen.append)
    assert seen == [2] * 10


@pytest.mark.parametrize("killed_at", [[2], [4, 5], [3, 1, 7]])
@pytest.mark.parametrize(
    "settings",
    [
        {"select": "best", "validate_every": 2},
        {"select": "last", "optimizer": "sgd", "freeze": True, "freeze_epochs": 2, "batch_norm": "recalibrate"},
    ],
    ids=["adamw-best", "sgd-unfreeze-last"],
)
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(volumes, tmp_path, settings, killed_at):
    name = "unet3d" if "freeze" in settings else "residual_unet"  # with batch norm, without
    if "freeze" in settings:
        settings = {**settings, "freeze": model(volumes, name=name)[0].stage_names[0]}
    settings = {**settings, "epochs": 4, "steps": 3}
    options = {"augment": AUGMENT, "seed": 7, "checkpoint_seconds": 0}
    whole, expected = run(volumes, settings, modules=model(volumes, name=name), **options)
    for steps in killed_at:
        with pytest.raises(KilledError):
            run(
                volumes, settings, modules=model(volumes, name=name), folder=tmp_path, advance=kill_after(steps),
                **options,
            )  # fmt: skip
    resumed, result = run(volumes, settings, modules=model(volumes, name=name), folder=tmp_path, **options)
    assert result.resumed_at > 0 or killed_at == [2]
    assert same(state_of(*whole), state_of(*resumed))
    assert result.curves == expected.curves
    assert result.best_epoch == expected.best_epoch


def test_the_checkpoint_of_another_plan_or_loss_is_not_used(volumes, tmp_path):
    options = {"folder": tmp_path, "checkpoint_seconds": 0}
    run(volumes, {"steps": 1}, **options)
    _, result = run(volumes, {"steps": 1}, **options)
    assert result.resumed_at == 2
    _, result = run(volumes, {"steps": 1}, loss="focal_tversky", **options)
    assert result.resumed_at == 0


def test_frozen_tensors_do_not_change_by_a_byte_and_the_others_do(volumes):
    network, head = model(volumes, name="unet3d")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first = network.stage_names[0]
    run(volumes, {"freeze": first, "steps": 2, "select": "last"}, modules=(network, head))
    for name, tensor in network.state_dict().items():
        held = network.stage(first).holds(name.removeprefix("body."))
        assert torch.equal(tensor, before[name]) == held, name


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(volumes):
    (one, _), (two, _), (three, _) = (run(volumes, {"steps": 2}, augment=AUGMENT, seed=seed) for seed in (3, 3, 4))
    assert same(state_of(*one), state_of(*two))
    assert not same(state_of(*one), state_of(*three))


def test_a_fine_tuned_model_is_never_worse_on_validation_than_the_one_it_started_from(volumes):
    modules, _ = run(volumes, {"epochs": 4, "steps": 4})
    start = state_of(*modules)
    harmful = {"name": "fine_tune", "optimizer": "sgd", "rate": 5.0, "backbone_rate": 1.0, "steps": 1, "epochs": 1}
    _, result = run(volumes, harmful, modules=modules)
    assert result.best_epoch == 0
    assert same(start, state_of(*modules))


def test_other_formats_train_to_much_the_same_and_leave_ordinary_modules(volumes):
    _, plain = run(volumes, {"epochs": 3, "select": "last"})
    for precision in (Precision("float32", True), Precision("bfloat16", True)):
        modules, result = run(volumes, {"epochs": 3, "select": "last"}, precision=precision)
        assert all(tensor.is_contiguous() for tensor in state_of(*modules))
        assert result.curves[-1]["train_loss"] == pytest.approx(plain.curves[-1]["train_loss"], rel=0.05)


@pytest.mark.parametrize("data", ["volumes", "slices"])
def test_the_precision_is_measured_on_patches_and_leaves_the_modules_as_they_were(request, data):
    data = request.getfixturevalue(data)
    network, head = model(data)
    before = state_of(network, head)
    chosen = precision_for_segmentation(network, head, data.cases, plan=data.plan)
    assert chosen.measured["difference"]["float32 channels_last"] < 1e-3
    assert same(before, state_of(network, head))
    forced = precision_for_segmentation(network, head, data.cases, plan=data.plan, requested="float32")
    assert forced == FLOAT32


def test_what_cannot_be_trained_is_refused_in_one_sentence(volumes):
    with pytest.raises(UserError, match="class_weights: is for classification"):
        run(volumes, {"class_weights": "balanced"})
    with pytest.raises(UserError, match="head: mlp is for classification"):
        run(volumes, {"head": "mlp"})
    network, head = model(volumes)
    odd = volumes.plan.model_copy(update={"patch": (13, 16, 16)})
    with pytest.raises(UserError, match="patch"):
        train_segmenter(
            network, head, parse_method("scratch"), volumes.cases, TRAIN, VALIDATION, plan=odd, labels=volumes.labels
        )
    with pytest.raises(UserError, match="unknown stage in freeze"):
        run(volumes, {"freeze": "layer77"})
    with pytest.raises(UserError, match="diverged in epoch 1"):
        run(volumes, {"optimizer": "sgd", "rate": 1e30, "momentum": 0.0})


def test_cases_without_a_mask_are_refused_by_name(volumes, tmp_path):
    table = volumes.manifest.table.copy()
    table.loc[[1, 4], "mask"] = None
    partly = Data.__new__(Data)
    partly.labels, partly.plan = volumes.labels, volumes.plan
    partly.cases = open_cases(replace(volumes.manifest, table=table), volumes.plan, tmp_path)
    with pytest.raises(UserError, match=r"1 of 3 training cases have no mask .*case 1"):
        run(partly)
    with pytest.raises(UserError, match=r"1 of 2 validation cases have no mask .*case 4"):
        run(partly, rows=np.array([0, 2]))


def test_a_region_that_is_nowhere_counts_as_right(volumes):
    labels = MaskLabels.create({"a": 1, "b": 2, "c": 3, "d": 9})
    data = Data.__new__(Data)
    data.labels, data.plan, data.cases = labels, volumes.plan, volumes.cases
    (network, head), result = run(data, {"epochs": 6, "steps": 4, "rate": 1e-2})
    classes = to_classes(
        predict_case(network, head, volumes.cases.image(3), plan=volumes.plan, loss="dice_ce"), "dice_ce", labels
    )
    assert 4 not in classes
    assert max(row["validation_dice"] for row in result.curves) > 0.25
