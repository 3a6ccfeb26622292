"""Results as JSON can write them."""

from typing import Any

import numpy as np

_DECIMALS = 6  # what differs beyond is rounding, and results must be the same bytes every time


def plain(value: Any, *, significant: int | None = None) -> Any:
    """``value`` with NumPy numbers made Python's, rounded to 6 decimals, and None for what is not finite.

    ``significant``: rounded to so many digits instead, where numbers may be of any size.
    """
    if isinstance(value, dict):
        return {key: plain(item, significant=significant) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, significant=significant) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item(), significant=significant)
    if isinstance(value, float):
        if not np.isfinite(value):
            return None
        return (round(value, _DECIMALS) if significant is None else float(f"{value:.{significant}g}")) + 0.0
    return value
