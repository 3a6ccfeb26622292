"""Whole cases in a segmentation study: segmented on their original grid, cleaned, scored by subject, kept."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from mrtransfer.data.volume.volume import spacing_of
from mrtransfer.models.segmentation import SegmentationNetwork
from mrtransfer.study.recipe.segmentation import SegmentationArm
from mrtransfer.study.tasks.volumes import PackedMask, VolumeDomain
from mrtransfer.study.workshop import Scores, Trained
from mrtransfer.tasks.segmentation.clean import Cleaning, choose_cleaning
from mrtransfer.tasks.segmentation.metrics import evaluate_subject
from mrtransfer.tasks.segmentation.outputs import to_classes
from mrtransfer.training.precision import choose_device, placed
from mrtransfer.training.sliding import predict_case

if TYPE_CHECKING:
    from mrtransfer.study.tasks.segmentation import SegmentationWorkshop

TrainedOnVolumes = Trained[SegmentationArm, VolumeDomain, SegmentationNetwork]


def predictions(
    workshop: "SegmentationWorkshop",
    trained: TrainedOnVolumes,
    domain: VolumeDomain,
    rows: np.ndarray,
    *,
    cleaned: bool = True,
) -> Iterator[tuple[int, np.ndarray]]:
    """(row, uint8 classes on the original grid) of every case, one at a time and in the order of ``rows``."""
    arm, fold = trained.job.arm, trained.job.fold
    device, inference = choose_device(workshop.device), workshop.recipe.inference
    store, plan = workshop.store(domain, fold, arm), workshop.plans.plan(domain, fold, workshop.dims(arm))
    cleaning = Cleaning.from_json(trained.record.get("clean")) if cleaned else None
    with placed(trained.precision, device, trained.network, trained.head):
        for row in map(int, rows):
            probabilities = predict_case(
                trained.network, trained.head, store.image(row), plan=plan, loss=arm.loss,
                precision=trained.precision, device=device, overlap=inference.overlap, mirror=inference.mirror,
            )  # fmt: skip
            frame = store.frame(row)
            classes = to_classes(frame.to_original(probabilities), arm.loss, domain.mask_labels)
            yield row, classes if cleaning is None else cleaning.apply(classes, frame.affine, domain.mask_labels)


def chosen_cleaning(workshop: "SegmentationWorkshop", trained: TrainedOnVolumes) -> Cleaning | None:
    """Which small components to remove, as far as that raises the Dice of the validation cases."""
    domain, rows = trained.job.domain, trained.job.validation
    store = workshop.store(domain, trained.job.fold, trained.job.arm)
    predicted = dict(predictions(workshop, trained, domain, rows, cleaned=False))
    return choose_cleaning(
        list(predicted.values()),
        [domain.reference(row) for row in predicted],
        [spacing_of(store.frame(row).affine) for row in predicted],
        domain.mask_labels,
    )


def score_subjects(
    workshop: "SegmentationWorkshop", trained: TrainedOnVolumes, domain: VolumeDomain, rows: np.ndarray
) -> Scores:
    """One row of metrics per subject, in the place of its first case; the predicted masks are kept.

    The predictions of one subject are in memory at a time, and of the others only the boxes that hold something.
    """
    store = workshop.store(domain, trained.job.fold, trained.job.arm)
    units, names = domain.units, workshop.measures.names
    kept: dict[str, np.ndarray] = {}
    table: dict[int, list[float]] = {}
    by_unit = rows[np.argsort(units[rows], kind="stable")]
    found = predictions(workshop, trained, domain, by_unit)
    for _, of_unit in groupby(found, key=lambda one: units[one[0]]):
        own = dict(of_unit)
        scores = evaluate_subject(
            list(own.values()),
            [domain.reference(row) for row in own],
            [spacing_of(store.frame(row).affine) for row in own],
            domain.mask_labels,
        )
        table[min(own)] = [scores[name] for name in names]
        for row, classes in own.items():
            kept |= _named(row, PackedMask.of(classes))
    first = np.array(sorted(table), dtype=np.int64)
    values = np.array([table[row] for row in first.tolist()], dtype=np.float64).reshape(len(first), len(names))
    return Scores(first, values, kept)


def _named(row: int, mask: PackedMask) -> dict[str, np.ndarray]:
    return {f"mask_{row}": mask.inside, f"corner_{row}": np.array(mask.corner), f"shape_{row}": np.array(mask.shape)}


def kept_mask(kept: Mapping[str, np.ndarray], row: int) -> np.ndarray:
    """The predicted classes (X, Y, Z) of a test case among what a run kept."""
    corner, shape = (tuple(kept[f"{name}_{row}"].tolist()) for name in ("corner", "shape"))
    return PackedMask(kept[f"mask_{row}"], corner, shape).unpacked()
