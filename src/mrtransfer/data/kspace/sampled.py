"""Which columns of k-space were acquired, where no file says so."""

from collections.abc import Callable

import numpy as np

from mrtransfer.common.errors import UserError

Sampled = tuple[np.ndarray | None, tuple[int, int] | None]
"""Columns bool (W,), None where fully sampled; and padding, None where all columns were acquired."""


def acquired(columns: np.ndarray) -> Sampled:
    """What the sampled ``columns`` bool (W,) mean: one block is fully sampled, what surrounds it is padding."""
    at = np.flatnonzero(columns)
    first, end = int(at[0]), int(at[-1]) + 1
    if len(at) < end - first:
        return columns, None
    return None, None if end - first == len(columns) else (first, end)


def held_columns(read: Callable[[int], np.ndarray], slices: int, where: str) -> np.ndarray:
    """bool (W,): the columns that hold anything but zeros in the first slice that is not empty.

    ``read(slice)`` is k-space (C, H, W). Raises :class:`UserError` that names the file where all slices are empty.
    """
    for index in range(slices):
        columns = np.asarray((read(index) != 0).any(axis=(0, 1)))
        if columns.any():
            return columns
    raise UserError(f"{where}: holds nothing but zeros; export it again")
