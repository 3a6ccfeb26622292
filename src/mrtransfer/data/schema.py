"""The manifest's columns, and the check that a table has them as they should be."""

import numpy as np
import pandas as pd

from mrtransfer.common.errors import UserError, nearest

SPLITS = ("train", "validation", "test")
TEXT = ("sample", "subject", "group", "split", "label", "mask", "scanner")
NUMBERS = ("spacing_x", "spacing_y")
COLUMNS = (*TEXT[:5], "image", "mask", *NUMBERS, "scanner")


def image_columns(table: pd.DataFrame, strip: bool = False) -> list[str]:
    """The columns with images: ``image``, or all ``image:<channel>``; with ``strip``, the channels' names alone."""
    if "image" in table:
        return ["image"]
    return [str(c).removeprefix("image:") if strip else str(c) for c in table.columns if str(c).startswith("image:")]


def _first(flags: pd.Series) -> int:
    """Position of the first True."""
    return int(np.flatnonzero(flags.to_numpy(dtype=bool))[0])


def row_name(source: str, row: int) -> str:
    """How errors name a row: as a spreadsheet counts, where the first line holds the column names."""
    return f"{source}: row {row + 2}"


def with_types(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """``table`` with every column of the schema, in the schema's types and order."""
    columns = [str(column) for column in table.columns]
    for column in columns:
        if columns.count(column) > 1:
            raise UserError(f"{source}: the column {column!r} is there twice; each may appear once")
    table = table.set_axis(columns, axis="columns")
    channels = [column for column in columns if column.startswith("image:")]
    if "image" in columns and channels:
        raise UserError(f"{source}: give either the column 'image' or {', '.join(channels)}, not both")
    images = channels or ["image"]
    for column in ("sample", *images):
        if column not in columns:
            close = nearest(column, [c for c in columns if c not in COLUMNS])
            hint = f"; rename {close!r}?" if close else f"; it has: {', '.join(columns) or 'none'}"
            raise UserError(f"{source}: the column {column!r} is missing{hint}")
    for column in (*TEXT, *images, *NUMBERS):
        values = table[column] if column in columns else pd.Series(pd.NA, index=table.index, name=column)
        table[column] = _as_number(values, source) if column in NUMBERS else _as_text(values)
    first = [*TEXT[:5], *images, "mask", *NUMBERS, "scanner"]
    return table[[*first, *(c for c in table.columns if c not in first)]]


def _as_text(column: pd.Series) -> pd.Series:
    """Text with NA; whole numbers that a missing value turned into floats (1.0) read as they were written (1)."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    text = column.astype("string")
    return text.where(text.str.strip() != "", pd.NA)


def _as_number(column: pd.Series, source: str) -> pd.Series:
    numbers = pd.to_numeric(column.astype(object).where(column.notna(), None), errors="coerce").astype("float64")
    wrong = (numbers.isna() & column.notna()) | (numbers <= 0)
    if wrong.any():
        row = _first(wrong)
        raise UserError(
            f"{row_name(source, row)}: {column.name} is '{column.iloc[row]}'; it must be a size in mm above 0"
        )
    return numbers


def check_rows(table: pd.DataFrame, source: str) -> None:
    """Raise :class:`UserError` that names the first row that is empty, there twice, or of an unknown split."""
    if table.empty:
        raise UserError(f"{source}: holds no images")
    for column in ("sample", *image_columns(table)):
        empty = table[column].isna()
        if empty.any():
            raise UserError(f"{row_name(source, _first(empty))}: {column!r} is empty; every sample needs one")
    twice = table["sample"].duplicated()
    if twice.any():
        row = _first(twice)
        name = table["sample"].iloc[row]
        raise UserError(f"{row_name(source, row)}: sample {name!r} is there twice; names must be unique")
    wrong = table["split"].notna() & ~table["split"].isin(SPLITS)
    if wrong.any():
        row = _first(wrong)
        given = table["split"].iloc[row]
        raise UserError(f"{row_name(source, row)}: split is {given!r}; it must be {', '.join(SPLITS)} or empty")
