"""Shortcuts: does an image's outer form (size, aspect, borders, file type) give its label or its split away?"""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.tree import DecisionTreeClassifier

_PERMUTATIONS = 999
_TREE_PERMUTATIONS = 99
_BINS = 5
_FOLDS = 5
_MOST = 5000


def shortcuts(form: pd.DataFrame, targets: dict[str, np.ndarray], units: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """For each target ((n,) int, -1 = unknown): how well form alone tells it, and each feature's association with it.

    One sample per unit is used, so that samples are independent. ``balanced_accuracy`` is that of a small decision tree
    in 5-fold cross-validation, ``chance`` is 1 / classes, and ``p`` comes from permuting the target. Each feature has
    Cramér's V (bias-corrected, Bergsma 2013; continuous features in fifths) and its permutation p. A target is None
    where it has fewer than two classes of 10 units.
    """
    _, first = np.unique(units, return_index=True)
    first = np.sort(first)
    if len(first) > _MOST:
        first = np.sort(np.random.default_rng(seed).choice(first, _MOST, replace=False))
    form = form.iloc[first].reset_index(drop=True)
    return {name: _association(form, np.asarray(target)[first], seed) for name, target in targets.items()}


def _association(form: pd.DataFrame, target: np.ndarray, seed: int) -> dict[str, Any] | None:
    counts = np.bincount(target[target >= 0], minlength=1)
    enough = np.flatnonzero(counts >= 2 * _FOLDS)
    keep = np.isin(target, enough)
    if len(enough) < 2:
        return None
    form, target = form[keep].reset_index(drop=True), np.searchsorted(enough, target[keep])
    rng = np.random.default_rng([seed, len(target)])
    shuffled = np.stack([target, *(rng.permutation(target) for _ in range(_PERMUTATIONS))])
    features = {}
    for name in form.columns:
        codes = _binned(form[name])
        if codes.max() > 0:
            values = _cramers_v(codes, shuffled)
            features[str(name)] = {"cramers_v": round(float(values[0]), 4), "p": _p_value(values)}
    scores = _tree_scores(_as_numbers(form), shuffled[: _TREE_PERMUTATIONS + 1])
    return {
        "balanced_accuracy": round(float(scores[0]), 4),
        "chance": round(1 / len(enough), 4),
        "p": _p_value(scores),
        "units": len(target),
        "features": dict(sorted(features.items(), key=lambda item: -item[1]["cramers_v"])),
    }


def _p_value(values: np.ndarray) -> float:
    """The first value against the permuted rest."""
    return float((values >= values[0] - 1e-12).mean())


def _binned(values: pd.Series) -> np.ndarray:
    if values.dtype == object or isinstance(values.dtype, pd.StringDtype) or values.nunique() <= _BINS:
        return pd.factorize(values)[0]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)[1].reshape(-1)


def _cramers_v(codes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Bias-corrected V between (n,) codes and each row of (b, n) targets, which are permutations of one another."""
    n, rows, columns = len(codes), codes.max() + 1, targets.max() + 1
    feature = np.eye(rows)[codes]
    expected = np.outer(feature.sum(axis=0), np.bincount(targets[0], minlength=columns)) / n
    chi2 = np.array([(((feature.T @ np.eye(columns)[target]) - expected) ** 2 / expected).sum() for target in targets])
    correction = (rows - 1) * (columns - 1) / (n - 1)
    narrow = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return np.sqrt(np.maximum(0, chi2 / n - correction) / narrow) if narrow > 0 else np.zeros(len(targets))


def _as_numbers(form: pd.DataFrame) -> np.ndarray:
    columns = [form[c] if form[c].dtype.kind in "fiub" else pd.Series(pd.factorize(form[c])[0]) for c in form.columns]
    return np.column_stack(columns).astype(np.float32)


def _tree_scores(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(b,) cross-validated balanced accuracy for each row of (b, n) targets; the same folds for all."""
    n, classes = len(features), targets.max() + 1
    fold = np.random.default_rng(0).permutation(np.arange(n) % _FOLDS)
    parts = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(_FOLDS)]
    counts = np.bincount(targets[0], minlength=classes)
    tree = DecisionTreeClassifier(max_depth=5, min_samples_leaf=5, random_state=0)
    scores = np.empty(len(targets))
    for b, target in enumerate(targets):
        guess = np.empty_like(target)
        for train, test in parts:
            tree.fit(features[train], target[train], sample_weight=1 / counts[target[train]], check_input=False)
            guess[test] = tree.predict(features[test], check_input=False)
        scores[b] = np.mean(np.bincount(target[guess == target], minlength=classes) / counts)
    return scores
