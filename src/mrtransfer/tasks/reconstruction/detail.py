"""Which part of a slice is worth a closer look."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_DETAIL = 4.5  # the image's longer side in sides of the detail
_WHITE = 99.7  # percentile of the reference that is shown white: the skin beside a surface coil outshines all else
_BODY = 0.1  # share of white from which on a pixel is of the body
_FILLED = 0.95  # of the largest share of the body that any window has


class Detail(NamedTuple):
    """A window of rows ``top`` … ``top + height`` − 1 and columns ``left`` … ``left + width`` − 1."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """What of ``image`` (h, w, …) lies in the window."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def detail_window(
    reference: np.ndarray,
    zero_filled: np.ndarray,
    arms: Sequence[np.ndarray],
    spacing: tuple[float, float] = (1.0, 1.0),
) -> Detail:
    """The square where the arms differ most from each other: the largest sum of their variance, the first of equals.

    Only squares that the body fills (almost) best are looked at, for the outermost skin and the air beside it differ
    most and tell least. With one arm, what counts is where it differs from zero-filled. The square's side is the
    image's longer side divided by 4.5.
    """
    compared = np.stack([*arms] if len(arms) > 1 else [zero_filled, *arms]).astype(np.float64)
    shape = compared.shape[1:]
    side = max(extent * step for extent, step in zip(shape, spacing, strict=True)) / _DETAIL
    height, width = (int(np.clip(round(side / step), 1, most)) for step, most in zip(spacing, shape, strict=True))
    body = _window_sums(reference > _BODY * white_of(reference), height, width)
    differing = _window_sums(np.nan_to_num(compared, posinf=0, neginf=0).var(axis=0), height, width)
    differing[body < _FILLED * body.max()] = -np.inf
    top, left = np.unravel_index(int(differing.argmax()), differing.shape)
    return Detail(int(top), int(left), height, width)


def _window_sums(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """The sum over each window of this size, by the place of its first pixel."""
    total = np.pad(values.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]


def white_of(reference: np.ndarray) -> float:
    """The magnitude that is shown white."""
    return float(np.percentile(reference, _WHITE)) or float(reference.max()) or 1.0
