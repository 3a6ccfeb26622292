"""A domain made ready for a study: its table, its pixels, who belongs together, and what the audit found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.audit import Pair, audit
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.split import units
from mrtransfer.data.store import Store, open_store
from mrtransfer.study.recipe import DatasetSpec, InputSpec


@dataclass(frozen=True)
class Domain:
    """Labelled samples of one domain; row i is the same sample in every field."""

    manifest: Manifest
    store: Store
    labels: np.ndarray
    """(N,) class index of each sample."""
    units: np.ndarray
    """(N,) which samples must stay on the same side of any split: same subject, or copies of one image."""
    audit: dict[str, Any] | None
    """The audit's JSON; None for the phantom, which has no files."""
    audit_pairs: list[Pair]
    """The worst pairs of copies that the audit found."""

    @property
    def content(self) -> str:
        """What defines this domain: its pixels."""
        return self.store.content

    @property
    def subjects(self) -> np.ndarray:
        """(N,) "dataset:subject", or "" where a sample's subject is not known."""
        names = self.manifest.table["subject"].astype("string")
        return (self.manifest.name + ":" + names).fillna("").to_numpy(dtype=object)


def read_manifest(spec: DatasetSpec) -> Manifest:
    """Build the dataset's table, map its labels, and keep the labelled samples."""
    try:
        manifest = DATASETS.get(spec.dataset)(spec.path, **spec.options)
    except TypeError as error:
        raise UserError(f"dataset {spec.dataset}: {error}") from error
    if spec.labels:
        manifest = manifest.map_labels(spec.labels)
    labelled = np.flatnonzero(manifest.labels >= 0)
    if len(labelled) < len(manifest):
        manifest = manifest.take(labelled)
    if len(manifest.classes) < 2 or len(set(manifest.labels.tolist())) < 2:
        found = ", ".join(manifest.classes) or "none"
        raise UserError(
            f"dataset {spec.dataset} at {spec.path}: classification needs two classes or more, found: {found}"
        )
    return manifest


def open_domain(spec: DatasetSpec, seen: InputSpec, folder: Path, by: tuple[str, ...]) -> Domain:
    """Read, audit and decode a domain once; what was computed before is found again in ``folder``."""
    manifest = read_manifest(spec)
    findings: dict[str, Any] | None = None
    pairs: list[Pair] = []
    if not str(manifest.locations(0)[0]).startswith("phantom:"):
        report = audit(manifest, cache=folder / "audit")
        findings, pairs = report.to_json(), report.pairs
        manifest = manifest.with_groups(report.groups)
    store = open_store(manifest, size=seen.size, fit=seen.fit, directory=folder / "pixels")
    return Domain(manifest, store, manifest.labels, units(manifest, by=by), findings, pairs)
