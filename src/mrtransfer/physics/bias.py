"""The bias field: slow changes of brightness from coils that do not see or excite all places alike."""

import numpy as np
from numpy.typing import NDArray

_ORDER = 3


def bias_field(shape: tuple[int, ...], strength: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """A smooth positive field of any dimension: exp of a random cosine series, geometric mean 1.

    ``strength`` is the standard deviation of the field's logarithm over the image; 0.2 is a field of about ±20 %.
    The first cosines (half waves up to the third) span what clinical head coils show; amplitudes fall with frequency.
    """
    axes = [_cosines(length) for length in shape]
    weights = generator.standard_normal((_ORDER,) * len(shape))
    order = np.stack(np.meshgrid(*[np.arange(_ORDER)] * len(shape), indexing="ij")).sum(0)
    weights = np.where(order == 0, 0.0, weights / np.maximum(order, 1) ** 2)
    weights *= strength / max(np.sqrt((weights**2).sum()), 1e-12)
    field = weights
    for axis in axes:  # contracts the leading axis and appends the image's, so after all of them the order is kept
        field = np.tensordot(field, axis, axes=(0, 1))
    return np.exp(field).astype(np.float32)


def _cosines(length: int) -> NDArray[np.float64]:
    """(length, order) cosines of unit mean square, the first constant."""
    phase = np.pi * (np.arange(length) + 0.5) / length
    waves = np.cos(phase[:, None] * np.arange(_ORDER))
    waves[:, 1:] *= np.sqrt(2)
    return waves
