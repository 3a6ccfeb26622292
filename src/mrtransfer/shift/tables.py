"""Two tables of features that can be compared, or the sentence that says why they cannot."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from mrtransfer.common.errors import UserError

_BYTES = 2**26  # of a table that are looked at together


class Rows(Protocol):
    """A table (n, d) that gives its rows slice by slice: an array, a memory map, a dataset in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""

    def __getitem__(self, rows: slice, /) -> Any:
        """The rows as an array."""


def check_tables(
    x: np.ndarray, y: np.ndarray, units_x: np.ndarray | None = None, units_y: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Both tables (n, d) and (m, d) as float32 or float64; ``units`` are the subjects of their rows.

    Raises :class:`UserError` for tables that are not tables of numbers, of unlike width, with NaN or infinite values,
    with fewer than two rows or subjects, that are the same rows, or in which every feature is constant.
    """
    x, y = _floats(x, "X"), _floats(y, "Y")
    check_rows(x, y)
    for name, table, units in (("X", x, units_x), ("Y", y, units_y)):
        if units is not None:
            _check_units(name, table, np.asarray(units))
    if x.shape == y.shape and _same_rows(x, y):
        raise UserError("X and Y are identical: they hold the same rows, so there are not two domains to compare")
    return x, y


def check_rows(x: Rows, y: Rows) -> None:
    """The part of :func:`check_tables` that needs a few rows at a time, for tables larger than memory."""
    for name, table in (("X", x), ("Y", y)):
        if len(table.shape) != 2:
            raise UserError(f"{name} has the shape {tuple(table.shape)}: give a table (samples, features)")
        if table.shape[0] < 2:
            raise UserError(f"{name} has {table.shape[0]} rows: a distance needs at least two subjects in each domain")
    if x.shape[1] != y.shape[1] or x.shape[1] == 0:
        raise UserError(
            f"X has {x.shape[1]} features and Y has {y.shape[1]}: both need the same ones, from the same extractor"
        )
    constant = np.ones(x.shape[1], bool)
    reference = np.asarray(x[0:1])
    for name, table in (("X", x), ("Y", y)):
        for start, rows in chunks(table):
            _check_finite(name, rows, start)
            constant &= (rows == reference).all(0)
    if constant.all():
        raise UserError("every feature is constant, the same in all rows of X and Y: there is nothing to compare")


def chunks(table: Rows, rows: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) of ``table``, so many at a time, or as many as fit 64 MiB."""
    number = rows or max(1, _BYTES // (8 * table.shape[1]))
    for start in range(0, table.shape[0], number):
        yield start, np.asarray(table[start : start + number])


def _floats(table: np.ndarray, name: str) -> np.ndarray:
    table = np.asarray(table)
    if table.dtype.kind not in "fiub":
        raise UserError(f"{name} holds {table.dtype}: features must be real numbers")
    return table if table.dtype in (np.float32, np.float64) else table.astype(np.float64)


def _check_units(name: str, table: np.ndarray, units: np.ndarray) -> None:
    if units.shape != (len(table),):
        raise UserError(f"{name} has {len(table)} rows and {units.size} subjects: give the subject of every row")
    if len(np.unique(units)) < 2:
        raise UserError(f"all rows of {name} are of one subject: a distance needs at least two subjects in each domain")


def _check_finite(name: str, rows: np.ndarray, start: int) -> None:
    bad = ~np.isfinite(rows)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        kind = "NaN" if np.isnan(rows[row, column]) else "an infinite value"
        raise UserError(
            f"{name} holds {kind} in row {start + row}, feature {column} ({int(bad.any(1).sum())} such rows in this "
            "part of the table): leave these rows out or mend the extractor"
        )


def _same_rows(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether both hold the same rows in some order."""
    if not np.array_equal(np.sort(x[:, 0]), np.sort(y[:, 0])):
        return False
    x, y = (np.ascontiguousarray(table, np.float64) for table in (x, y))
    return sorted(hash(row.tobytes()) for row in x) == sorted(hash(row.tobytes()) for row in y)
