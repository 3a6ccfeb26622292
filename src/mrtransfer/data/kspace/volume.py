"""One k-space acquisition: what its header says, and its slices, read when they are asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace.checks import check_slice
from mrtransfer.data.kspace.target import center_crop, magnitude_target

Source = Callable[[int, bool], tuple[np.ndarray, np.ndarray | None]]
"""(slice, whether its target is wanted) → k-space (C, H, W) and the stored target (h, w), if there is one."""


@dataclass(frozen=True, eq=False)
class KspaceSlice:
    """One slice of an acquisition."""

    kspace: np.ndarray
    """complex64 (C, H, W), zero where nothing was sampled; columns along W are the phase encoding that masks leave out.
    """
    target: np.ndarray | None
    """float32 (h, w): the image to be reconstructed; None where the file was undersampled, or it was not asked for."""
    max_value: float | None
    """The largest value of the whole volume's target, the data range of its scores."""
    crop: tuple[int, int]
    """(h, w), the central part of the image that is scored."""
    columns: np.ndarray | None
    """bool (W,): the columns that were sampled; None where the acquisition is fully sampled."""
    padding: tuple[int, int] | None
    """The first acquired column and one past the last; None where all were acquired."""


@dataclass(frozen=True, eq=False)
class KspaceVolume:
    """An acquisition of ``slices`` slices; it holds no open file, so processes and threads may share it."""

    location: str
    """What errors call it."""
    name: str
    """The file's name, from which fastMRI's sampling masks are seeded."""
    slices: int
    coils: int
    matrix: tuple[int, int]
    """(H, W) of k-space."""
    crop: tuple[int, int]
    """(h, w) of the reconstructed image that is shown and scored."""
    source: Source
    columns: np.ndarray | None = None
    """bool (W,): the columns that were sampled; None where the acquisition is fully sampled."""
    padding: tuple[int, int] | None = None
    """The first acquired column and one past the last; None where all were acquired."""
    acquisition: str = ""
    """The protocol, for example CORPD_FBK or AXT2; empty where unknown."""
    subject: str = ""
    scanner: str = ""
    spacing: tuple[float, float, float] | None = None
    """mm: between rows, between columns, and from slice to slice (or their thickness)."""
    stored_targets: bool = False
    """Whether the file holds reconstructed images; otherwise those of a fully sampled acquisition are computed."""
    stored_max: float | None = None
    simulated: bool = False
    """Whether k-space was computed from an image, not measured."""

    def __len__(self) -> int:
        return self.slices

    @property
    def fully_sampled(self) -> bool:
        """Whether every column that the acquisition wanted was sampled."""
        return self.columns is None

    @property
    def has_targets(self) -> bool:
        """Whether its slices have targets: stored ones, or computed ones of a fully sampled acquisition."""
        return self.stored_targets or self.fully_sampled

    @cached_property
    def max_value(self) -> float | None:
        """The largest value of the target, as the file says; computed from all slices, once, where it does not."""
        if self.stored_max is not None or not self.has_targets:
            return self.stored_max
        return max(float(target.max()) for _, target in map(self.arrays, range(self.slices)) if target is not None)

    def read(self, index: int, *, target: bool = True) -> KspaceSlice:
        """Slice ``index``; with ``target=False`` its target is neither read nor computed, and has no ``max_value``.

        Without a stored target, that of a fully sampled slice is the root sum of squares of its coil images (the
        magnitude, for one coil), cropped. Raises :class:`UserError` that names the file where it is missing or damaged,
        or the slice holds NaN or infinite values.
        """
        kspace, image = self.arrays(index, target)
        largest = self.max_value if target else None
        return KspaceSlice(kspace, image, largest, self.crop, self.columns, self.padding)

    def arrays(self, index: int, target: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """K-space and target of slice ``index`` alone, without the ``max_value`` of the whole volume."""
        if not 0 <= index < self.slices:
            raise UserError(f"{self.location}: has no slice {index}; its slices are 0 to {self.slices - 1}")
        kspace, image = self.source(index, target and self.stored_targets)
        kspace = np.ascontiguousarray(kspace, dtype=np.complex64)
        if image is not None:
            image = np.ascontiguousarray(center_crop(image, self.crop), dtype=np.float32)
        check_slice(kspace, image, f"{self.location}: slice {index}", (self.coils, *self.matrix))
        if target and image is None and self.fully_sampled:
            image = magnitude_target(kspace, self.crop)
        return kspace, image
