"""Training changes what it should and nothing else, is a function of its seed, and survives being killed."""

import logging
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from states import KilledError, kill_after, same, state_of

from mrtransfer.augment.image import Augment
from mrtransfer.common.errors import UserError
from mrtransfer.models.network import build_network
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.training.batches import Batches, Prefetched, batch_bounds, epoch_order
from mrtransfer.training.fit import CHECKPOINT, predict, train
from mrtransfer.training.heads import Problem, fit_linear_probes
from mrtransfer.training.precision import Precision
from mrtransfer.training.schedule import rate_factor
from mrtransfer.transfer.method import parse_method

INPUT = {"normalise": "half", "channels": 3}
TRAIN, VALIDATION, TEST = np.arange(30), np.arange(30, 40), np.arange(40, 60)


def scans(seed=0, count=60, size=32):
    """Three classes that differ in brightness."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = rng.integers(0, 60, (count, 1, size, size)) + 60 * labels[:, None, None, None]
    return SimpleNamespace(images=images.astype(np.uint8)), labels


def model(head="linear", seed=0):
    backbone = build_network("cbr_tiny", seed=seed)
    return backbone, build_head(head, backbone.features, 3, seed=seed)


def run(settings, *, validation=VALIDATION, rows=TRAIN, modules=None, **options):
    store, labels = scans()
    modules = modules or model(settings.get("head", "linear"))
    method = parse_method({"name": "scratch", "epochs": 2, "batch": 8, **settings})
    result = train(*modules, method, store, labels, rows, validation, input=INPUT, **options)
    return modules, result


def test_training_learns_and_predicts():
    modules, result = run({"epochs": 6, "batch_norm": "recalibrate"})
    store, labels = scans()
    probabilities = predict(*modules, store, TEST, input=INPUT)
    assert probabilities.shape == (20, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities.argmax(axis=1) == labels[TEST]).mean() > 0.9
    assert [row["epoch"] for row in result.curves] == list(range(7))
    assert result.curves[-1]["train_loss"] < result.curves[1]["train_loss"]


@pytest.mark.parametrize("policy", ["train", "freeze", "recalibrate"])
@pytest.mark.parametrize("freeze", ["block2", "all"])
def test_frozen_tensors_do_not_change_by_a_byte_and_the_others_do(freeze, policy):
    backbone, head = model()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    settings = {"name": "fine_tune", "freeze": freeze, "batch_norm": policy, "backbone_rate": 1e-2, "select": "last"}
    run({**settings, "weight_decay": 0.5}, modules=(backbone, head))
    stages = backbone.stage_names if freeze == "all" else ["block1", "block2"]
    frozen = {f"body.{name}" for stage in stages for name, _ in backbone.stage_parameters(stage)}
    for name, tensor in backbone.state_dict().items():
        held = name in frozen or any(backbone.stage(stage).holds(name.removeprefix("body.")) for stage in stages)
        statistics = "running" in name or "num_batches" in name
        if held and not (policy == "recalibrate" and statistics):
            assert torch.equal(tensor, before[name]), name
        elif not statistics:
            assert not torch.equal(tensor, before[name]), name
        elif policy == "freeze":
            assert torch.equal(tensor, before[name]), name


def test_recalibrated_statistics_are_estimated_once_and_then_kept():
    first, _ = run({"epochs": 1, "batch_norm": "recalibrate", "freeze": "all", "select": "last"})
    second, _ = run({"epochs": 4, "batch_norm": "recalibrate", "freeze": "all", "select": "last"})
    assert same(state_of(first[0]), state_of(second[0]))
    assert not same(state_of(first[0]), state_of(model()[0]))


def test_the_same_seed_gives_the_same_bytes_whatever_the_global_generator_and_another_seed_does_not():
    settings = {"head": "mlp", "select": "last"}
    augment = Augment(hflip=0.5, rotate=10, noise=0.02)
    torch.manual_seed(1)
    one, _ = run(settings, augment=augment, seed=3)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    two, _ = run(settings, augment=augment, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    three, _ = run(settings, augment=augment, seed=4)
    assert same(state_of(*one), state_of(*two))
    assert not same(state_of(*one), state_of(*three))


@pytest.mark.parametrize("killed_at", [[2], [9], [5, 6], [3, 8, 1]])
@pytest.mark.parametrize(
    "settings",
    [
        {"select": "best", "head": "mlp", "batch_norm": "train"},
        {"select": "last", "optimizer": "sgd", "freeze": "block1", "freeze_epochs": 2, "batch_norm": "recalibrate"},
    ],
    ids=["adamw-best", "sgd-unfreeze-last"],
)
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(tmp_path, settings, killed_at):
    settings = {**settings, "epochs": 4, "class_weights": "balanced"}
    options = {"augment": Augment(hflip=0.5, rotate=5), "seed": 7, "folder": tmp_path / "run", "checkpoint_seconds": 0}
    whole, expected = run(settings, **{**options, "folder": None})
    for steps in killed_at:
        with pytest.raises(KilledError):
            run(settings, **options, advance=kill_after(steps))
    resumed, result = run(settings, **options)
    assert result.resumed_at > 0 or killed_at == [2]
    assert same(state_of(*whole), state_of(*resumed))
    assert result.curves == expected.curves
    assert result.best_epoch == expected.best_epoch


def test_a_finished_training_is_not_done_again(tmp_path):
    options = {"folder": tmp_path, "checkpoint_seconds": 0}
    first, _ = run({}, **options)
    second, result = run({}, **options, advance=kill_after(0))
    assert result.resumed_at == 2
    assert same(state_of(*first), state_of(*second))


def test_the_checkpoint_of_another_training_or_a_damaged_one_is_not_used(tmp_path):
    options = {"folder": tmp_path, "checkpoint_seconds": 0}
    run({}, seed=1, **options)
    _, result = run({}, seed=2, **options)
    assert result.resumed_at == 0
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    _, result = run({}, seed=2, **options)
    assert result.resumed_at == 0


def test_checkpoints_are_not_written_more_often_than_asked_for(tmp_path):
    run({}, folder=tmp_path, checkpoint_seconds=1000)
    assert not (tmp_path / CHECKPOINT).exists()


def test_the_best_epoch_is_the_one_of_least_validation_loss_and_its_weights_are_kept():
    modules, result = run({"epochs": 5, "rate": 0.02, "select": "best", "schedule": "constant"})
    losses = {row["epoch"]: row["validation_loss"] for row in result.curves if row["epoch"] > 0}
    assert result.best_epoch == min(losses, key=losses.get)
    store, labels = scans()
    probabilities = predict(*modules, store, VALIDATION, input=INPUT)
    loss = -np.log(probabilities[np.arange(10), labels[VALIDATION]]).mean()
    assert loss == pytest.approx(losses[result.best_epoch], rel=1e-4)


def test_without_validation_rows_the_last_epoch_is_kept():
    empty = np.zeros(0, dtype=int)
    best, result = run({"select": "best"}, validation=empty)
    last, _ = run({"select": "last"}, validation=empty)
    assert result.best_epoch == 2
    assert [row["validation_loss"] for row in result.curves] == [None, None]
    assert same(state_of(*best), state_of(*last))


def test_a_head_from_a_probe_is_never_made_worse_on_validation():
    store, labels = scans()
    backbone, _ = model()
    features = _features(backbone, store)[None].numpy()
    (probe,) = fit_linear_probes(features, labels, [Problem(TRAIN, VALIDATION)], [1e-3, 1e-1], 3)
    modules = (backbone, probe.head())
    start = predict(*modules, store, VALIDATION, input=INPUT)
    np.testing.assert_allclose(start, probe.probabilities(features[0][VALIDATION]), atol=1e-4)
    settings = {"name": "fine_tune", "rate": 0.5, "backbone_rate": 1e-6, "optimizer": "sgd"}  # rates that do harm
    _, result = run(settings, modules=modules)
    assert result.best_epoch == 0
    assert np.array_equal(predict(*modules, store, VALIDATION, input=INPUT), start)


def _features(backbone, store):
    from mrtransfer.augment.prepare import to_input

    backbone.eval()
    with torch.no_grad():
        return backbone(to_input(torch.from_numpy(store.images), **INPUT))


def test_divergence_is_one_clear_sentence():
    with pytest.raises(UserError, match=r"diverged in epoch 1.*lower rate"):
        run({"optimizer": "sgd", "rate": 1e30, "batch_norm": "freeze", "momentum": 0.0})


def test_an_unknown_stage_is_refused_before_anything_is_done():
    with pytest.raises(UserError, match="did you mean 'block2'"):
        run({"freeze": "blok2"})


def test_one_training_row_and_a_last_batch_of_one_are_fine():
    run({"batch_norm": "train"}, rows=np.arange(1))
    run({"batch_norm": "train"}, rows=np.arange(9))
    assert batch_bounds(9, 8) == [(0, 9)]
    assert batch_bounds(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert batch_bounds(1, 4) == [(0, 1)]


def test_every_epoch_shows_every_row_once_in_an_order_of_its_own():
    store, labels = scans()
    orders = [epoch_order(TRAIN, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for number, order in enumerate(orders):
        assert sorted(order) == list(TRAIN)
        assert not any(np.array_equal(order, other) for other in orders[:number])
    rows = orders[0]
    batches = list(Batches(store.images, labels, rows, 8))
    assert np.array_equal(torch.cat([b["images"] for b in batches]).numpy(), store.images[rows])
    assert np.array_equal(torch.cat([b["labels"] for b in batches]).numpy(), labels[rows])


def test_steps_set_the_length_of_an_epoch_and_passes_go_on_over_epochs():
    parts = [epoch_order(TRAIN, 5, epoch, 12) for epoch in range(5)]  # two passes over 30 rows
    whole = np.concatenate(parts)
    assert [len(part) for part in parts] == [12] * 5
    for number in range(2):
        assert np.array_equal(whole[30 * number : 30 * (number + 1)], epoch_order(TRAIN, 5, number))
    assert sorted(epoch_order(TRAIN[:3], 0, 0, 7)) == sorted([*TRAIN[:3], *TRAIN[:3], epoch_order(TRAIN[:3], 0, 2)[0]])
    seen = []
    run({"epochs": 2, "steps": 5}, advance=seen.append)
    assert seen == [8] * 10


def test_validation_every_few_epochs_and_at_the_end():
    _, result = run({"epochs": 5, "validate_every": 2})
    assert [row["validation_loss"] is not None for row in result.curves] == [True, False, True, False, True, True]
    every, _ = run({"epochs": 5, "select": "last"})
    few, _ = run({"epochs": 5, "select": "last", "validate_every": 3})
    assert same(state_of(*every), state_of(*few))
    assert result.curves[result.best_epoch]["validation_loss"] is not None


def test_the_next_batch_is_read_in_the_background_and_an_error_there_is_raised_here():
    class Numbers(list):
        def __getitem__(self, number):
            read.append(number)
            if number == 3:
                raise OSError("disk")
            return {"number": number}

    read = []
    batches = iter(Prefetched(Numbers(range(3))))
    assert next(batches) == {"number": 0}
    deadline = time.monotonic() + 5
    while len(read) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert read == [0, 1]
    assert [batch["number"] for batch in batches] == [1, 2]
    assert list(Prefetched(Numbers())) == []
    with pytest.raises(OSError, match="disk"):
        list(Prefetched(Numbers(range(5))))


def test_the_rate_is_a_function_of_the_step_that_rises_and_falls_gently():
    assert {rate_factor("constant", step, 200) for step in range(200)} == {1.0}
    rates = [rate_factor("cosine", step, 200) for step in range(200)]
    assert rates[20] == 1
    assert rates[110] == pytest.approx(0.5)
    assert all(0 < rate <= 1 for rate in rates)
    assert np.abs(np.diff(rates)).max() < 0.05
    assert np.array_equal(np.sort(rates[:20]), rates[:20])
    assert np.array_equal(np.sort(rates[20:])[::-1], rates[20:])
    assert rate_factor("cosine", 0, 1) > 0


def test_other_formats_train_to_much_the_same_and_leave_ordinary_modules():
    plain, _ = run({"epochs": 3, "select": "last"})
    store, _ = scans()
    for precision in (Precision("float32", True), Precision("bfloat16", True)):
        modules, _ = run({"epochs": 3, "select": "last"}, precision=precision)
        for tensor in state_of(*modules):
            assert tensor.is_contiguous()
            assert tensor.dtype in (torch.float32, torch.int64)
        agreed = predict(*modules, store, TEST, input=INPUT, precision=precision).argmax(axis=1)
        assert (agreed == predict(*plain, store, TEST, input=INPUT).argmax(axis=1)).mean() >= 0.8


def test_nothing_is_said_and_nothing_is_left_behind(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run({})
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    assert list(tmp_path.iterdir()) == []
