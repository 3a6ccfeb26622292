"""Whole volumes in a reconstruction study: reconstructed at every acceleration, scored, a slice kept for the report."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace import KspaceVolume
from mrtransfer.models.reconstruction import ReconstructionNetwork
from mrtransfer.physics.masks import SampledColumns
from mrtransfer.study.plan import Run
from mrtransfer.study.recipe.reconstruction import ReconstructionArm
from mrtransfer.study.tasks.kspace import KspaceDomain
from mrtransfer.study.workshop import Scores, Trained
from mrtransfer.tasks.reconstruction.metrics import RECONSTRUCTION_METRICS, evaluate_volume
from mrtransfer.training.precision import FLOAT32, Precision
from mrtransfer.training.reconstruct import reconstruct_volume

if TYPE_CHECKING:
    from mrtransfer.study.tasks.reconstruction import ReconstructionWorkshop

TrainedOnKspace = Trained[ReconstructionArm, KspaceDomain, ReconstructionNetwork]

MOST_KEPT = 64
"""Test volumes of a fold of which a run keeps a slice: enough to find a good, a middling and a bad one among."""


def score_volumes(
    workshop: "ReconstructionWorkshop", trained: TrainedOnKspace, domain: KspaceDomain, rows: np.ndarray
) -> Scores:
    """One row of metrics per volume: their means over accelerations, then those of each where there are several."""
    table = [_scores(workshop, trained, domain, row) for row in rows.tolist()]
    return Scores(rows, np.array(table, dtype=np.float64).reshape(len(rows), len(workshop.measures.names)))


def _scores(
    workshop: "ReconstructionWorkshop", trained: TrainedOnKspace, domain: KspaceDomain, row: int
) -> list[float]:
    volume, target = domain.store.volume(row), domain.target(row)
    each = []
    for mask in domain.masks(row, workshop.recipe.sampling):
        images = rebuilt(trained.network, volume, mask, trained.precision, workshop.device)
        found = evaluate_volume(images, target, volume.max_value or 0.0)
        each.append([found[name] for name in RECONSTRUCTION_METRICS])
    mean = np.mean(each, axis=0).tolist()
    return mean if len(each) == 1 else [*mean, *(value for own in each for value in own)]


def rebuilt(
    network: ReconstructionNetwork, volume: KspaceVolume, mask: SampledColumns, precision: Precision, device: str
) -> np.ndarray:
    """Magnitudes (S, h, w) float32 of ``volume``, all slices under one mask."""
    return reconstruct_volume(network, volume, columns_of=lambda _: mask, precision=precision, device=device)


def middle_slice(volume: KspaceVolume) -> KspaceVolume:
    """The volume without its other slices; its data range stays that of all."""
    middle, source = volume.slices // 2, volume.source
    return replace(volume, slices=1, source=lambda _, target: source(middle, target), stored_max=volume.max_value)


def try_out(workshop: "ReconstructionWorkshop", network: ReconstructionNetwork, where: str) -> None:
    """Reconstruct one slice of every kind of volume at each acceleration, so that what cannot be is told at once.

    Raises :class:`UserError` that begins with ``where``.
    """
    store = workshop.target.store
    kinds = np.concatenate([store.coils[:, None], store.matrices], axis=1)
    for row in np.unique(kinds, axis=0, return_index=True)[1].tolist():
        volume = middle_slice(store.volume(row))
        for mask in workshop.target.masks(row, workshop.recipe.sampling):
            try:
                rebuilt(network, volume, mask, FLOAT32, workshop.device)
            except UserError as problem:
                raise UserError(
                    f"{where}: {problem} ({volume.location}, {mask.acceleration:g}-fold undersampled)"
                ) from problem


def hardest(workshop: "ReconstructionWorkshop") -> int:
    """Which acceleration the report's pictures are of: the largest, at which arms differ most."""
    return int(np.argmax(workshop.recipe.sampling.acceleration))


def kept_rows(test: np.ndarray) -> np.ndarray:
    """The rows among a fold's ``test`` (n,) of which runs keep a slice: all, or :data:`MOST_KEPT` evenly chosen."""
    return test[np.unique(np.linspace(0, len(test) - 1, min(len(test), MOST_KEPT)).astype(int))]


def kept_slice(row: int) -> str:
    """What a run calls the slice that it keeps of a test volume."""
    return f"slice_{row}"


def kept_slices(workshop: "ReconstructionWorkshop", run: Run, network: ReconstructionNetwork) -> dict[str, np.ndarray]:
    """The middle slice of the run's test volumes at the largest acceleration, for pictures beside other arms'.

    float16 (h, w) in units of the volume's maximum, of :func:`kept_rows`.
    """
    domain, precision = workshop.target, workshop.precision(run.spec)
    kept = {}
    for row in kept_rows(run.test).tolist():
        volume = middle_slice(domain.store.volume(row))
        mask = domain.masks(row, workshop.recipe.sampling)[hardest(workshop)]
        image = rebuilt(network, volume, mask, precision, workshop.device)[0]
        kept[kept_slice(row)] = (image / np.float32(volume.max_value or 1.0)).astype(np.float16)
    return kept
