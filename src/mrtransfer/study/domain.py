"""A domain made ready for a study: its table, who belongs together, and what the audit found."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.audit import Pair
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.manifest import Manifest
from mrtransfer.study.recipe import DatasetSpec


@dataclass(frozen=True)
class Domain:
    """Labelled samples of one domain; row i is the same sample in every field. A task adds where the pixels are."""

    manifest: Manifest
    labels: np.ndarray
    """(N,) class index of each sample, by which splits are stratified; all 0 where samples have no class."""
    units: np.ndarray
    """(N,) which samples must stay on the same side of any split: same subject, or copies of one image."""
    audit: dict[str, Any] | None
    """The audit's JSON; None for the phantom, which has no files, and for volumes."""
    audit_pairs: list[Pair]
    """The worst pairs of copies that the audit found."""

    @property
    def subjects(self) -> np.ndarray:
        """(N,) "dataset:subject", or "" where a sample's subject is not known."""
        names = self.manifest.table["subject"].astype("string")
        return (self.manifest.name + ":" + names).fillna("").to_numpy(dtype=object)

    def describe(self) -> dict[str, Any]:
        """For the results: what the data are."""
        return {
            **self.manifest.describe(),
            "units": len(np.unique(self.units)),
            "notes": list(self.manifest.notes),
        }


def read_dataset(spec: DatasetSpec) -> Manifest:
    """Build the dataset's table; an option it does not take is a :class:`UserError`."""
    try:
        manifest: Manifest = DATASETS.get(spec.dataset)(spec.path, **spec.options)
    except TypeError as error:
        raise UserError(f"dataset {spec.dataset}: {error}") from error
    return manifest
