"""Domains of volumes: who belongs together, and for each fold the plan and the pixels prepared by it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import digest, file_digest, write_json
from mrtransfer.data.audit import audit
from mrtransfer.data.cases.fingerprint import fingerprint
from mrtransfer.data.cases.plan import SegmentationPlan, make_plan
from mrtransfer.data.cases.store import CaseStore, open_cases
from mrtransfer.data.harmoniser import FittedHarmoniser
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.readers import suffix
from mrtransfer.data.readers.location import Location, is_phantom
from mrtransfer.data.split import units
from mrtransfer.data.volume.case import read_reference
from mrtransfer.study.domain import Domain, read_dataset
from mrtransfer.study.plan import ALL, make_folds_of
from mrtransfer.study.recipe import DatasetSpec
from mrtransfer.study.recipe.segmentation import SegmentationRecipe
from mrtransfer.tasks.segmentation.extent import bounding_box

Dims = Literal[2, 3] | None
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".mat")
_KEPT = 2**28
"""Bytes of reference masks that are kept in memory, of each domain."""


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask as the box of all that is not background: a small part of most scans."""

    inside: np.ndarray
    corner: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, mask: np.ndarray) -> "PackedMask":
        """Copies what is needed of ``mask`` (X, Y, Z)."""
        box = bounding_box(mask) or (slice(0, 0),) * mask.ndim
        return cls(mask[box].copy(), tuple(side.start for side in box), mask.shape)

    def unpacked(self) -> np.ndarray:
        """The whole mask, a new array."""
        whole = np.zeros(self.shape, dtype=self.inside.dtype)
        whole[tuple(slice(low, low + size) for low, size in zip(self.corner, self.inside.shape, strict=True))] = (
            self.inside
        )
        return whole


@dataclass(frozen=True)
class VolumeDomain(Domain):
    """Volumes or images with masks; row i is one case."""

    _references: dict[int, PackedMask] = field(default_factory=dict, compare=False, repr=False)

    @property
    def mask_labels(self) -> MaskLabels:
        """What the values of the masks mean, as the recipe merges them."""
        assert self.manifest.mask_labels is not None  # open_volumes refuses datasets without
        return self.manifest.mask_labels

    def reference(self, row: int) -> np.ndarray:
        """uint8 (X, Y, Z) class indices on the case's own grid; kept, as every run of a fold asks for the same ones."""
        if row in self._references:
            return self._references[row].unpacked()
        mask = read_reference(self.manifest, row)
        packed = PackedMask.of(mask)
        if sum(one.inside.nbytes for one in self._references.values()) + packed.inside.nbytes <= _KEPT:
            self._references[row] = packed
        return mask


def open_volumes(spec: DatasetSpec, folder: Path, by: tuple[str, ...]) -> VolumeDomain:
    """The dataset's cases that have a mask, and who belongs together. Pixels are read when a plan is known.

    2-D images are audited for copies as in classification; of volumes, only files of identical bytes are found.
    """
    manifest = read_dataset(spec)
    if manifest.mask_labels is None:
        raise UserError(
            f"dataset {spec.dataset}: has no masks, which segmentation needs; choose another dataset, or "
            "'volumes' or 'table' with masks"
        )
    labels = manifest.mask_labels.merged(spec.labels) if spec.labels else manifest.mask_labels
    masked = np.flatnonzero(manifest.table["mask"].notna().to_numpy())
    if not len(masked):
        raise UserError(f"dataset {spec.dataset} at {spec.path}: no case has a mask, which segmentation needs")
    manifest = replace(manifest.take(masked) if len(masked) < len(manifest) else manifest, mask_labels=labels)
    findings, pairs = None, []
    if _flat(manifest):
        report = audit(manifest, cache=folder / "audit")
        findings, pairs = report.to_json(), report.pairs
        manifest = manifest.with_groups(report.groups)
    elif not is_phantom(manifest.locations(0)[0]):
        manifest = manifest.with_groups(_same_bytes(manifest))
    strata = np.zeros(len(manifest), dtype=np.int64)
    return VolumeDomain(manifest, strata, units(manifest, by=by), findings, pairs)


def _flat(manifest: Manifest) -> bool:
    """Whether the cases are pictures, not volumes or phantoms."""
    location = manifest.locations(0)[0]
    return not is_phantom(location) and suffix(Location.parse(location).path) in PICTURES


def _same_bytes(manifest: Manifest) -> list[str]:
    """(N,) the digest of each case's first file where another case's file has the same bytes, otherwise ""."""
    files = [Location.parse(manifest.locations(row)[0]).file(manifest.root) for row in range(len(manifest))]
    sizes = [file.stat().st_size if file.is_file() else -row for row, file in enumerate(files)]
    alike = {size for size in sizes if size > 0 and sizes.count(size) > 1}
    digests = [file_digest(file) if size in alike else "" for file, size in zip(files, sizes, strict=True)]
    return [name if name and digests.count(name) > 1 else "" for name in digests]


class Plans:
    """For each fold, the plan made from its training data (a file that the user may edit) and the prepared pixels.

    The model that is handed over has the first fold's plan: it may start from weights that were learned under that.
    """

    def __init__(self, recipe: SegmentationRecipe, folder: Path, target: VolumeDomain, source: VolumeDomain | None):
        self.recipe, self.folder, self.target, self.source = recipe, folder, target, source
        self.folds = {fold.index: fold for fold in make_folds_of(recipe, target)}
        self._plans: dict[tuple[str, int, Dims], SegmentationPlan] = {}
        self._stores: dict[str, CaseStore] = {}

    def plan(self, domain: VolumeDomain, fold: int, dims: Dims) -> SegmentationPlan:
        """How the domain's cases are prepared and cut into patches for the networks of ``fold``.

        It is the target's: grid, patch and network are the same for both domains, so that what is learned of one fits
        the other. Normalisation, cropping and class frequencies are each domain's own.
        """
        fold = next(iter(self.folds)) if fold == ALL else fold
        key = ("target" if domain is self.target else "source", fold, dims)
        if key not in self._plans:
            self._plans[key] = (self._target_plan if domain is self.target else self._source_plan)(fold, dims)
        return self._plans[key]

    def store(
        self, domain: VolumeDomain, fold: int, dims: Dims, harmonise: FittedHarmoniser | None = None
    ) -> CaseStore:
        """The domain's pixels, prepared, and harmonised first where asked; folds that agree on that share them."""
        plan = self.plan(domain, fold, dims)
        name = digest(["target" if domain is self.target else "source", plan.data_key, harmonise and harmonise.key])
        if name not in self._stores:
            directory = self.folder / "data" / "cases"
            self._stores[name] = open_cases(domain.manifest, plan, directory, harmonise=harmonise)
        return self._stores[name]

    def _target_plan(self, fold: int, dims: Dims) -> SegmentationPlan:
        """From the fold's development cases; its file is named by what it was made from, and kept once it is there."""
        found = fingerprint(self.target.manifest, self.folds[fold].development, cache=self.folder / "data")
        about = digest([found.to_json(), self.target.mask_labels.to_json(), self.recipe.plan, dims])[:8]
        path = self.folder / "plans" / f"fold-{fold}-{about}.json"
        if not path.is_file():
            write_json(path.with_name(f"fingerprint-{path.name}"), found.to_json())
            make_plan(found, dims=dims, overrides=self.recipe.plan).save(path)
        plan = SegmentationPlan.load(path)  # as the user may have edited it
        if len(plan.normalise) != len(found.channels):
            raise UserError(
                f"{path}: normalise has {len(plan.normalise)} entries; right is one for each of the "
                f"{len(found.channels)} channels ({', '.join(found.channels)})"
            )
        if dims not in (None, plan.dims):
            raise UserError(f"{path}: dims is {plan.dims}, and the recipe's network has dims: {dims}; both must agree")
        return plan

    def _source_plan(self, fold: int, dims: Dims) -> SegmentationPlan:
        """The target's, but for what the source's cases say of themselves; those of test subjects have no say."""
        assert self.source is not None
        own = self.plan(self.target, fold, dims)
        tested = [name for name in self.target.subjects[self.folds[fold].test] if name]
        others = np.flatnonzero(~np.isin(self.source.subjects, tested))
        rows = others if len(others) else np.arange(len(self.source.manifest))  # that nothing is left is told elsewhere
        found = fingerprint(self.source.manifest, rows, cache=self.folder / "data")
        theirs = make_plan(found, dims=own.dims, overrides=self._for_both())
        parts = ("normalise", "crop", "class_frequencies")
        return own.model_copy(update={name: getattr(theirs, name) for name in parts})

    def _for_both(self) -> dict[str, Any]:
        """What the recipe's ``plan`` says of preparation in words that fit any channels."""
        given = self.recipe.plan
        return {key: given[key] for key in ("crop", "normalise") if isinstance(given.get(key), str)}
