"""Classification metrics agree with scikit-learn and with slow loops, weighted or not."""

import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.tasks.classification import metrics as own


def predictions(n, classes, seed, *, tied=False, missing=()):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    labels[:classes] = np.arange(classes)
    for lost in missing:
        labels[labels == lost] = (lost + 1) % classes
    logits = rng.normal(size=(n, classes)) + 1.2 * np.eye(classes)[labels]
    if tied:
        logits = np.round(logits)
    probabilities = np.exp(logits)
    return labels, probabilities / probabilities.sum(1, keepdims=True)


def reference(labels, probabilities, weights):
    """scikit-learn, one class against the rest, over the classes that are there."""
    predicted, classes = probabilities.argmax(1), probabilities.shape[1]
    used = [1] if classes == 2 else [c for c in range(classes) if weights[labels == c].sum() > 0]
    options = {"sample_weight": weights}
    clipped = np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1 - 1e-7)

    def mean(score):
        return np.mean([score(c) for c in used])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "accuracy": sk.accuracy_score(labels, predicted, **options),
            "balanced_accuracy": sk.recall_score(
                labels, predicted, labels=[c for c in range(classes) if (labels == c).any()], average="macro", **options
            ),
            "auroc": mean(lambda c: sk.roc_auc_score(labels == c, probabilities[:, c], **options)),
            "auprc": mean(lambda c: sk.average_precision_score(labels == c, probabilities[:, c], **options)),
            "precision": mean(lambda c: sk.precision_score(labels == c, predicted == c, zero_division=0, **options)),
            "sensitivity": mean(lambda c: sk.recall_score(labels == c, predicted == c, **options)),
            "specificity": mean(lambda c: sk.recall_score(labels != c, predicted != c, **options)),
            "loss": np.average(-np.log(clipped), weights=weights),
            "brier": np.average(((probabilities - np.eye(classes)[labels]) ** 2).sum(1), weights=weights),
            "ece": slow_ece(labels, probabilities, weights),
        }


def slow_ece(labels, probabilities, weights):
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if weights[inside].sum() > 0:
            gap = np.average(right[inside], weights=weights[inside]) - np.average(
                confidence[inside], weights=weights[inside]
            )
            total += weights[inside].sum() / weights.sum() * abs(gap)
    return total


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("tied", [False, True])
def test_equal_to_scikit_learn_with_sample_weights(classes, tied):
    labels, probabilities = predictions(150, classes, seed=classes, tied=tied)
    rng = np.random.default_rng(1)
    weights = np.stack([np.ones(150), rng.multinomial(150, np.full(150, 1 / 150)).astype(float), rng.random(150)])
    found = own.evaluate_resampled(labels, probabilities, weights)
    assert tuple(found) == own.METRICS
    for row in range(len(weights)):
        expected = reference(labels, probabilities, weights[row])
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, abs=1e-12), name


def test_a_class_without_labels_is_left_out_of_the_macro_average():
    labels, probabilities = predictions(90, 4, seed=5, missing=(2,))
    found = own.evaluate(labels, probabilities)
    for name, value in reference(labels, probabilities, np.ones(90)).items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_only_one_class_present_leaves_rank_metrics_undefined_and_the_rest_defined():
    labels, probabilities = np.zeros(12, int), predictions(12, 2, seed=0)[1]
    found = own.evaluate(labels, probabilities)
    assert all(np.isnan(found[name]) for name in ("auroc", "auprc", "sensitivity", "precision"))
    assert found["accuracy"] == found["specificity"] == found["balanced_accuracy"]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(6, 40), classes=st.integers(2, 4), tied=st.booleans())
def test_a_whole_number_of_weight_is_the_same_as_repeating_the_sample(seed, n, classes, tied):
    labels, probabilities = predictions(n, classes, seed, tied=tied)
    times = np.random.default_rng(seed).integers(0, 4, n)
    times[0] = 1
    weighted = own.evaluate(labels, probabilities, times)
    repeated = own.evaluate(np.repeat(labels, times), np.repeat(probabilities, times, axis=0))
    for name in own.METRICS:
        assert weighted[name] == pytest.approx(repeated[name], abs=1e-12, nan_ok=True), name


def test_weights_of_units_are_the_same_as_weights_of_their_samples():
    labels, probabilities = predictions(60, 3, seed=2)
    units = np.random.default_rng(0).integers(0, 20, 60)
    counts = np.random.default_rng(1).multinomial(20, np.full(20, 0.05), size=50)
    by_unit = own.evaluate_resampled(labels, probabilities, counts, units=units)
    by_sample = own.evaluate_resampled(labels, probabilities, counts[:, units])
    for name in own.METRICS:
        np.testing.assert_allclose(by_unit[name], by_sample[name], rtol=0, atol=1e-12)


def test_perfect_and_certain_predictions():
    labels = np.array([0, 1, 2, 0, 1, 2])
    found = own.evaluate(labels, np.eye(3)[labels])
    assert all(found[name] == 1 for name in own.METRICS if own.HIGHER_IS_BETTER[name])
    assert found["brier"] == found["ece"] == 0
    assert found["loss"] == pytest.approx(1e-7)
    wrong = own.evaluate(labels, np.eye(3)[(labels + 1) % 3])
    assert wrong["loss"] == pytest.approx(-np.log(1e-7))
    assert wrong["brier"] == 2


def test_confusion_counts_truth_in_rows():
    labels = np.array([0, 0, 1, 2])
    probabilities = np.array([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2]])
    np.testing.assert_array_equal(own.confusion(labels, probabilities), [[1, 1, 0], [0, 1, 0], [1, 0, 0]])


def test_roc_points_enclose_the_area_that_auroc_says():
    labels, probabilities = predictions(80, 2, seed=3, tied=True)
    false, true = own.roc_points(labels, probabilities[:, 1])
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(own.evaluate(labels, probabilities)["auroc"])


def test_calibration_bins_add_up_to_ece():
    labels, probabilities = predictions(200, 3, seed=4)
    bins = own.calibration_bins(labels, probabilities)
    gap = np.nansum(bins["count"] * np.abs(bins["accuracy"] - bins["confidence"])) / 200
    assert gap == pytest.approx(own.evaluate(labels, probabilities)["ece"])


@pytest.mark.parametrize(
    ("labels", "probabilities", "says"),
    [
        ([0, 1], [[0.5, 0.5]], "do not fit"),
        ([0, 3], [[0.5, 0.5], [0.5, 0.5]], "must be 0"),
        ([0, 1], [[0.5, 0.5], [np.nan, 0.5]], "not finite"),
        ([], np.zeros((0, 2)), "no sample"),
    ],
)
def test_unusable_predictions_are_refused_in_one_sentence(labels, probabilities, says):
    with pytest.raises(UserError, match=says):
        own.evaluate(np.array(labels, int), np.array(probabilities))


def test_a_misspelt_metric_is_answered_with_the_nearest_one():
    labels, probabilities = predictions(10, 2, seed=0)
    with pytest.raises(UserError, match="accuracy"):
        own.evaluate_resampled(labels, probabilities, np.ones((1, 10)), metrics=["acuracy"])
