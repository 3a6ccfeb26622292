"""From a scan's own grid to the grid that a network sees, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from nibabel.orientations import io_orientation

from mrtransfer.data.volume.resample import Kernel, resample, resample_classes
from mrtransfer.data.volume.volume import spacing_of

Triple = tuple[int, int, int]
ANISOTROPIC = 3.0  # slices thicker than this many times the finest spacing are interpolated linearly through


@dataclass(frozen=True, eq=False)
class Frame:
    """How one scan was prepared: axes put in the order nearest to right, anterior, superior; cropped; resampled.

    Canonical axis i is the stored axis ``axes[i]``, backwards where ``flips[i]``; an image of one slice keeps its rows
    and columns. ``crop`` is (first, end) in canonical voxels, end not included. The resampled grid covers the cropped
    box face to face, so its spacing is ``spacing`` up to the rounding of ``prepared_shape``.
    """

    shape: Triple
    """Of the scan as stored."""
    affine: np.ndarray
    """(4, 4), from stored voxel indices to RAS mm."""
    axes: Triple
    flips: tuple[bool, bool, bool]
    crop: tuple[Triple, Triple]
    spacing: tuple[float, float, float] | None
    """Wanted of the prepared grid, in mm along canonical axes; None: as it is."""
    prepared_shape: Triple

    def image_to_prepared(self, image: np.ndarray) -> np.ndarray:
        """Image (C, X, Y, Z) on the prepared grid, float32 (C, x, y, z).

        Cubic; linear along axes whose spacing is over :data:`ANISOTROPIC` times the finest, where a cubic kernel would
        ring between slices that hardly know each other (Isensee et al. 2021, nnU-Net, resample such axes apart too).
        Smoothed where the grid becomes coarser. Only reordered and cropped where the grid is unchanged.
        """
        prepared = np.empty((len(image), *self.prepared_shape), np.float32)
        for channel, out in zip(image, prepared, strict=True):
            out[...] = resample(self._canonical(channel)[self._box], self.prepared_shape, self._kernels)
        return prepared

    def mask_to_prepared(self, classes: np.ndarray) -> np.ndarray:
        """Class indices (X, Y, Z) on the prepared grid, uint8 (x, y, z): the class with the largest share.

        Shares are linearly interpolated; on a tie the lower class wins. Identical, but for order and crop, where the
        grid is unchanged.
        """
        box = self._canonical(classes)[self._box]
        if box.shape != self.prepared_shape:
            return resample_classes(box, self.prepared_shape)
        return np.ascontiguousarray(box, dtype=np.uint8)

    def to_original(self, maps: np.ndarray, outside: Sequence[float] | None = None) -> np.ndarray:
        """Maps (K, x, y, z) on the scan's own grid, float32 (K, X, Y, Z): linear interpolation at the voxels' centres.

        Outside the crop, map k is ``outside[k]``, by default 0.
        """
        fill = np.zeros(len(maps), np.float32) if outside is None else np.asarray(outside, np.float32)
        original = np.empty((len(maps), *self.shape), np.float32)
        sizes = self._box_shape
        for prepared, value, out in zip(maps, fill, original, strict=True):
            out[...] = value
            self._canonical(out)[self._box] = resample(prepared, sizes, _LINEAR, smooth=False)
        return original

    @property
    def prepared_affine(self) -> np.ndarray:
        """(4, 4), from prepared voxel indices to RAS mm."""
        to_stored = np.zeros((4, 4))
        to_stored[3, 3] = 1
        for i, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            scale = self._box_shape[i] / self.prepared_shape[i]
            canonical = self.crop[0][i] + (scale - 1) / 2  # of the first prepared voxel's centre
            to_stored[axis, i] = -scale if flip else scale
            to_stored[axis, 3] = self.shape[axis] - 1 - canonical if flip else canonical
        return self.affine @ to_stored

    def to_json(self) -> dict[str, Any]:
        """The frame as JSON can write it."""
        return {
            "shape": list(self.shape),
            "affine": self.affine.tolist(),
            "axes": list(self.axes),
            "flips": list(self.flips),
            "crop": [list(self.crop[0]), list(self.crop[1])],
            "spacing": None if self.spacing is None else list(self.spacing),
            "prepared_shape": list(self.prepared_shape),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The frame that :meth:`to_json` wrote."""
        first, end = data["crop"]
        spacing = data["spacing"]
        return cls(
            shape=_triple(data["shape"]),
            affine=np.array(data["affine"], dtype=np.float64),
            axes=_triple(data["axes"]),
            flips=(bool(data["flips"][0]), bool(data["flips"][1]), bool(data["flips"][2])),
            crop=(_triple(first), _triple(end)),
            spacing=None if spacing is None else (float(spacing[0]), float(spacing[1]), float(spacing[2])),
            prepared_shape=_triple(data["prepared_shape"]),
        )

    def _canonical(self, volume: np.ndarray) -> np.ndarray:
        """A view of ``volume`` (X, Y, Z) with its axes in canonical order and direction."""
        return volume.transpose(self.axes)[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    @property
    def _box(self) -> tuple[slice, ...]:
        return tuple(slice(first, end) for first, end in zip(*self.crop, strict=True))

    @property
    def _box_shape(self) -> Triple:
        return _triple([end - first for first, end in zip(*self.crop, strict=True)])

    @property
    def _kernels(self) -> tuple[Kernel, Kernel, Kernel]:
        spacing = spacing_of(self.affine)
        own = [spacing[axis] for axis in self.axes]
        kernels: list[Kernel] = ["linear" if size > ANISOTROPIC * min(own) else "cubic" for size in own]
        return (kernels[0], kernels[1], kernels[2])


_LINEAR: tuple[Kernel, Kernel, Kernel] = ("linear", "linear", "linear")


def make_frame(
    shape: Sequence[int],
    affine: np.ndarray,
    *,
    spacing: Sequence[float] | None = None,
    crop: tuple[Sequence[int], Sequence[int]] | None = None,
) -> Frame:
    """The frame of a scan of ``shape`` (X, Y, Z) with ``affine`` (4, 4; voxels to RAS mm).

    ``crop`` is (first, end) in canonical voxels, as :func:`nonzero_crop` gives it; ``spacing`` is in mm along
    canonical axes. An axis of one voxel is never resampled.
    """
    shape = _triple(shape)
    affine = np.asarray(affine, dtype=np.float64)
    axes, flips = _orientation(shape, affine)
    first, end = (_triple(corner) for corner in crop or ((0, 0, 0), [shape[axis] for axis in axes]))
    for low, high, axis in zip(first, end, axes, strict=True):
        if not 0 <= low < high <= shape[axis]:
            raise ValueError(f"crop from {first} to {end} does not lie in a scan of shape {shape} with axes {axes}")
    sizes = [high - low for low, high in zip(first, end, strict=True)]
    wanted: tuple[float, float, float] | None = None
    if spacing is not None:
        wanted = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
        own = spacing_of(affine)
        sizes = [
            1 if size == 1 else max(1, round(size * own[axis] / goal))
            for size, axis, goal in zip(sizes, axes, wanted, strict=True)
        ]
    return Frame(shape, affine, axes, flips, (first, end), wanted, _triple(sizes))


def nonzero_crop(image: np.ndarray, affine: np.ndarray) -> tuple[Triple, Triple]:
    """The smallest box (first, end), in canonical voxels, outside of which (C, X, Y, Z) is background in all channels.

    The background of a channel is the value in all of its corners (brains that were cut out and then normalised have
    another than 0), or else 0. The whole image where there is nothing but background.
    """
    frame = make_frame(image.shape[1:], affine)
    different = np.zeros(image.shape[1:], bool)
    for channel, value in zip(image, background_values(image), strict=True):
        different |= channel != value
    inside = frame._canonical(different)
    first, end = list(frame.crop[0]), list(frame.crop[1])
    for axis in range(3):
        found = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        if len(found):
            first[axis], end[axis] = int(found[0]), int(found[-1]) + 1
    return _triple(first), _triple(end)


def background_values(image: np.ndarray) -> np.ndarray:
    """(C,) the value around the head in each channel of (C, X, Y, Z): that of all its corners, or else 0."""
    corners = image[(slice(None), *(slice(None, None, max(1, n - 1)) for n in image.shape[1:]))]
    corners = corners.reshape(len(image), -1)
    return np.where((corners == corners[:, :1]).all(axis=1), corners[:, 0], 0)


def _orientation(shape: Triple, affine: np.ndarray) -> tuple[Triple, tuple[bool, bool, bool]]:
    if shape[2] == 1:  # one slice has no third axis to turn to, and its rows and columns are as a radiologist sees it
        return (0, 1, 2), (False, False, False)
    found = io_orientation(affine)  # row per stored axis: canonical axis, direction
    axes = _triple(np.argsort(found[:, 0]))
    x, y, z = (bool(found[axis, 1] < 0) for axis in axes)
    return axes, (x, y, z)


def _triple(values: Sequence[int] | np.ndarray) -> Triple:
    x, y, z = (int(value) for value in values)
    return (x, y, z)
