"""What copies do to a split: test samples whose like is in training, conflicting labels, subjects on both sides."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mrtransfer.data.audit.duplicates import KINDS, Duplicates
from mrtransfer.data.manifest import Manifest


@dataclass(frozen=True)
class Sides:
    """The published split: (n,) bool each; both empty where there is none. Validation counts as training."""

    train: np.ndarray
    test: np.ndarray

    @property
    def published(self) -> bool:
        """Whether there are both training and test samples."""
        return bool(self.train.any() and self.test.any())


def sides_of(manifest: Manifest) -> Sides:
    """Which samples are trained on and which are tested in the split that the dataset came with."""
    split = manifest.table["split"]
    return Sides(split.isin(["train", "validation"]).to_numpy(bool), (split == "test").fillna(False).to_numpy(bool))


def leaked(clusters: np.ndarray, sides: Sides) -> np.ndarray:
    """(n,) bool: test samples with a training sample in their cluster."""
    return sides.test & np.isin(clusters, clusters[sides.train])


def count_kinds(found: Duplicates, sides: Sides) -> dict[str, dict[str, int | None]]:
    """For each kind: clusters of two or more, the files in them, and test files whose like is in training."""
    counts: dict[str, dict[str, int | None]] = {}
    for kind in KINDS:
        clusters = getattr(found, kind)
        sizes = np.bincount(clusters)
        across = int(leaked(clusters, sides).sum()) if sides.published else None
        counts[kind] = {
            "clusters": int((sizes > 1).sum()),
            "files": int(sizes[sizes > 1].sum()),
            "test_in_train": across,
        }
    counts["flipped"] = _count_mirrored(found, sides)
    return counts


def _count_mirrored(found: Duplicates, sides: Sides) -> dict[str, int | None]:
    near, pairs = found.near_identical, found.mirrored
    a, b = near[pairs.first], near[pairs.second]
    touched = np.isin(near, np.concatenate([a, b]))
    trained = set(near[sides.train].tolist())
    reached = {x for x, y in zip([*a, *b], [*b, *a], strict=True) if y in trained}
    across = int((sides.test & np.isin(near, list(reached))).sum()) if sides.published else None
    clusters = len(np.unique(found.all[touched]))
    return {"clusters": clusters, "files": int(touched.sum()), "test_in_train": across}


def label_conflicts(manifest: Manifest, clusters: np.ndarray) -> list[dict[str, Any]]:
    """Clusters of copies whose labels differ: their samples and labels."""
    table = pd.DataFrame({"cluster": clusters, "sample": manifest.table["sample"], "label": manifest.table["label"]})
    conflicts = []
    for _, rows in table.dropna(subset=["label"]).groupby("cluster", sort=True):
        if rows["label"].nunique() > 1:
            conflicts.append({"samples": rows["sample"].tolist(), "labels": rows["label"].tolist()})
    return conflicts


def subjects_on_both_sides(manifest: Manifest, sides: Sides) -> int | None:
    """Subjects with training and test samples; None where subjects or a published split are not known."""
    subject = manifest.table["subject"]
    if not sides.published or subject.isna().all():
        return None
    return len(set(subject[sides.train].dropna()) & set(subject[sides.test].dropna()))


def images_of_several_subjects(manifest: Manifest, clusters: np.ndarray) -> int:
    """Clusters of copies that are filed under more than one subject."""
    named = manifest.table["subject"].notna().to_numpy()
    subjects = manifest.table["subject"][named].groupby(clusters[named]).nunique()
    return int((subjects > 1).sum())
