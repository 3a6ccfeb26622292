"""Linear probes are the logistic regressions that scikit-learn finds, whatever else is fitted beside them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mrtransfer.common.errors import UserError
from mrtransfer.training.heads import Problem, fit_linear_probes

CLASSES = 3


def scans(rows=90, features=12, seed=0, views=1, classes=CLASSES):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    labels[:classes] = np.arange(classes)
    centres = rng.standard_normal((classes, features))
    data = 3 + centres[labels] + rng.standard_normal((views, rows, features)) * rng.uniform(0.1, 4, features)
    return data.astype(np.float32), labels


def reference(data, labels, l2, weights=None):
    """scikit-learn's objective is the sum of losses + ‖W‖²/(2C): C = 1/(n·l2)."""
    scaler = StandardScaler().fit(data)
    model = LogisticRegression(C=1 / (len(data) * l2), tol=1e-10, max_iter=20000, class_weight=weights)
    model.fit(scaler.transform(data.astype(np.float64)), labels)
    return lambda x: model.predict_proba(scaler.transform(x.astype(np.float64)))


@pytest.mark.parametrize(("rows", "features"), [(90, 12), (15, 40)], ids=["more rows", "more features"])
@pytest.mark.parametrize("l2", [0.003, 0.1, 3.0])
def test_agrees_with_scikit_learn(rows, features, l2):
    data, labels = scans(120, features)
    train = np.arange(rows)
    (probe,) = fit_linear_probes(data, labels, [Problem(train)], [l2], CLASSES, dtype=torch.float64, tolerance=1e-8)
    expected = reference(data[0][train], labels[train], l2)(data[0])
    assert probe.converged
    np.testing.assert_allclose(probe.probabilities(data[0]), expected, atol=2e-6)


@pytest.mark.parametrize("l2", [0.003, 0.1])
def test_single_precision_at_the_usual_tolerance_is_as_good_for_all_uses(l2):
    data, labels = scans(200, 30)
    (probe,) = fit_linear_probes(data, labels, [Problem(np.arange(150))], [l2], CLASSES)
    expected = reference(data[0][:150], labels[:150], l2)(data[0])
    np.testing.assert_allclose(probe.probabilities(data[0]), expected, atol=2e-3)


@pytest.mark.parametrize("rows", [60, 8])
def test_balanced_weights_and_two_views_agree_with_scikit_learn(rows):
    data, labels = scans(80, 20, views=2)
    train = np.arange(rows)
    (probe,) = fit_linear_probes(
        data, labels, [Problem(train)], [0.05], CLASSES, class_weights="balanced", dtype=torch.float64, tolerance=1e-8
    )
    both, twice = np.concatenate(data[:, train]), np.tile(labels[train], 2)
    np.testing.assert_allclose(
        probe.probabilities(data[0]), reference(both, twice, 0.05, "balanced")(data[0]), atol=2e-6
    )


def test_two_classes_are_the_binary_model_with_half_the_penalty_on_the_difference():
    data, labels = scans(classes=2)
    (probe,) = fit_linear_probes(data, labels, [Problem(np.arange(90))], [0.1], 2, dtype=torch.float64, tolerance=1e-8)
    np.testing.assert_allclose(probe.probabilities(data[0]), reference(data[0], labels, 0.05)(data[0]), atol=2e-6)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("features", [25, 61])
def test_a_result_does_not_depend_on_what_is_fitted_beside_it(features, threads):
    rng = np.random.default_rng(features)
    data, labels = scans(130, features, seed=features)
    problems = []
    for size in (9, 9, 10, 12, 40, 41, 44, 44, 46, 47, 47, 48, 48, 90, 95, 95):
        rows = rng.permutation(130)
        problems.append(Problem(np.concatenate([np.arange(3), rows[rows > 2][: size - 3]]), rows[-8:]))
    l2 = [1e-3, 1e-2, 0.1, 1]
    together = fit_linear_probes(data, labels, problems, l2, CLASSES)
    for numbers in (*([number] for number in range(len(problems))), rng.permutation(len(problems))[4:]):
        again = fit_linear_probes(data, labels, [problems[number] for number in numbers], l2, CLASSES)
        for number, probe in zip(numbers, again, strict=True):
            assert probe.l2 == together[number].l2
            assert np.array_equal(probe.weight, together[number].weight)
            assert np.array_equal(probe.bias, together[number].bias)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 60), st.integers(2, 40), st.integers(2, 5), st.sampled_from([1e-5, 1e-3, 0.1]))
def test_every_problem_converges_to_within_rounding_of_the_least_objective(rows, features, classes, l2):
    data, labels = scans(max(rows, classes), features, seed=rows, classes=classes)
    train = np.arange(len(labels))
    found = []
    for options in ({}, {"dtype": torch.float64, "tolerance": 1e-7}):
        (probe,) = fit_linear_probes(data, labels, [Problem(train)], [l2], classes, **options)
        likelihood = probe.probabilities(data[0])[train, labels].astype(float)
        penalty = (probe.weight.astype(float) * data[0].std(axis=0)) ** 2
        found.append(-np.log(likelihood).mean() + l2 / 2 * penalty.sum())
        assert probe.converged or options
    assert found[0] <= found[1] + 3e-4  # what the default tolerance leaves where hardly anything is regularised


def test_problems_with_the_same_training_rows_share_a_solution_but_choose_for_themselves():
    data, labels = scans(90, 30)
    train = np.arange(30)
    noisy = labels.copy()
    noisy[60:] = (noisy[60:] + 1) % CLASSES  # validation that contradicts training wants strong regularisation
    one, other, shuffled = fit_linear_probes(
        data,
        noisy,
        [Problem(train, np.arange(30, 60)), Problem(train, np.arange(60, 90)), Problem(train[::-1])],
        [1e-3, 1.0, 100.0],
        CLASSES,
    )
    assert other.l2 == 100.0
    assert one.l2 < 100.0
    assert shuffled.l2 == 1.0  # no validation rows: the middle


def test_the_regularisation_of_least_validation_loss_is_kept_and_the_whole_curve_is_told():
    data, labels = scans(90, 30)
    (probe,) = fit_linear_probes(data, labels, [Problem(np.arange(40), np.arange(40, 90))], [1, 0.01, 0.1], CLASSES)
    assert [row["l2"] for row in probe.validation] == [0.01, 0.1, 1]
    assert probe.l2 == min(probe.validation, key=lambda row: row["loss"])["l2"]
    own = probe.probabilities(data[0][40:])
    loss = -np.log(own[np.arange(50), labels[40:]]).mean()
    assert min(row["loss"] for row in probe.validation) == pytest.approx(loss, rel=1e-5)


def test_the_head_gives_the_same_probabilities():
    data, labels = scans()
    (probe,) = fit_linear_probes(data, labels, [Problem(np.arange(90))], [0.1], CLASSES)
    with torch.no_grad():
        logits = probe.head()(torch.from_numpy(data[0]))
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), probe.probabilities(data[0]), atol=1e-5)


def test_dead_features_and_an_absent_class_and_repeated_rows_do_no_harm():
    data, labels = scans(60, 20)
    data[0, :40, 3] = 7.25  # constant over training, not beyond
    train = np.concatenate([np.arange(20), np.arange(20)])
    train = train[labels[train] != 2]
    (probe,) = fit_linear_probes(data, labels, [Problem(train, np.arange(40, 60))], [0.1], CLASSES)
    assert np.isfinite(probe.weight).all()
    assert np.abs(probe.weight[:, 3]).max() < 1e-5
    assert probe.probabilities(data[0]).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert probe.probabilities(data[0])[:, 2].max() < 0.05


def test_half_precision_features_and_a_memory_map_will_do(tmp_path):
    data, labels = scans()
    stored = np.memmap(tmp_path / "features", dtype=np.float16, mode="w+", shape=data.shape)
    stored[:] = data
    (probe,) = fit_linear_probes(stored, labels, [Problem(np.arange(90))], [0.1], CLASSES)
    (full,) = fit_linear_probes(data, labels, [Problem(np.arange(90))], [0.1], CLASSES)
    np.testing.assert_allclose(probe.probabilities(stored[0]), full.probabilities(data[0]), atol=1e-2)


def test_a_row_without_label_and_a_row_that_is_not_there_are_named():
    data, labels = scans()
    labels[5] = -1
    with pytest.raises(UserError, match="row 5, which has no label"):
        fit_linear_probes(data, labels, [Problem(np.arange(10))], [0.1], CLASSES)
    with pytest.raises(UserError, match="row 200"):
        fit_linear_probes(data, labels, [Problem(np.array([200]))], [0.1], CLASSES)
    with pytest.raises(UserError, match="no training rows"):
        fit_linear_probes(data, labels, [Problem(np.zeros(0, int))], [0.1], CLASSES)
