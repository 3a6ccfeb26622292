"""The manifest: one table for every dataset, one row per sample."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.files import atomic_path
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.data.readers.location import moved
from mrtransfer.data.schema import SPLITS, TEXT, check_rows, image_columns, row_name, with_types


@dataclass(frozen=True, eq=False)
class Manifest:
    """A dataset as a table; build one with :meth:`create`, which checks it.

    Columns: ``sample`` (unique name) · ``subject`` · ``group`` (cluster of duplicates) · ``split`` (train, validation
    or test, as published) · ``label`` · ``image``, or one ``image:<channel>`` per channel · ``mask`` · ``spacing_x``
    and ``spacing_y`` (mm) · ``scanner``; all but ``sample`` and the images may be empty. Further columns are kept.

    ``image`` and ``mask`` hold locations: a path relative to ``root`` (or absolute), with a fragment where a file holds
    more than one image (``scan.nii.gz#axis=2&index=70``), or ``phantom:…`` for an image that is rendered.
    """

    table: pd.DataFrame
    root: Path
    name: str
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    mask_labels: MaskLabels | None = None

    @classmethod
    def create(
        cls,
        table: pd.DataFrame,
        root: str | Path,
        name: str,
        classes: Sequence[str] | None = None,
        notes: Sequence[str] = (),
        where: str | Path | None = None,
        mask_labels: MaskLabels | None = None,
    ) -> "Manifest":
        """Check ``table`` and fill in the columns it lacks.

        ``classes`` are in order (class i is label i); without them, the labels in sorted order. ``where`` is what
        errors call the table, by default ``name``. ``mask_labels`` says what the masks' values mean. Raises
        :class:`UserError` that names the column and row of the first problem.
        """
        source = str(where or name)
        checked = with_types(table.reset_index(drop=True), source)
        check_rows(checked, source)
        labels = checked["label"].dropna()
        if classes is None:
            classes = sorted(labels.unique())
        unknown = labels[~labels.isin(list(classes))]
        if len(unknown):
            raise UserError(
                f"{row_name(source, int(unknown.index[0]))}: {unknown_name('label', unknown.iloc[0], classes)}"
            )
        return cls(checked, Path(root), name, tuple(classes), tuple(notes), mask_labels)

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def labels(self) -> np.ndarray:
        """(n,) int64: index into :attr:`classes`; -1 where a sample has no label."""
        index = {name: i for i, name in enumerate(self.classes)}
        return np.array([-1 if pd.isna(v) else index[v] for v in self.table["label"]], dtype=np.int64)

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that have files of their own; ``('image',)`` where one file holds the whole image."""
        return tuple(image_columns(self.table, strip=True))

    @cached_property
    def _locations(self) -> list[list[str]]:
        return self.table[image_columns(self.table)].to_numpy(dtype=object).tolist()

    def locations(self, row: int) -> list[str]:
        """The locations of a sample's image, one per channel."""
        return list(self._locations[row])

    def take(self, rows: np.ndarray | Sequence[int] | Sequence[bool]) -> "Manifest":
        """The samples at ``rows`` (positions, or a mask of length n), in that order; classes stay as they are."""
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        return replace(self, table=self.table.iloc[chosen.astype(np.int64)].reset_index(drop=True))

    def with_groups(self, groups: pd.Series | np.ndarray | Sequence[str]) -> "Manifest":
        """The same samples with ``groups`` (n,) as clusters of duplicates; empty or missing means none."""
        values = pd.Series(np.asarray(groups, dtype=object)).astype("string")
        if len(values) != len(self):
            raise ValueError(f"{len(values)} groups for {len(self)} samples")
        return replace(self, table=self.table.assign(group=values.where(values != "", pd.NA)))

    def map_labels(self, mapping: Mapping[str, str]) -> "Manifest":
        """Rename or merge labels: ``{"no_tumor": "no", "*": "tumour"}``; ``*`` stands for all labels not named.

        The new classes are in order of first appearance in ``mapping``. Samples without a label stay so. Raises
        :class:`UserError` where ``mapping`` names a label that does not exist, or leaves one out and has no ``*``.
        """
        for old in mapping:
            if old != "*" and old not in self.classes:
                raise UserError(f"labels: {unknown_name('label', old, [*self.classes, '*'])}")
        left_out = [old for old in self.classes if old not in mapping]
        if left_out and "*" not in mapping:
            raise UserError(
                f"labels: {', '.join(left_out)} of {self.name} not mapped; name all of {', '.join(self.classes)}, "
                "or add '*' for the rest"
            )
        renamed = {old: str(mapping.get(old, mapping.get("*"))) for old in self.classes}
        classes = tuple(dict.fromkeys(str(new) for new in mapping.values()))
        table = self.table.assign(label=self.table["label"].map(renamed, na_action="ignore").astype("string"))
        return replace(self, table=table, classes=classes)

    def save(self, path: str | Path) -> Path:
        """Write the table as CSV or Parquet, for :meth:`load` or for ``dataset: table``.

        Locations are written relative to the table's folder; the columns ``dataset``, ``class`` (the label's index) and
        ``mask_labels`` (JSON) keep the dataset's name, the order of the classes and the meaning of the masks' values.
        """
        path = Path(path)
        _check_suffix(path)
        labels = pd.Series(self.labels, dtype="Int64")
        table = self.table.assign(dataset=self.name)
        table["class"] = labels.where(labels >= 0)
        if self.mask_labels is not None:
            table["mask_labels"] = json.dumps(self.mask_labels.to_json(), ensure_ascii=False)
        for column in [*image_columns(table), "mask"]:
            table[column] = table[column].map(lambda text: moved(text, self.root, path.parent), na_action="ignore")
        with atomic_path(path) as temporary:
            if path.suffix == ".parquet":
                table.to_parquet(temporary, index=False)
            else:
                table.to_csv(temporary, index=False)
        return path

    @classmethod
    def load(cls, path: str | Path, name: str | None = None) -> "Manifest":
        """Read a table in the manifest's columns from CSV or Parquet; paths in it are relative to its folder.

        Without a column ``dataset`` the dataset is called ``name``, or else as the file.
        """
        path = Path(path)
        table = _read_table(path)
        if table.empty:
            raise UserError(f"{path}: holds no rows; one row per image is needed")
        if "dataset" in table:
            kept = table.pop("dataset").dropna().astype(str).unique()
            name = str(kept[0]) if len(kept) == 1 and name is None else name
        classes = _classes_in_order(table, path) if "class" in table else None
        mask_labels = _mask_labels(table, path) if "mask_labels" in table else None
        return cls.create(table, path.parent, name or path.stem, classes, where=path, mask_labels=mask_labels)

    def describe(self) -> dict[str, Any]:
        """What is in the dataset, as JSON can write it: samples per class and split, subjects, channels, notes."""
        table = self.table
        per_class = {}
        for index, label in enumerate(self.classes):
            rows = table[self.labels == index]
            splits = rows["split"].value_counts()
            per_class[label] = {
                "samples": len(rows),
                "subjects": int(rows["subject"].nunique()),
                "splits": {split: int(splits[split]) for split in SPLITS if split in splits},
            }
        splits = table["split"].value_counts()
        return {
            "name": self.name,
            "samples": len(table),
            "unlabelled": int((self.labels < 0).sum()),
            "subjects": int(table["subject"].nunique()),
            "groups": int(table["group"].nunique()),
            "classes": per_class,
            "splits": {split: int(splits[split]) for split in SPLITS if split in splits},
            "channels": list(self.channels),
            "masks": int(table["mask"].notna().sum()),
            "mask_classes": list(self.mask_labels.names) if self.mask_labels else [],
            "mask_regions": list(self.mask_labels.region_names) if self.mask_labels else [],
            "scanners": sorted(table["scanner"].dropna().unique()),
            "notes": list(self.notes),
        }


def _check_suffix(path: Path) -> None:
    if path.suffix not in (".csv", ".parquet"):
        raise UserError(f"{path}: a table's name must end in .csv or .parquet")


def _read_table(path: Path) -> pd.DataFrame:
    _check_suffix(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        # Names such as 007 and labels such as None must stay what they are; only an empty cell is missing.
        header = pd.read_csv(path, nrows=0).columns
        text = {c: str for c in header if c in TEXT or c == "image" or str(c).startswith("image:")}
        return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    except (ValueError, OSError) as error:  # pandas' and Arrow's parse errors are ValueErrors
        raise UserError(f"{path}: cannot be read as {path.suffix[1:]}: {' '.join(str(error).split())}") from error


def _classes_in_order(table: pd.DataFrame, path: Path) -> list[str] | None:
    """The order that the column ``class`` gives to the labels; None where it does not give one."""
    pairs = pd.DataFrame({"index": pd.to_numeric(table["class"], errors="coerce"), "label": table.get("label")})
    pairs = pairs.dropna().drop_duplicates().sort_values("index")
    if pairs["index"].duplicated().any() or pairs["label"].duplicated().any():
        raise UserError(f"{path}: the column 'class' must give each label one number of its own")
    table.drop(columns="class", inplace=True)
    return [str(label) for label in pairs["label"]] or None


def _mask_labels(table: pd.DataFrame, path: Path) -> MaskLabels | None:
    """The meaning of the masks' values that the column ``mask_labels`` gives, the same in every row; taken out."""
    texts = table.pop("mask_labels").dropna().unique()
    if len(texts) > 1:
        raise UserError(f"{path}: the column 'mask_labels' must hold the same text in every row")
    if not len(texts):
        return None
    try:
        return MaskLabels.from_json(json.loads(str(texts[0])), f"{path}: the column 'mask_labels'")
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: the column 'mask_labels' is not valid JSON ({error})") from error
