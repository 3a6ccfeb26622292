"""What a transferability score is: a number that wants to tell, before any training, how well weights will transfer.

A score looks at the labelled samples that a study may learn from, through the network as it is before training; never
at test subjects. All scores are made so that higher promises more. Whether they keep that promise is for
:mod:`mrtransfer.study.transferability` to say, beside baselines that look at no data at all.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.named import Named, parse_named
from mrtransfer.shift.scores import SCORES


class CaseVoxels(NamedTuple):
    """Features of voxels of one labelled case, as rows (k, D)."""

    subject: str
    whole: np.ndarray
    """Of voxels drawn from all of the case, whatever their class."""
    classes: Mapping[int, np.ndarray]
    """Of voxels of each class other than background that the case has."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of one initial network and the samples that may be learned from; None: not known."""

    features: np.ndarray | None = None
    """(N, D) pooled features."""
    labels: np.ndarray | None = None
    """(N,) class indices."""
    subjects: np.ndarray | None = None
    """(N,) who each sample is of."""
    source_probabilities: np.ndarray | None = None
    """(N, Z) what the source model's own head says of the samples."""
    cases: Sequence[CaseVoxels] | None = None
    """For segmentation: features of voxels, case by case."""
    parameters: int | None = None
    """Of the network without its head."""
    imagenet: str | None = None
    """The name of published ImageNet weights, tag included: ``resnet18.a1_in1k``."""

    @property
    def samples(self) -> tuple[np.ndarray, np.ndarray]:
        """Features and labels, where both are known."""
        if self.features is None or self.labels is None:
            raise ValueError("features or labels are not known")
        return self.features, self.labels


_WORDS = {
    "features": "pooled features",
    "labels": "labels",
    "subjects": "subjects",
    "source_probabilities": "the source model's own classifier",
    "cases": "features of voxels",
    "parameters": "the number of parameters",
    "imagenet": "published ImageNet weights of a known name",
}


class Score(Named):
    """One score; a subclass in ``shift/scores/`` adds its settings as fields."""

    words: ClassVar[str] = ""
    """As a table calls it."""
    baseline: ClassVar[bool] = False
    """Whether it looks at no sample: what a score must beat to be worth computing."""
    needs: ClassVar[tuple[str, ...]] = ("features", "labels")
    """The fields of :class:`Evidence` without which it cannot be computed."""

    @abstractmethod
    def value(self, evidence: Evidence) -> float:
        """The score; everything in :attr:`needs` is there."""

    def lacks(self, evidence: Evidence) -> str | None:
        """What would be needed and is not known, in words; None where nothing is missing."""
        missing = [_WORDS[name] for name in self.needs if getattr(evidence, name) is None]
        return " and ".join(missing) or None

    def __call__(self, evidence: Evidence) -> float:
        """The score, finite; :class:`UserError` where something is missing, or the samples cannot be scored."""
        missing = self.lacks(evidence)
        if missing:
            raise UserError(f"score {self.name}: needs {missing}")
        value = float(self.value(evidence))
        if not np.isfinite(value):
            raise UserError(f"score {self.name}: is not finite on these samples; leave it out")
        return value


def parse_score(value: Any, where: str = "scores") -> Score:
    """A score: see :func:`~mrtransfer.common.named.parse_named`."""
    found: Score = parse_named(value, SCORES, where)
    return found


def check_classes(labels: np.ndarray, rows: int | None = None) -> np.ndarray:
    """(N,) labels as 0 … C − 1, where classes that do not occur are left out.

    Raises :class:`UserError` where there are fewer than two classes, a label is no class index, or there are not
    ``rows`` of them.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels):
        raise UserError(f"labels: have shape {labels.shape}; right is one class index per sample")
    if rows is not None and len(labels) != rows:
        raise UserError(f"labels: {len(labels)} for {rows} samples; right is one class index per sample")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise UserError("labels: must be class indices 0, 1, …; samples without a label must be left out")
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise UserError("labels: only one class; a transferability score needs samples of two classes or more")
    return codes


def check_table(table: np.ndarray, what: str = "features") -> np.ndarray:
    """float64 (N, D); :class:`UserError` where it is no table of finite numbers, or all rows are the same."""
    found = np.asarray(table)
    if found.ndim != 2 or found.shape[0] < 2 or not found.shape[1]:
        raise UserError(f"{what}: have shape {found.shape}; right is a table of two samples or more, one row each")
    found = found.astype(np.float64)
    if not np.isfinite(found).all():
        raise UserError(f"{what}: some are NaN or infinite; leave out these samples, or the network that gives them")
    if (found == found[0]).all():
        raise UserError(f"{what}: are constant, the same for all {len(found)} samples; nothing can be told from them")
    return found


def check_samples(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`check_table` of the features (N, D) and :func:`check_classes` of the labels (N,)."""
    table = check_table(features)
    return table, check_classes(labels, len(table))
