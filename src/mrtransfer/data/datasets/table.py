"""A user's own table."""

from collections.abc import Sequence
from pathlib import Path

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets._cases import Classes, Regions
from mrtransfer.data.datasets._common import require_one_label_per_subject
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels


@DATASETS.register("table")
def table(
    path: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    mask_classes: Classes | None = None,
    mask_regions: Regions | None = None,
    one_label_per_subject: bool = False,
) -> Manifest:
    """Your own CSV or Parquet: columns sample and image, and subject, label, split, mask, … where known.

    Paths in it are relative to the table's folder; columns beside the manifest's are kept. ``classes`` gives the order
    of the labels, by default as the column ``class`` numbers them, or else sorted. ``mask_classes`` says what values in
    the masks mean, ``{lesion: 1, oedema: [2, 3]}``, by default what the column ``mask_labels`` of a saved manifest
    says, or else that all but 0 is foreground; ``mask_regions`` are scored, {name: [classes]}. Raises
    :class:`UserError` that names the column and row of the first problem.
    """
    if path is None:
        raise UserError("dataset table needs a path: a .csv or .parquet file with the columns sample, image and label")
    manifest = Manifest.load(path)
    masks, notes = manifest.mask_labels, list(manifest.notes)
    if mask_classes is not None:
        masks = MaskLabels.create(mask_classes, mask_regions)
    elif mask_regions is not None:
        raise UserError("dataset table: mask_regions needs mask_classes, whose names it is made of")
    elif masks is None and manifest.table["mask"].notna().any():
        masks = MaskLabels.binary("foreground")
        notes.append("masks: all but 0 is read as foreground; mask_classes: {name: value} tells classes apart")
    manifest = Manifest.create(
        manifest.table,
        manifest.root,
        manifest.name,
        manifest.classes if classes is None else list(classes),
        notes,
        where=path,
        mask_labels=masks,
    )
    return require_one_label_per_subject(manifest, Path(path)) if one_label_per_subject else manifest
