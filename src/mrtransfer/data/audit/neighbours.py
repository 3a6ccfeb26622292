"""How far memory alone gets: nearest neighbour on 32×32 grey pixels, on the leaked and the clean part of a split."""

from typing import Any

import numpy as np

from mrtransfer.data.audit.leakage import Sides
from mrtransfer.data.audit.similarity import reduced

_BLOCK = 1024


def nearest_neighbour(
    thumbnails: np.ndarray, labels: np.ndarray, units: np.ndarray, sides: Sides, leaks: np.ndarray, usable: np.ndarray
) -> dict[str, Any]:
    """Accuracies of a 1-nearest-neighbour rule (Euclidean distance of 32×32 grey pixels).

    ``published``: each test sample gets the label of its nearest training sample; ``leaked`` and ``clean``: the same on
    the test samples that have, or do not have, their like in training; ``majority_on_clean``: always the commonest
    training label. ``other_units``: every sample is judged by its nearest neighbour outside its own subject or cluster
    of copies; high where slices of one patient are filed as if they were independent. A value is None where nothing is
    there to score. ``usable`` (n,) excludes unreadable samples.
    """
    pixels = reduced(thumbnails, 32).reshape(len(thumbnails), -1)
    known = usable & (labels >= 0)
    scores: dict[str, Any] = {"published": None, "leaked": None, "clean": None, "other_units": None}
    scores["majority_on_clean"] = None
    train, test = np.flatnonzero(sides.train & known), np.flatnonzero(sides.test & known)
    if len(train) and len(test):
        right = labels[train[nearest(pixels[test], pixels[train])]] == labels[test]
        scores["published"] = _share(right)
        scores["leaked"], scores["clean"] = _share(right[leaks[test]]), _share(right[~leaks[test]])
        commonest = np.bincount(labels[train]).argmax()
        scores["majority_on_clean"] = _share(labels[test][~leaks[test]] == commonest)
        scores["tested"] = {
            "published": len(test),
            "leaked": int(leaks[test].sum()),
            "clean": int((~leaks[test]).sum()),
        }
    rows = np.flatnonzero(known)
    if len(np.unique(units[rows])) > 1:
        found = nearest(pixels[rows], pixels[rows], units[rows])
        scores["other_units"] = _share(labels[rows[found]] == labels[rows])
    return scores


def nearest(queries: np.ndarray, others: np.ndarray, units: np.ndarray | None = None) -> np.ndarray:
    """(q, d), (n, d) → (q,) index of the nearest of ``others``; the first of equals.

    With ``units`` (n,), where ``queries`` are ``others``, only those of another unit count.
    """
    centre = others.mean(axis=0)
    queries, others = (queries - centre).astype(np.float64), (others - centre).astype(np.float64)
    squares = (others**2).sum(axis=1)
    found = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), _BLOCK):
        distance = squares - 2 * queries[start : start + _BLOCK] @ others.T
        if units is not None:
            distance[units[start : start + _BLOCK, None] == units] = np.inf
        found[start : start + _BLOCK] = distance.argmin(axis=1)
    return found


def _share(right: np.ndarray) -> float | None:
    return float(right.mean()) if len(right) else None
