"""Classification metrics of one set of predictions, or of thousands of weighted resamples of it at once.

A bootstrap gives every sample a weight and asks for the metric again, thousands of times. Most metrics are functions of
sums over samples, so all resamples together are one matrix product of weights and per-sample outcomes. Only the two
rank metrics (AUROC, AUPRC) need the order of the scores; sorted once, they cost two running sums a resample.

Conventions, the same as scikit-learn's with ``sample_weight``:

* two classes: class 1 is the positive one, and precision, sensitivity, specificity, AUROC and AUPRC are its own;
* more classes: each class against the rest, averaged with equal weight (macro). A class without a single sample (or
  without weight in a resample) is left out of the average; a metric that no class allows is NaN;
* a class that is never predicted has precision 0;
* AUPRC is the average precision, a sum over steps and not trapezia (Davis & Goadrich 2006).
"""

from collections.abc import Iterable

import numpy as np

from mrtransfer.common.errors import UserError, unknown_name

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "auroc",
    "auprc",
    "precision",
    "sensitivity",
    "specificity",
    "loss",
    "brier",
    "ece",
)
HIGHER_IS_BETTER = {name: name not in ("loss", "brier", "ece") for name in METRICS}
RANGES = {name: (0.0, {"loss": float("inf"), "brier": 2.0}.get(name, 1.0)) for name in METRICS}
WORDS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "precision": "precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
}  # as they stand in a sentence
LOSS_CLIP = 1e-7  # a probability of exactly 0 for the truth would make the mean infinite
ECE_BINS = 15  # Guo et al. 2017, On calibration of modern neural networks, section 3

_RANKED = ("auroc", "auprc")
_CACHED_NUMBERS = 1 << 16  # numbers per block of resamples: half a megabyte, which stays in a core's cache


def evaluate(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float]:
    """Every metric of :data:`METRICS` for labels (n,), probabilities (n, C) and, if given, sample weights (n,)."""
    rows = np.ones(len(np.asarray(labels))) if weights is None else np.asarray(weights, dtype=float)
    return {name: float(value[0]) for name, value in evaluate_resampled(labels, probabilities, rows[None]).items()}


def evaluate_resampled(
    labels: np.ndarray,
    probabilities: np.ndarray,
    weights: np.ndarray,
    *,
    units: np.ndarray | None = None,
    metrics: Iterable[str] = METRICS,
) -> dict[str, np.ndarray]:
    """Metrics under B weightings of the same predictions.

    Args:
        labels: integer classes (n,), each 0 … C−1.
        probabilities: predicted probabilities (n, C), C ≥ 2.
        weights: (B, n), or (B, U) together with ``units``; not negative.
        units: the column of ``weights`` that belongs to each sample (n,); None where every sample has its own.
        metrics: which of :data:`METRICS` to compute.

    Returns:
        Name to values (B,); NaN where a resample does not allow the metric.
    """
    labels, probabilities = _checked(labels, probabilities)
    wanted = list(metrics)
    for name in wanted:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    weights = np.asarray(weights, dtype=float)
    columns = np.arange(len(labels)) if units is None else np.asarray(units)
    found: dict[str, np.ndarray] = {}
    if set(wanted) - set(_RANKED):
        found |= _summed(labels, probabilities, weights, columns)
    if set(wanted) & set(_RANKED):
        found |= _ranked(labels, probabilities, weights, columns)
    return {name: found[name] for name in wanted}


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Counts (C, C): row = true class, column = most probable class."""
    labels, probabilities = _checked(labels, probabilities)
    classes = probabilities.shape[1]
    cells = labels * classes + probabilities.argmax(1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def roc_points(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(false-positive rate, true-positive rate) of labels (n,) in {0, 1} against scores (n,), from (0, 0) to (1, 1).

    One point per distinct score. The rate of a class that is absent is NaN.
    """
    labels, scores = np.asarray(labels).astype(bool), np.asarray(scores, dtype=float)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    true = np.append(0, np.cumsum(labels[order])[ends])
    false = np.append(0, np.cumsum(~labels[order])[ends])
    with np.errstate(invalid="ignore"):
        return false / np.float64(false[-1]), true / np.float64(true[-1])


def calibration_bins(labels: np.ndarray, probabilities: np.ndarray, bins: int = ECE_BINS) -> dict[str, np.ndarray]:
    """The reliability diagram's numbers (bins,): ``count``, mean ``confidence``, ``accuracy`` (NaN in empty bins)."""
    labels, probabilities = _checked(labels, probabilities)
    confidence = probabilities.max(1)
    place = _bin_of(confidence, bins)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, confidence, minlength=bins) / count
        right = np.bincount(place, probabilities.argmax(1) == labels, minlength=bins) / count
    return {"count": count, "confidence": mean, "accuracy": right}


def _checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    if probabilities.ndim != 2 or len(labels) != len(probabilities) or probabilities.shape[1] < 2:
        raise UserError(
            f"predictions: shapes {labels.shape} and {probabilities.shape} do not fit; right are labels (n,) and "
            "probabilities (n, C) with at least two classes"
        )
    if len(labels) == 0:
        raise UserError("predictions: there is no sample to evaluate; at least one is needed")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise UserError(f"labels: must be 0 … {probabilities.shape[1] - 1}; found {labels.min()} … {labels.max()}")
    if not np.isfinite(probabilities).all():
        raise UserError("predictions: some probabilities are not finite; the training diverged, try a lower rate")
    return labels.astype(np.intp), probabilities


def _bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Equal-width bins (0, 1/bins], …, (1 − 1/bins, 1]."""
    return np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)


def _summed(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, columns: np.ndarray
) -> dict[str, np.ndarray]:
    """The metrics that depend on the samples through sums alone."""
    samples, classes = probabilities.shape
    everyone = np.arange(samples)
    predicted = probabilities.argmax(1)
    cells = classes * classes
    outcome = np.zeros((samples, cells + 2 + ECE_BINS))
    outcome[everyone, labels * classes + predicted] = 1
    outcome[:, cells] = -np.log(np.clip(probabilities[everyone, labels], LOSS_CLIP, 1 - LOSS_CLIP))
    outcome[:, cells + 1] = ((probabilities - np.eye(classes)[labels]) ** 2).sum(1)
    confidence = probabilities.max(1)
    outcome[everyone, cells + 2 + _bin_of(confidence, ECE_BINS)] = (predicted == labels) - confidence
    per_column = np.zeros((weights.shape[1], outcome.shape[1]))
    np.add.at(per_column, columns, outcome)
    sums = weights @ per_column

    table = sums[:, :cells].reshape(-1, classes, classes)
    total = table.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {"accuracy": np.trace(table, axis1=1, axis2=2) / total, **_per_class(table, total)}
        found["loss"] = sums[:, cells] / total
        found["brier"] = sums[:, cells + 1] / total
        found["ece"] = np.abs(sums[:, cells + 2 :]).sum(1) / total
    return found


def _per_class(table: np.ndarray, total: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of confusion tables (B, C, C) that are averaged over classes, or are the positive class's own."""
    support, predicted, hits = table.sum(2), table.sum(1), np.diagonal(table, axis1=1, axis2=2)
    negatives = total[:, None] - support
    recall = hits / support
    precision = np.where(predicted > 0, hits / predicted, 0.0)
    specificity = (negatives - predicted + hits) / negatives
    precision[support == 0] = np.nan
    if table.shape[1] == 2:
        own = {"precision": precision[:, 1], "sensitivity": recall[:, 1], "specificity": specificity[:, 1]}
    else:
        specificity[support == 0] = np.nan
        own = {"precision": _macro(precision), "sensitivity": _macro(recall), "specificity": _macro(specificity)}
    return {"balanced_accuracy": _macro(recall), **own}


def _macro(values: np.ndarray) -> np.ndarray:
    """Mean over the classes (B, C) → (B,) that are not NaN; NaN where all are."""
    known = np.isfinite(values)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(1) / np.maximum(count, 1), np.nan)


def _ranked(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, columns: np.ndarray
) -> dict[str, np.ndarray]:
    """AUROC and AUPRC, for the positive class or one class against the rest."""
    classes = probabilities.shape[1]
    pairs = [
        _one_against_rest(labels == c, probabilities[:, c], weights, columns)
        for c in ([1] if classes == 2 else range(classes))
    ]
    return {
        "auroc": _macro(np.stack([auroc for auroc, _ in pairs], axis=1)),
        "auprc": _macro(np.stack([auprc for _, auprc in pairs], axis=1)),
    }


def _one_against_rest(
    positive: np.ndarray, scores: np.ndarray, weights: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and AUPRC (B,) of ``scores`` (n,) for the samples marked ``positive`` (n,).

    With positives and negatives each in falling order, both need only the weight of the negatives (and positives) at or
    above each positive's score. A tie counts half for the AUROC (Mann & Whitney 1947) and wholly for the precision.
    """
    above, below = scores[positive], scores[~positive]
    up, down = np.argsort(-above, kind="stable"), np.argsort(-below, kind="stable")
    above, below = above[up], below[down]
    up, down = columns[positive][up], columns[~positive][down]
    negatives_higher = np.searchsorted(-below, -above, side="left")
    negatives_reached = np.searchsorted(-below, -above, side="right")
    last_of_tie = np.searchsorted(-above, -above, side="right") - 1
    ties = bool((negatives_higher != negatives_reached).any())

    auroc, auprc = np.full((2, len(weights)), np.nan)
    if len(above) == 0:
        return auroc, auprc
    step = max(1, _CACHED_NUMBERS // len(scores))
    for start in range(0, len(weights), step):
        block = slice(start, start + step)
        gained = np.take(weights[block], up, axis=1)
        passed = np.zeros((len(gained), len(down) + 1))
        np.cumsum(np.take(weights[block], down, axis=1), axis=1, out=passed[:, 1:])
        false = np.take(passed, negatives_reached, axis=1)
        higher = (passed[:, negatives_higher] + false) / 2 if ties else false
        true = np.take(np.cumsum(gained, axis=1), last_of_tie, axis=1)
        found = gained.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc[block] = 1 - np.einsum("bi,bi->b", gained, higher) / (found * passed[:, -1])
            precision = np.where(true > 0, true / (true + false), 0.0)
            auprc[block] = np.einsum("bi,bi->b", gained, precision) / found
    return auroc, auprc
