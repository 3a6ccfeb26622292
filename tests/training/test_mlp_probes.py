"""Multi-layer probes trained together are the networks that an ordinary training loop gives one by one."""

import numpy as np
import pytest
import torch
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.training.batches import epoch_order
from mrtransfer.training.heads import Problem, fit_mlp_probes
from mrtransfer.training.mlp_probes import dropout_masks
from mrtransfer.training.schedule import rate_factor
from mrtransfer.transfer.method import parse_method

CLASSES, HIDDEN = 3, (12, 7)
VALIDATION = np.arange(60, 80)


def scans(seed=0, views=1, features=10):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, 80)
    centres = rng.standard_normal((CLASSES, features))
    return (1 + centres[labels] + rng.standard_normal((views, 80, features))).astype(np.float32), labels


def mlp(**settings):
    return parse_method({"name": "mlp_probe", "hidden": HIDDEN, "epochs": 4, "batch": 8, **settings})


def loop(data, labels, problem, method):
    """The usual training loop, one run, one batch at a time."""
    train = problem.train
    head = build_head("mlp", data.shape[1], CLASSES, hidden=HIDDEN, dropout=0.0, seed=problem.seed)
    mean, deviation = data[train].mean(axis=0), data[train].std(axis=0)
    x = torch.from_numpy((data - mean) / deviation if method.standardise else data)
    y = torch.from_numpy(labels)
    layers = [layer for layer in head if isinstance(layer, nn.Linear)]
    groups = [
        {"params": [layer.weight for layer in layers], "weight_decay": method.weight_decay},
        {"params": [layer.bias for layer in layers], "weight_decay": 0.0},
    ]
    if method.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=method.rate, momentum=method.momentum)
    else:
        optimizer = torch.optim.AdamW(groups, lr=method.rate)
    counts = np.bincount(labels[train], minlength=CLASSES)
    factor = torch.from_numpy(len(train) / (CLASSES * counts) if method.class_weights else np.ones(CLASSES)).float()
    batches, step, losses = -(-len(train) // method.batch), 0, []
    for epoch in range(method.epochs):
        order = epoch_order(train, problem.seed, epoch)
        keep = dropout_masks(problem.seed, epoch, len(train), sum(HIDDEN), method.dropout) / (1 - method.dropout)
        for start in range(0, len(order), method.batch):
            rows, masks = order[start : start + method.batch], keep[start : start + method.batch]
            rate = rate_factor(method.schedule, step, batches * method.epochs)
            for group in optimizer.param_groups:
                group["lr"] = method.rate * rate
            hidden = head[1](head[0](x[rows])) * masks[:, : HIDDEN[0]]
            logits = head[5](head[3](hidden) * masks[:, HIDDEN[0] :])
            loss = (nn.functional.cross_entropy(logits, y[rows], reduction="none") * factor[y[rows]]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        with torch.no_grad():
            out = head(x[problem.validation])
            weights = factor[y[problem.validation]]
            each = nn.functional.cross_entropy(out, y[problem.validation], reduction="none") * weights
            losses.append(float(each.sum() / weights.sum()))
    with torch.no_grad():
        return head(x).softmax(dim=1).numpy(), losses


@pytest.mark.parametrize(
    "settings",
    [
        {
            "optimizer": "sgd",
            "rate": 0.05,
            "momentum": 0.5,
            "weight_decay": 0.01,
            "dropout": 0.0,
            "schedule": "constant",
        },
        {"optimizer": "adamw", "rate": 0.01, "weight_decay": 0.1, "dropout": 0.3, "class_weights": "balanced"},
        {"optimizer": "sgd", "rate": 0.02, "dropout": 0.5, "standardise": False},
    ],
    ids=["sgd", "adamw-balanced-dropout", "raw-features"],
)
def test_agrees_with_an_ordinary_training_loop(settings):
    data, labels = scans()
    method = mlp(select="last", **settings)
    problems = [Problem(np.arange(n), VALIDATION, seed) for seed, n in enumerate((24, 50, 29, 24))]
    for problem, probe in zip(problems, fit_mlp_probes(data, labels, problems, method, CLASSES), strict=True):
        expected, losses = loop(data[0], labels, problem, method)
        np.testing.assert_allclose(probe.probabilities(data[0]), expected, atol=2e-5)
        np.testing.assert_allclose([row["validation_loss"] for row in probe.curves], losses, rtol=1e-4)


def test_a_result_does_not_depend_on_what_is_trained_beside_it():
    data, labels = scans(views=2)
    sizes = (24, 24, 50, 7, 31, 50, 55, 8)
    problems = [Problem(np.random.default_rng(s).permutation(60)[:n], VALIDATION, s) for s, n in enumerate(sizes)]
    method = mlp(rate=0.01)
    together = fit_mlp_probes(data, labels, problems, method, CLASSES)
    for problem, probe in zip(problems, together, strict=True):
        (alone,) = fit_mlp_probes(data, labels, [problem], method, CLASSES)
        assert alone.best_epoch == probe.best_epoch
        for (weight, bias), (other_weight, other_bias) in zip(alone.layers, probe.layers, strict=True):
            np.testing.assert_allclose(weight, other_weight, atol=1e-6)
            np.testing.assert_allclose(bias, other_bias, atol=1e-6)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_result():
    data, labels = scans()
    problems = [Problem(np.arange(40), VALIDATION, seed) for seed in (5, 5, 6)]
    one, same, other = fit_mlp_probes(data, labels, problems, mlp(), CLASSES)
    assert np.array_equal(one.layers[0][0], same.layers[0][0])
    assert one.curves == same.curves
    assert not np.array_equal(one.layers[0][0], other.layers[0][0])


def test_the_epoch_of_least_validation_loss_is_kept():
    data, labels = scans()
    labels[:8] = (labels[:8] + 1) % CLASSES  # wrong labels, which late epochs learn by heart
    (probe,) = fit_mlp_probes(data, labels, [Problem(np.arange(20), VALIDATION)], mlp(epochs=30, rate=0.02), CLASSES)
    losses = [row["validation_loss"] for row in probe.curves]
    assert probe.best_epoch == 1 + int(np.argmin(losses)) < 30
    own = probe.probabilities(data[0][VALIDATION])[np.arange(20), labels[VALIDATION]]
    assert -np.log(own).mean() == pytest.approx(min(losses), rel=1e-4)


def test_without_validation_rows_the_last_epoch_is_kept():
    data, labels = scans()
    (probe,) = fit_mlp_probes(data, labels, [Problem(np.arange(20))], mlp(), CLASSES)
    assert probe.best_epoch == 4
    assert probe.curves[-1]["validation_loss"] is None


def test_the_head_gives_the_same_probabilities():
    data, labels = scans()
    (probe,) = fit_mlp_probes(data, labels, [Problem(np.arange(40), VALIDATION)], mlp(), CLASSES)
    with torch.no_grad():
        logits = probe.head().eval()(torch.from_numpy(data[0]))
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), probe.probabilities(data[0]), atol=1e-5)


def test_divergence_is_one_clear_sentence():
    data, labels = scans()
    with pytest.raises(UserError, match="diverged in epoch"):
        fit_mlp_probes(data, labels, [Problem(np.arange(40))], mlp(optimizer="sgd", rate=1e20), CLASSES)
