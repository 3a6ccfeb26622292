"""The arithmetic of a plan: spacing, patch and strides from what the data look like.

The rules are nnU-Net's (Isensee et al. 2021, Nature Methods 18:203, supplementary note 2), with patches for CPUs.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

Triple = tuple[int, int, int]
Axis = Literal["x", "y", "z"]

AXES: tuple[Axis, ...] = ("x", "y", "z")
"""Of prepared cases: to the patient's right, front and head, as far as they have a geometry."""

ANISOTROPY = 3.0
LEAST = 4
"""Voxels along an axis that a network's deepest feature maps keep."""
DEEPEST = 5
"""Halvings at most; timm's encoders have as many."""


def axes(value: Any) -> Any:
    """Names of axes as a recipe or ``model.json`` may give them: true for all of them, false for none."""
    return (AXES if value else ()) if isinstance(value, bool) else tuple(value)


def three_digits(value: float) -> float:
    """``value`` rounded to three significant digits, so that folds with nearly the same data get the same plan."""
    return float(f"{value:.3g}")


def target_spacing(
    median: Sequence[float], tenth: Sequence[float], extent: Sequence[float]
) -> tuple[float, float, float]:
    """The spacing (mm) of all prepared cases: the median of the training cases', to three significant digits.

    Where the coarsest axis is more than 3 times coarser than the others and has less than a third of their voxels, its
    10th percentile is taken, though never less than the others' spacing: slices are interpolated at most as finely as
    the finest tenth of the cases has them. ``extent`` is the cases' median size in mm.
    """
    spacing = [float(size) for size in median]
    worst = int(np.argmax(spacing))
    others = [axis for axis in range(3) if axis != worst]
    coarsest = max(spacing[axis] for axis in others)
    voxels = [length / size for length, size in zip(extent, spacing, strict=True)]
    few = voxels[worst] * ANISOTROPY < min(voxels[axis] for axis in others)
    if voxels[worst] > 1.5 and few and spacing[worst] > ANISOTROPY * coarsest:
        spacing[worst] = max(float(tenth[worst]), coarsest)
    x, y, z = (three_digits(size) for size in spacing)
    return (x, y, z)


def halvings(size: Sequence[int], spacing: Sequence[float], *, even: bool = False) -> tuple[Triple, ...]:
    """Strides level by level, until feature maps are about 4 voxels wide, at most 5 levels.

    At each level the axes are halved that stay at least 4 wide and whose spacing is less than twice the finest of
    these, so that feature maps become isotropic before thick slices are merged. ``even``: only axes that divide evenly.
    """
    sizes, widths = list(size), list(spacing)
    strides: list[Triple] = []
    while len(strides) < DEEPEST:
        wide = [a for a in range(3) if sizes[a] >= 2 * LEAST and not (even and sizes[a] % 2)]
        finest = min((widths[a] for a in wide), default=0.0)
        chosen = [a for a in wide if widths[a] < 2 * finest]
        if not chosen:
            break
        for a in chosen:
            sizes[a], widths[a] = math.ceil(sizes[a] / 2), widths[a] * 2
        x, y, z = (2 if a in chosen else 1 for a in range(3))
        strides.append((x, y, z))
    return tuple(strides)


def divisor(strides: Sequence[Triple]) -> Triple:
    """What a patch must be a multiple of along each axis."""
    x, y, z = (math.prod(stride[a] for stride in strides) for a in range(3))
    return (x, y, z)


def largest_patch(shape: Sequence[int], spacing: Sequence[float], voxels: float) -> Triple:
    """A patch of at most ``voxels`` inside ``shape``, as near to a cube in mm as the shape allows; 1 wide at least."""
    low, high = 0.0, max(n * s for n, s in zip(shape, spacing, strict=True))

    def cut(edge: float) -> list[float]:
        return [min(max(edge / s, 1.0), n) for n, s in zip(shape, spacing, strict=True)]

    if math.prod(cut(high)) > voxels:
        for _ in range(60):
            edge = (low + high) / 2
            low, high = (edge, high) if math.prod(cut(edge)) <= voxels else (low, edge)
        high = low
    x, y, z = (max(1, math.floor(length + 1e-6)) for length in cut(high))
    return (x, y, z)


def divisible(patch: Sequence[int], shape: Sequence[int], multiple: Sequence[int], voxels: float) -> Triple:
    """``patch`` made a multiple of ``multiple``: up along axes that it covers whole, down along others.

    Where that is more than ``voxels``, the axis of which the patch covers most is shortened until it is not.
    """
    sizes = [
        math.ceil(length / step) * step if length >= whole else max(length // step, 1) * step
        for length, whole, step in zip(patch, shape, multiple, strict=True)
    ]
    while math.prod(sizes) > voxels:
        longer = [a for a in range(3) if sizes[a] > multiple[a]]
        if not longer:
            break
        axis = max(longer, key=lambda a: sizes[a] / shape[a])
        sizes[axis] -= multiple[axis]
    x, y, z = sizes
    return (x, y, z)
