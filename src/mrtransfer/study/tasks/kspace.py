"""Domains of k-space: fully sampled volumes, read by slice where they lie, and who belongs together."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace import KspaceStore, open_kspace
from mrtransfer.data.split import units
from mrtransfer.physics.masks import SampledColumns, Sampling
from mrtransfer.study.domain import Domain, read_dataset
from mrtransfer.study.recipe import DatasetSpec
from mrtransfer.training.reconstruct import columns_by_name


@dataclass(frozen=True)
class KspaceDomain(Domain):
    """Volumes of k-space; row i is one of them."""

    store: KspaceStore

    @property
    def names(self) -> list[str]:
        """The volumes' files, by which the masks of their scores are drawn."""
        return [self.store.volume(row).name for row in range(len(self.store))]

    def target(self, row: int) -> np.ndarray:
        """(S, h, w) float32: what a volume's images should be."""
        volume = self.store.volume(row)
        images = [volume.read(index).target for index in range(volume.slices)]
        return np.stack([image for image in images if image is not None])

    def masks(self, row: int, sampling: Sampling) -> list[SampledColumns]:
        """The mask by which a volume is scored at each acceleration, the same for all its slices."""
        volume = self.store.volume(row)
        return [columns_by_name(sampling, volume, choice) for choice in range(len(sampling.acceleration))]


def open_volumes(spec: DatasetSpec, sampling: Sampling, folder: Path, by: tuple[str, ...]) -> KspaceDomain:
    """The dataset's volumes; those of the same k-space belong together, whatever their names.

    Raises :class:`UserError` where a volume is undersampled already, empty, or too narrow for ``sampling``.
    """
    if spec.labels:
        raise UserError(f"dataset {spec.dataset}: labels are for classes and masks, and k-space has none; leave it out")
    manifest = read_dataset(spec)
    store = open_kspace(manifest, folder / "kspace")
    digests = store.row_digests.tolist()
    manifest = manifest.with_groups([name if digests.count(name) > 1 else "" for name in digests])
    domain = KspaceDomain(manifest, np.zeros(len(manifest), dtype=np.int64), units(manifest, by=by), None, [], store)
    for row in range(len(store)):
        volume = store.volume(row)
        if not volume.fully_sampled:
            raise UserError(
                f"{volume.location}: is undersampled already (a test file?), and a study undersamples full k-space "
                "itself; give fully sampled files (of fastMRI's: targets: true leaves the others out)"
            )
        if not 0 < (volume.max_value or 0) < np.inf:
            raise UserError(
                f"{volume.location}: the largest value of its images is {volume.max_value}; it must be a positive "
                "number, so leave this file out"
            )
        try:
            domain.masks(row, sampling)
        except UserError as problem:
            raise UserError(f"sampling.{problem} ({volume.location})") from problem
    return domain
