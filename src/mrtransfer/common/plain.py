"""Results as JSON can write them."""

from typing import Any

import numpy as np

_DECIMALS = 6  # what differs beyond is rounding, and results must be the same bytes every time


def plain(value: Any) -> Any:
    """``value`` with NumPy numbers made Python's, rounded to 6 decimals, and None for what is not finite."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return round(value, _DECIMALS) + 0.0 if np.isfinite(value) else None
    return value
