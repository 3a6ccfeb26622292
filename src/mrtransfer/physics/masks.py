"""Which phase-encoding lines an accelerated acquisition measures: fastMRI's rules, and variable density.

For the same seed, acceleration and centre fraction the columns are those of ``fastmri.data.subsample`` 0.3.0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from pydantic import field_validator, model_validator
from torch import Tensor

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.common.strict import Strict

Columns = NDArray[np.bool_]

KINDS = ("random", "equispaced", "equispaced_fraction", "magic", "magic_fraction", "variable_density")
_STEPPED = ("equispaced", "magic")  # every n-th line, so n is whole; the others reach width / acceleration lines
_DECAY = 3


@dataclass(frozen=True, eq=False)
class SampledColumns:
    """The outcome of a draw: ``columns`` (W,), the number of low-frequency lines, and the acceleration asked for."""

    columns: Columns
    centre: int
    acceleration: float


class Sampling(Strict):
    """How k-space is undersampled: low-frequency lines at the centre are kept, others are left out by a rule.

    ``mask``: one of :data:`KINDS`. ``acceleration``: how many times fewer lines, or several values of which each draw
    takes one. ``centre_fraction``: the kept fraction of all lines, one per acceleration. ``equispaced`` and ``magic``
    take every n-th line besides the centre, so they measure more than 1/n; the other kinds measure 1/n in all, the
    random ones on average.
    """

    mask: str
    acceleration: tuple[float, ...]
    centre_fraction: tuple[float, ...]

    @field_validator("acceleration", "centre_fraction", mode="before")
    @classmethod
    def _one_is_a_tuple(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _possible(self) -> "Sampling":
        if self.mask not in KINDS:
            raise ValueError(str(unknown_name("mask", self.mask, KINDS)))
        if not self.acceleration or not all(1 <= value < np.inf for value in self.acceleration):
            raise ValueError(f"acceleration: must be 1 (all lines) or more, not {_listed(self.acceleration)}")
        if self.mask in _STEPPED and any(value % 1 for value in self.acceleration):
            known = "give a whole number, or a mask that is not every n-th line, such as equispaced_fraction"
            raise ValueError(
                f"acceleration: {self.mask} takes every n-th line, not {_listed(self.acceleration)}; {known}"
            )
        if not all(0 < value <= 1 for value in self.centre_fraction):
            raise ValueError(f"centre_fraction: must be above 0 and at most 1, not {_listed(self.centre_fraction)}")
        if len(self.acceleration) != len(self.centre_fraction):
            counts = f"{len(self.centre_fraction)} for {len(self.acceleration)} accelerations"
            raise ValueError(f"centre_fraction: give one per acceleration, not {counts}")
        return self

    def draw(self, width: int, seed: int | tuple[int, ...], *, choice: int | None = None) -> SampledColumns:
        """The measured columns of a k-space ``width`` columns wide; a function of the arguments alone.

        ``choice``: which acceleration; drawn where None. fastMRI seeds with :func:`seed_of` a file's name, so that all
        slices of a volume share their mask. Integers above 32 bits are used as several of 32.
        Raises :class:`UserError` where this width leaves no centre line, or none besides the centre's.
        """
        generator = RandomState(_words(seed))
        if choice is None:
            choice = int(generator.randint(len(self.acceleration)))
        acceleration, fraction = self.acceleration[choice], self.centre_fraction[choice]
        centre = round(width * fraction)
        if centre < 1:
            most = f"a width of {width} needs at least {1 / width:.2g}"
            raise UserError(f"centre_fraction: {fraction:g} leaves no centre line; {most}")
        wanted = round(width / acceleration) if self.mask == "magic_fraction" else width / acceleration
        if self.mask not in _STEPPED and centre >= wanted:
            most = f"its {centre} centre lines are already all that acceleration {acceleration:g} allows"
            raise UserError(f"centre_fraction: {fraction:g} is too large for a width of {width}: {most}")
        columns = _RULES[self.mask](generator, width, acceleration, centre)
        columns[centre_lines(width, centre)] = True
        return SampledColumns(columns, centre, acceleration)


def seed_of(name: str) -> tuple[int, ...]:
    """The seed that fastMRI gives a file: the code points of its name, without the folder."""
    return tuple(map(ord, name))


def centre_lines(width: int, centre: int) -> slice:
    """Where ``centre`` low-frequency columns lie in ``width``; where they cannot lie evenly, as fastMRI puts them."""
    first = (width - centre + 1) // 2
    return slice(first, first + centre)


def centre_columns(columns: Tensor, centre: Tensor | None) -> Tensor:
    """Which columns (N, W) are the low frequencies, ``centre`` (N,) of them in number.

    Where that is None or 0, it is found: twice the shorter of the two runs of sampled columns that begin at the middle,
    one to either side, and at least 1.
    """
    width = columns.shape[-1]
    sides = columns[:, : width // 2].flip(1), columns[:, width // 2 :]
    left, right = (side.cumprod(dim=1).sum(dim=1) for side in sides)
    number = (2 * torch.minimum(left, right)).clamp_min(1)
    if centre is not None:
        number = torch.where(centre > 0, centre, number)
    first = ((width - number + 1) // 2)[:, None]
    at = torch.arange(width, device=columns.device)
    return (at >= first) & (at < first + number[:, None])


def restrict(columns: Columns, padding: tuple[int, int] | None) -> Columns:
    """``columns`` (…, W) with False outside the acquired ones: ``padding`` is the first, and one past the last.

    Scanners fill the rest with zeros, which an undersampled acquisition must not count as measured.
    """
    if padding is None:
        return columns
    inside = np.zeros(columns.shape[-1], dtype=bool)
    inside[padding[0] : padding[1]] = True
    return columns & inside


def apply_mask(kspace: Tensor, columns: Tensor) -> Tensor:
    """K-space (…, H, W) with zeros where ``columns`` (W,), or (N, W) for a batch (N, …, H, W), is False."""
    if columns.shape[-1] != kspace.shape[-1]:
        raise UserError(f"the mask has {columns.shape[-1]} columns, but the k-space has {kspace.shape[-1]}")
    return kspace * columns.reshape(*columns.shape[:-1], *(1,) * (kspace.ndim - columns.ndim), columns.shape[-1])


def _random(generator: RandomState, width: int, acceleration: float, centre: int) -> Columns:
    """Each line outside the centre with one probability, such that width / acceleration are expected in all."""
    return generator.uniform(size=width) < (width / acceleration - centre) / (width - centre)


def _variable_density(generator: RandomState, width: int, acceleration: float, centre: int) -> Columns:
    """Lines outside the centre with a probability that falls with their distance d from the centre.

    The probability is c (1 − d / (W/2 + 1))³, at most 1, a polynomial density as in Lustig et al., Sparse MRI, Magn
    Reson Med 58:1182 (2007); c is such that exactly width / acceleration lines are expected in all.
    """
    return generator.uniform(size=width) < density(width, acceleration, centre)


def density(width: int, acceleration: float, centre: int) -> NDArray[np.float64]:
    """The probability (W,) with which ``variable_density`` measures each column; its sum is width / acceleration."""
    weight = (1 - np.abs(np.arange(width) - width // 2) / (width // 2 + 1)) ** _DECAY
    weight[centre_lines(width, centre)] = 0
    falling = np.sort(weight)[::-1]
    expected = width / acceleration - centre
    for certain in range(width - centre):  # how many lines reach probability 1; the others share what is left
        factor = (expected - certain) / falling[certain:].sum()
        if factor * falling[certain] <= 1:
            break
    probability = np.minimum(1, factor * weight)
    probability[centre_lines(width, centre)] = 1
    return probability


def _equispaced(generator: RandomState, width: int, acceleration: float, centre: int) -> Columns:
    """Every n-th line from a random first one."""
    step = int(acceleration)
    columns = np.zeros(width, dtype=bool)
    columns[generator.randint(step) :: step] = True
    return columns


def _equispaced_fraction(generator: RandomState, width: int, acceleration: float, centre: int) -> Columns:
    """Nearly equal steps, widened so that with the centre about width / acceleration lines are measured."""
    step = acceleration * (width - centre) / (width - centre * acceleration)
    first = generator.randint(round(step))
    columns = np.zeros(width, dtype=bool)
    columns[np.around(np.arange(first, width - 1, step)).astype(int)] = True
    return columns


def _magic(generator: RandomState, width: int, acceleration: float, centre: int) -> Columns:
    """Every n-th line, shifted on one side of the centre so that the two sides' conjugate partners interleave.

    Defazio, Offset sampling improves deep learning based accelerated MRI reconstructions by exploiting symmetry,
    arXiv:1912.01101 (2019).
    """
    step = int(acceleration)
    offset = int(generator.randint(step))
    above, below = (offset + 2, offset - 1) if offset % 2 else (offset + 1, offset + 2)
    middle = width // 2
    columns = np.zeros(width, dtype=bool)
    columns[middle + above :: step] = True
    columns[middle - 1 - np.arange(below, middle, step)] = True
    return columns


def _magic_fraction(generator: RandomState, width: int, acceleration: float, centre: int) -> Columns:
    """As ``magic``, with the step that, with the centre, comes nearest to width / acceleration lines."""
    return _magic(generator, width, round(width / (round(width / acceleration) - centre)), centre)


_RULES: dict[str, Callable[[RandomState, int, float, int], Columns]] = {
    "random": _random,
    "equispaced": _equispaced,
    "equispaced_fraction": _equispaced_fraction,
    "magic": _magic,
    "magic_fraction": _magic_fraction,
    "variable_density": _variable_density,
}


def _words(seed: int | tuple[int, ...]) -> int | list[int]:
    """``seed`` as ``RandomState`` takes it: a number of 32 bits, or several, the lowest first."""
    if not isinstance(seed, tuple) and seed < 2**32:
        return int(seed)
    words = []
    for part in map(int, seed if isinstance(seed, tuple) else (seed,)):
        words.append(part % 2**32)
        while part := part >> 32:
            words.append(part % 2**32)
    return words


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "nothing"
