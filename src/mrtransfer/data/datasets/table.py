"""A user's own table."""

from collections.abc import Sequence
from pathlib import Path

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets._common import require_one_label_per_subject
from mrtransfer.data.manifest import Manifest


@DATASETS.register("table")
def table(
    path: str | Path | None = None, *, classes: Sequence[str] | None = None, one_label_per_subject: bool = False
) -> Manifest:
    """Your own CSV or Parquet: columns sample and image, and subject, label, split, mask, … where known.

    Paths in it are relative to the table's folder; columns beside the manifest's are kept. ``classes`` gives the order
    of the labels, by default as the column ``class`` numbers them, or else sorted. Raises :class:`UserError` that names
    the column and row of the first problem.
    """
    if path is None:
        raise UserError("dataset table needs a path: a .csv or .parquet file with the columns sample, image and label")
    manifest = Manifest.load(path)
    if classes is not None:
        manifest = Manifest.create(manifest.table, manifest.root, manifest.name, list(classes), where=path)
    return require_one_label_per_subject(manifest, Path(path)) if one_label_per_subject else manifest
