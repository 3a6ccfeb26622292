"""Whole cases in a segmentation study: segmented on their original grid, cleaned, scored by subject, kept."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from mrtransfer.data.volume.volume import spacing_of
from mrtransfer.models.segmentation import SegmentationNetwork
from mrtransfer.study.recipe.segmentation import SegmentationArm
from mrtransfer.study.tasks.volumes import PackedMask, VolumeDomain
from mrtransfer.study.workshop import Scores, Trained
from mrtransfer.tasks.segmentation.clean import Cleaning, choose_cleaning
from mrtransfer.tasks.segmentation.froc import Detections, detect_regions
from mrtransfer.tasks.segmentation.metrics import evaluate_subject
from mrtransfer.tasks.segmentation.outputs import to_classes
from mrtransfer.training.precision import choose_device, placed
from mrtransfer.training.sliding import predict_case

if TYPE_CHECKING:
    from mrtransfer.study.tasks.segmentation import SegmentationWorkshop

TrainedOnVolumes = Trained[SegmentationArm, VolumeDomain, SegmentationNetwork]


LESIONS, FALSE_POSITIVES = "lesions", "false_positives"
"""What a run keeps of its test cases for FROC: tables (n, 3) float64 of the case's row, the region's number, and the
confidence as in :class:`~mrtransfer.tasks.segmentation.froc.Detections`."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a trained network makes of one case."""

    row: int
    classes: np.ndarray
    """uint8 (X, Y, Z), on the original grid."""
    detections: tuple[Detections, ...]
    """The lesions of every region, and who found them; empty where nobody asked."""


def predictions(
    workshop: "SegmentationWorkshop",
    trained: TrainedOnVolumes,
    domain: VolumeDomain,
    rows: np.ndarray,
    *,
    final: bool = True,
) -> Iterator[Predicted]:
    """Every case, one at a time and in the order of ``rows``.

    ``final``: cleaned, and compared with the reference lesion by lesion; otherwise as it leaves the network.
    """
    arm, fold, labels = trained.job.arm, trained.job.fold, domain.mask_labels
    device, inference = choose_device(workshop.device), workshop.recipe.inference
    store, plan = workshop.seen(trained.job, domain), workshop.plans.plan(domain, fold, workshop.dims(arm))
    cleaning = Cleaning.from_json(trained.record.get("clean")) if final else None

    def predicted(row: int) -> Predicted:  # a function, so that the probabilities of only one case are in memory
        probabilities = predict_case(
            trained.network, trained.head, store.image(row), plan=plan, loss=arm.loss,
            precision=trained.precision, device=device, overlap=inference.overlap, mirror=inference.mirror,
        )  # fmt: skip
        frame = store.frame(row)
        maps = frame.to_original(probabilities)
        classes = to_classes(maps, arm.loss, labels)
        if cleaning is not None:
            classes = cleaning.apply(classes, frame.affine, labels)
        found = detect_regions(classes, maps, domain.reference(row), arm.loss, labels) if final else ()
        return Predicted(row, classes, found)

    with placed(trained.precision, device, trained.network, trained.head):
        yield from map(predicted, rows.tolist())


def chosen_cleaning(workshop: "SegmentationWorkshop", trained: TrainedOnVolumes) -> Cleaning | None:
    """Which small components to remove, as far as that raises the Dice of the validation cases."""
    domain, rows = trained.job.domain, trained.job.validation
    store = workshop.seen(trained.job, domain)
    found = predictions(workshop, trained, domain, rows, final=False)
    predicted = {one.row: one.classes for one in found}
    return choose_cleaning(
        list(predicted.values()),
        [domain.reference(row) for row in predicted],
        [spacing_of(store.frame(row).affine) for row in predicted],
        domain.mask_labels,
    )


def score_subjects(
    workshop: "SegmentationWorkshop", trained: TrainedOnVolumes, domain: VolumeDomain, rows: np.ndarray
) -> Scores:
    """One row of metrics per subject, in the place of its first case; predicted masks and detected lesions are kept.

    The predictions of one subject are in memory at a time, and of the others only the boxes that hold something.
    """
    store = workshop.seen(trained.job, domain)
    units, names = domain.units, workshop.measures.names
    kept: dict[str, np.ndarray] = {}
    table: dict[int, list[float]] = {}
    by_unit = rows[np.argsort(units[rows], kind="stable")]
    found = predictions(workshop, trained, domain, by_unit)
    detections: dict[int, tuple[Detections, ...]] = {}
    for _, of_unit in groupby(found, key=lambda one: units[one.row]):
        own: dict[int, np.ndarray] = {}
        for one in of_unit:
            own[one.row], detections[one.row] = one.classes, one.detections
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
    return Scores(first, values, kept | _tables(detections))


def _tables(detections: Mapping[int, tuple[Detections, ...]]) -> dict[str, np.ndarray]:
    """:data:`LESIONS` and :data:`FALSE_POSITIVES` of all cases."""
    listed: dict[str, list[tuple[int, int, float]]] = {LESIONS: [], FALSE_POSITIVES: []}
    for row, regions in sorted(detections.items()):
        for region, found in enumerate(regions):
            listed[LESIONS] += [(row, region, confidence) for confidence in found.lesions.tolist()]
            listed[FALSE_POSITIVES] += [(row, region, confidence) for confidence in found.false.tolist()]
    return {name: np.array(table, dtype=np.float64).reshape(-1, 3) for name, table in listed.items()}


def kept_detections(
    kept: Mapping[str, np.ndarray], rows: np.ndarray, units: np.ndarray, region: int
) -> list[Detections]:
    """What a run found of a region in each subject among its test ``rows``; ``units`` (N,) says whose a case is."""
    tables = [kept[name][kept[name][:, 1] == region] for name in (LESIONS, FALSE_POSITIVES)]
    owners = [units[table[:, 0].astype(np.int64)] for table in tables]
    return [
        Detections(*(table[owner == unit, 2] for table, owner in zip(tables, owners, strict=True)))
        for unit in np.unique(units[rows])
    ]


def _named(row: int, mask: PackedMask) -> dict[str, np.ndarray]:
    return {f"mask_{row}": mask.inside, f"corner_{row}": np.array(mask.corner), f"shape_{row}": np.array(mask.shape)}


def kept_mask(kept: Mapping[str, np.ndarray], row: int) -> np.ndarray:
    """The predicted classes (X, Y, Z) of a test case among what a run kept."""
    corner, shape = (tuple(kept[f"{name}_{row}"].tolist()) for name in ("corner", "shape"))
    return PackedMask(kept[f"mask_{row}"], corner, shape).unpacked()
