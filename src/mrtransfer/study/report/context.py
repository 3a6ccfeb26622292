"""What the report shows beside the statistics: images, curves, confusion, ROC, calibration, timings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mrtransfer.data.audit.report import Pair
from mrtransfer.study.statistics import Budget, Outcome
from mrtransfer.study.statistics.measures import CLASSIFICATION, Measures
from mrtransfer.study.statistics.pool import Cell, Pool, pool
from mrtransfer.tasks.classification.metrics import calibration_bins, confusion, roc_points

_PAIRS = 6  # pairs of duplicates shown
_GRID = np.linspace(0, 1, 101)  # false-positive rates at which the ROC curves of several seeds are averaged


@dataclass
class WrongCase:
    """One misclassified sample: its picture, and what was said of it (mean over seeds)."""

    image: np.ndarray  # uint8 (H, W) or (H, W, 3)
    sample: str
    true: str
    predicted: str
    probability: float  # given to the predicted class
    seeds_wrong: int
    seeds: int


@dataclass
class AuditPair:
    """Two images that the audit found alike, side by side in one picture."""

    image: np.ndarray | Path  # uint8 array, or a picture file
    caption: str


@dataclass
class CasePicture:
    """A test case in planes with the outlines of reference and prediction."""

    image: np.ndarray  # uint8 (H, W, 3)
    place: str  # best, median or worst
    sample: str
    score: str
    channels: Sequence[str]
    flat: bool  # one slice: channels side by side; otherwise a row of planes per channel


@dataclass
class SlicePicture:
    """A slice of a test volume: its reference, what each arm made of it, errors, a detail."""

    image: np.ndarray  # uint8 (H, W, 3)
    place: str  # best, median or worst
    sample: str
    score: str


@dataclass
class HeatPicture:
    """A test image beside itself under a heat map, with the box found in the map and the outline of the mask."""

    image: np.ndarray  # uint8 (H, W, 3)
    hit: bool
    place: str  # best, median or worst
    sample: str
    label: str
    score: str


@dataclass
class SubjectTable:
    """The main metric of every test subject, one column per arm."""

    metric: str
    arms: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    unit: str | None = None  # what a row is, where that is not the study's unit


@dataclass
class ReportContext:
    """Everything optional: the report leaves out what is not there.

    ``confusion`` (mean counts over seeds), ``roc`` and ``reliability`` belong to each arm's largest budget, named in
    ``budgets``. ``curves`` holds, per arm, one list of epochs per run; an epoch is a dictionary with ``epoch`` and any
    of ``train_loss``, ``validation_loss``, ``validation_accuracy``. ``froc``: region to arm to sensitivities at
    :data:`mrtransfer.study.report.froc.RATES`.
    """

    measures: Measures = CLASSIFICATION
    classes: Sequence[str] = ()
    example_images: dict[str, list[np.ndarray]] = field(default_factory=dict)
    wrong_cases: list[WrongCase] = field(default_factory=list)
    wrong_arm: str | None = None
    curves: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)
    together: bool = False
    source_curves: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)
    source_arms: dict[str, list[str]] = field(default_factory=dict)
    confusion: dict[str, np.ndarray] = field(default_factory=dict)
    roc: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    reliability: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    audit_pairs: list[AuditPair] = field(default_factory=list)
    pictures: list[CasePicture] = field(default_factory=list)
    slices: list[SlicePicture] = field(default_factory=list)
    pictured_arm: str | None = None
    subjects: SubjectTable | None = None
    parts_heading: str = "Region by region"  # of the table of metrics called <part>/<metric>
    froc: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    heat_pictures: list[HeatPicture] = field(default_factory=list)
    heat_arm: str | None = None
    split: list[dict[str, Any]] = field(default_factory=list)  # fold, and subjects in training, validation and test
    metric_notes: Sequence[str] = ()  # how the task's metrics are defined
    timings: dict[str, float] = field(default_factory=dict)  # seconds
    environment: dict[str, Any] = field(default_factory=dict)


def build_context(
    outcomes: Sequence[Outcome],
    labels: np.ndarray,
    *,
    classes: Sequence[str],
    samples: Sequence[str],
    images: np.ndarray,
    curves: Mapping[str, list[list[dict[str, Any]]]] | None = None,
    audit_pairs: Sequence[AuditPair | Pair] = (),
    timings: Mapping[str, float] | None = None,
    environment: Mapping[str, Any] | None = None,
    examples: int = 5,
    wrong: int = 12,
    units: np.ndarray | None = None,
) -> ReportContext:
    """Collect what the report shows.

    Args:
        outcomes: all outcomes of the study.
        labels: integer class (N,) per manifest row, −1 where there is none.
        classes: names of the classes.
        samples: name (N,) per manifest row.
        images: uint8 (N, C, H, W), as the store keeps them.
        curves: per arm, the epochs of each of its runs.
        audit_pairs: pictures of the worst pairs, or the audit's pairs themselves (of the same manifest), worst first.
        timings: seconds per stage of the study.
        environment: what it ran on.
        examples: example images per class.
        wrong: at most so many misclassified samples.
        units: what belongs together, (N,): of each unit only the most surely wrong sample is shown.
    """
    labels = np.asarray(labels)
    pooled = pool(outcomes, labels, np.arange(len(labels)))
    cells = [(arm, pooled.budgets(arm)[-1]) for arm in pooled.arms]
    best = max(cells, key=lambda cell: _accuracy(pooled, cell))
    return ReportContext(
        classes=classes,
        example_images=_examples(labels, classes, images, examples),
        wrong_cases=_wrong_cases(pooled, best, classes, samples, images, wrong, units),
        wrong_arm=best[0],
        curves=dict(curves or {}),
        confusion={cell[0]: _mean_confusion(pooled, cell) for cell in cells},
        roc={cell[0]: _mean_roc(pooled, cell, classes) for cell in cells},
        reliability={cell[0]: _reliability(pooled, cell) for cell in cells},
        budgets=dict(cells),
        audit_pairs=[_audit_pair(pair, images) for pair in audit_pairs[:_PAIRS]],
        timings=dict(timings or {}),
        environment=dict(environment or {}),
    )


def _runs(pooled: Pool, cell: Cell) -> list[np.ndarray]:
    return [pooled.runs[cell][seed] for seed in pooled.seeds(cell)]


def _accuracy(pooled: Pool, cell: Cell) -> float:
    return float(np.mean([(run.argmax(1) == pooled.labels).mean() for run in _runs(pooled, cell)]))


def _examples(
    labels: np.ndarray, classes: Sequence[str], images: np.ndarray, number: int
) -> dict[str, list[np.ndarray]]:
    """Images evenly spread over each class, so that one subject's neighbouring slices are not all there is to see."""
    found = {}
    for index, name in enumerate(classes):
        rows = np.flatnonzero(labels == index)
        picks = rows[np.linspace(0, len(rows) - 1, min(number, len(rows)), dtype=int)] if len(rows) else rows
        found[name] = [picture(images[row]) for row in picks]
    return found


def _wrong_cases(
    pooled: Pool,
    cell: Cell,
    classes: Sequence[str],
    samples: Sequence[str],
    images: np.ndarray,
    number: int,
    units: np.ndarray | None,
) -> list[WrongCase]:
    """The samples on which the arm is most surely wrong, judged by its mean probabilities over seeds."""
    runs = np.stack(_runs(pooled, cell))
    mean = runs.mean(0)
    predicted, surest = mean.argmax(1), mean.max(1)
    wrong = np.flatnonzero(predicted != pooled.labels)
    wrong = wrong[np.argsort(-surest[wrong], kind="stable")]
    if units is not None:
        _, first = np.unique(units[pooled.rows[wrong]], return_index=True)
        wrong = wrong[np.sort(first)]
    return [
        WrongCase(
            image=picture(images[pooled.rows[at]]),
            sample=str(samples[pooled.rows[at]]),
            true=classes[pooled.labels[at]],
            predicted=classes[predicted[at]],
            probability=float(surest[at]),
            seeds_wrong=int((runs[:, at].argmax(1) != pooled.labels[at]).sum()),
            seeds=len(runs),
        )
        for at in wrong[:number]
    ]


def _audit_pair(pair: AuditPair | Pair, images: np.ndarray) -> AuditPair:
    """The two images side by side, with their names, labels and published splits below."""
    if isinstance(pair, AuditPair):
        return pair
    both = [picture(images[row]) for row in pair.rows]
    if len({image.ndim for image in both}) > 1:
        both = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in both]
    names = []
    for sample, label, split in zip(pair.samples, pair.labels, pair.splits, strict=True):
        known = ", ".join(text for text in (label, split) if text)
        names.append(f"{sample} ({known})" if known else sample)
    return AuditPair(np.concatenate(both, axis=1), f"{pair.kind.replace('_', '-')}: {' and '.join(names)}")


def _mean_confusion(pooled: Pool, cell: Cell) -> np.ndarray:
    return np.mean([confusion(pooled.labels, run) for run in _runs(pooled, cell)], axis=0)


def _mean_roc(pooled: Pool, cell: Cell, classes: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per class (with two, only the second): true-positive rates at fixed false-positive rates, mean over seeds."""
    found = {}
    for index, name in enumerate(classes):
        positive = pooled.labels == index
        if (len(classes) == 2 and index == 0) or positive.all() or not positive.any():
            continue
        curves = [roc_points(positive, run[:, index]) for run in _runs(pooled, cell)]
        # of several points at one false-positive rate, np.interp takes the last: the highest, as it should
        found[name] = (_GRID, np.mean([np.interp(_GRID, false, true) for false, true in curves], axis=0))
    return found


def _reliability(pooled: Pool, cell: Cell) -> dict[str, np.ndarray]:
    runs = _runs(pooled, cell)
    return calibration_bins(np.tile(pooled.labels, len(runs)), np.concatenate(runs))


def picture(image: np.ndarray) -> np.ndarray:
    """uint8 (C, H, W) of the store → (H, W), or (H, W, 3) where there are three channels; else the first channel."""
    image = np.asarray(image)
    return image.transpose(1, 2, 0) if image.shape[0] == 3 else image[0]
