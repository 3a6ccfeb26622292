"""Augmentation of patches of volumes together with their masks: parameters are sampled apart from their application.

Patches are (N, C, X, Y, Z), normalised, so that intensities have no fixed range; a 2-D image is a patch with Z = 1 and
turns in its plane only. Rotation and scale are one affine map, so every patch is interpolated once; mirror images are
exact copies of the voxels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812  (PyTorch's own convention)
from pydantic import Field, field_validator
from torch import Tensor

from mrtransfer.augment.volume_tone import add_noise, blurred, coarsened, toned
from mrtransfer.common.strict import Strict

Probability = Annotated[float, Field(ge=0, le=1)]
Angle = Annotated[float, Field(ge=0, le=180)]


@dataclass(frozen=True)
class VolumeParams:
    """What happens to each of n patches; every field has n rows.

    ``flip``: (n, 3), which axes are mirrored. ``rotate``: (n, 3), degrees about X, then Y, then Z, from the next axis
    towards the one after it. ``scale``: above 1 enlarges. ``gamma``, ``contrast``, ``brightness``: (n, C), see
    :func:`~.volume_tone.toned`. ``blur``: standard deviation in voxels. ``zoom``: below 1 is a coarser grid.
    ``noise``: standard deviation, as a share of each channel's own, drawn from ``noise_seed``.
    """

    flip: Tensor
    rotate: Tensor
    scale: Tensor
    gamma: Tensor
    contrast: Tensor
    brightness: Tensor
    blur: Tensor
    zoom: Tensor
    noise: Tensor
    noise_seed: Tensor

    def __len__(self) -> int:
        return len(self.flip)

    def take(self, rows: Tensor | slice | list[int]) -> "VolumeParams":
        """The parameters of some of the patches."""
        return VolumeParams(*(getattr(self, field.name)[rows] for field in fields(self)))

    def changed(self, **values: Tensor) -> "VolumeParams":
        """A copy with some fields replaced."""
        return replace(self, **values)

    @classmethod
    def identity(cls, n: int, channels: int = 1) -> "VolumeParams":
        """Parameters that change nothing."""
        zeros, ones, all_ones = torch.zeros(n), torch.ones(n), torch.ones(n, channels)
        return cls(
            flip=torch.zeros(n, 3, dtype=torch.bool),
            rotate=torch.zeros(n, 3),
            scale=ones,
            gamma=all_ones,
            contrast=all_ones,
            brightness=torch.zeros(n, channels),
            blur=zeros,
            zoom=ones,
            noise=zeros,
            noise_seed=torch.zeros(n, dtype=torch.int64),
        )


class VolumeAugment(Strict):
    """What may be changed, and how far. The default changes nothing.

    ``flip``: probability of a mirror image along X, Y and Z, or one number for all. ``rotate``: degrees either way
    about X, Y and Z, or one number for all; give [0, 0, 15] for thick slices across Z. ``scale``: 0.1 draws a factor
    of 0.9 to 1.1. ``gamma``: 0.3 draws an exponent of 1/1.3 to 1.3. ``contrast``: 0.25 draws a factor of 0.75 to 1.25.
    ``brightness``, ``noise``: at most this share of a channel's standard deviation. ``blur``: at most this standard
    deviation in voxels. ``low_resolution``: 0.5 draws grids of half the resolution up to the full one.
    ``probability``: of every change but mirror images, each patch for itself.
    """

    flip: tuple[Probability, Probability, Probability] = (0.0, 0.0, 0.0)
    rotate: tuple[Angle, Angle, Angle] = (0.0, 0.0, 0.0)
    scale: float = Field(0.0, ge=0, lt=1)
    gamma: float = Field(0.0, ge=0, le=4)
    contrast: float = Field(0.0, ge=0, lt=1)
    brightness: float = Field(0.0, ge=0, le=4)
    noise: float = Field(0.0, ge=0, le=4)
    blur: float = Field(0.0, ge=0, le=4)
    low_resolution: float = Field(0.0, ge=0, le=0.9)
    probability: float = Field(1.0, gt=0, le=1)

    @field_validator("flip", "rotate", mode="before")
    @classmethod
    def _one_for_all(cls, value: object) -> object:
        return (value,) * 3 if isinstance(value, int | float) else value

    @property
    def active(self) -> bool:
        """Whether anything may change at all."""
        single = (self.scale, self.gamma, self.contrast, self.brightness, self.noise, self.blur, self.low_resolution)
        return any(value > 0 for value in (*self.flip, *self.rotate, *single))

    def sample(self, n: int, generator: torch.Generator, channels: int = 1) -> VolumeParams:
        """Draw the parameters of ``n`` patches of ``channels`` from ``generator`` (CPU).

        All fields are drawn whether they are in use or not, so switching one on leaves the others' draws alone.
        """
        uniform = torch.rand(n, 10, generator=generator)
        happens = torch.rand(n, 8, generator=generator) < self.probability
        by_channel = torch.rand(3, n, channels, generator=generator) * 2 - 1
        seeds = torch.randint(0, 2**31 - 1, (n,), generator=generator)
        signed = uniform * 2 - 1
        where = happens.float()
        return VolumeParams(
            flip=uniform[:, :3] < torch.tensor(self.flip),
            rotate=signed[:, 3:6] * torch.tensor(self.rotate) * where[:, :1],
            scale=1 + signed[:, 6] * self.scale * where[:, 1],
            gamma=(1 + self.gamma) ** (by_channel[0] * where[:, 2:3]),
            contrast=1 + by_channel[1] * self.contrast * where[:, 3:4],
            brightness=by_channel[2] * self.brightness * where[:, 4:5],
            blur=uniform[:, 7] * self.blur * where[:, 5],
            zoom=1 - uniform[:, 8] * self.low_resolution * where[:, 6],
            noise=uniform[:, 9] * self.noise * where[:, 7],
            noise_seed=seeds,
        )

    @staticmethod
    def apply(
        images: Tensor,
        masks: Tensor,
        params: VolumeParams,
        *,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        outside: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Change each patch as ``params`` says; a pure function of its arguments, each patch on its own.

        ``images``: (N, C, X, Y, Z) float, interpolated linearly; ``masks``: (N, X, Y, Z) uint8, class of the nearest
        voxel. ``spacing``: voxels in mm, so that bodies turn without being sheared. ``outside``: (N, C), what comes
        from outside the patch; by default the least value of each channel of the patch. In masks it is 0.
        """
        if not len(params) == len(images) == len(masks):
            raise ValueError(f"{len(images)} images and {len(masks)} masks, but parameters for {len(params)}")
        images, masks = _flip(images, masks, params.flip)
        turned = params.rotate if images.shape[4] > 1 else params.rotate * torch.tensor([0.0, 0.0, 1.0])
        warped = ((turned != 0).any(dim=1) | (params.scale != 1)).nonzero().flatten()
        if len(warped):
            rows = warped.to(images.device)
            fill = images[rows].amin(dim=(2, 3, 4)) if outside is None else outside[rows].to(images)
            matrix = _matrix(turned[warped], params.scale[warped], images.shape[2:], spacing)
            moved, moved_masks = _warp(images[rows], masks[rows], matrix, fill)
            images, masks = images.index_copy(0, rows, moved), masks.index_copy(0, rows, moved_masks)
        images = blurred(images, params.blur)
        images = coarsened(images, params.zoom)
        images = toned(images, params.gamma, params.contrast, params.brightness)
        return add_noise(images, params.noise, params.noise_seed), masks


def _flip(images: Tensor, masks: Tensor, flip: Tensor) -> tuple[Tensor, Tensor]:
    for axis in range(3):
        if flip[:, axis].any():
            where = flip[:, axis].to(images.device)[:, None, None, None]
            masks = torch.where(where, masks.flip(axis + 1), masks)
            images = torch.where(where[:, None], images.flip(axis + 2), images)
    return images, masks


def _matrix(rotate: Tensor, scale: Tensor, shape: Sequence[int], spacing: Sequence[float]) -> Tensor:
    """(n, 3, 3) float64: where each voxel comes from, voxels counted from the patch's centre as parts of its half."""
    # Double precision keeps quarter turns on the voxel grid to within float32 rounding.
    angle = rotate.double() * (math.pi / 180)
    turn = torch.eye(3, dtype=torch.float64).expand(len(rotate), 3, 3)
    for axis in range(3):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        cos, sin = torch.cos(angle[:, axis]), torch.sin(angle[:, axis])
        about = torch.eye(3, dtype=torch.float64).repeat(len(rotate), 1, 1)
        about[:, first, first], about[:, second, second] = cos, cos
        about[:, first, second], about[:, second, first] = -sin, sin
        turn = about @ turn
    back = turn.transpose(1, 2) / scale.double()[:, None, None]
    half = torch.tensor(shape, dtype=torch.float64) * torch.tensor(spacing, dtype=torch.float64)
    return back * half[None, None, :] / half[None, :, None]


def _warp(images: Tensor, masks: Tensor, matrix: Tensor, fill: Tensor) -> tuple[Tensor, Tensor]:
    """One interpolation of images (n, C, X, Y, Z), and the nearest voxel of masks (n, X, Y, Z)."""
    planes = images.shape[4] == 1
    axes = 2 if planes else 3
    # PyTorch counts the last axis first.
    theta = torch.zeros(len(matrix), axes, axes + 1, dtype=torch.float64)
    theta[:, :, :axes] = matrix[:, :axes, :axes].flip(1, 2)
    pixels = images.squeeze(4) if planes else images
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False).to(images.device, torch.float32)
    classes = (masks.squeeze(3) if planes else masks)[:, None].float()
    fill = fill.reshape(*fill.shape, *[1] * axes)
    moved = F.grid_sample(pixels - fill, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + fill
    nearest = F.grid_sample(classes, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved.reshape(images.shape), nearest.to(masks.dtype).reshape(masks.shape)
