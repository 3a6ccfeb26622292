"""Image-domain augmentation of batches: parameters are sampled apart from their application.

All geometric changes of an image are composed into one affine map, so it is interpolated once; mirror images are
exact copies of the pixels.
"""

import math
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F  # noqa: N812  (PyTorch's own convention)
from pydantic import Field
from torch import Tensor

from mrtransfer.common.strict import Strict


@dataclass(frozen=True)
class AugmentParams:
    """What happens to each of n images; every field has n rows.

    ``rotate``: degrees, anticlockwise as displayed. ``scale``: above 1 enlarges. ``translate``: (n, 2), right and
    down, as a fraction of width and height. ``brightness`` is added to pixels in 0..1, ``contrast`` multiplies the
    distance from the image's mean, ``noise`` is the standard deviation of both parts of the complex noise, drawn
    from ``noise_seed``.
    """

    hflip: Tensor
    vflip: Tensor
    rotate: Tensor
    scale: Tensor
    translate: Tensor
    brightness: Tensor
    contrast: Tensor
    noise: Tensor
    noise_seed: Tensor

    def __len__(self) -> int:
        return len(self.hflip)

    def take(self, rows: Tensor | slice | list[int]) -> "AugmentParams":
        """The parameters of some of the images."""
        return AugmentParams(*(getattr(self, field.name)[rows] for field in fields(self)))

    def changed(self, **values: Tensor) -> "AugmentParams":
        """A copy with some fields replaced."""
        return replace(self, **values)

    @classmethod
    def identity(cls, n: int) -> "AugmentParams":
        """Parameters that change nothing."""
        zeros, ones, false = torch.zeros(n), torch.ones(n), torch.zeros(n, dtype=torch.bool)
        return cls(false, false, zeros, ones, torch.zeros(n, 2), zeros, ones, zeros, torch.zeros(n, dtype=torch.int64))


class Augment(Strict):
    """What may be changed, and how far. The default changes nothing.

    ``hflip``, ``vflip``: probability of a mirror image. ``rotate``: degrees either way. ``scale``: 0.1 draws a factor
    of 0.9 to 1.1. ``translate``: fraction of the width and height. ``brightness``, ``contrast``: either way.
    ``noise``: the largest standard deviation, on pixels in 0..1, of Rician noise (the noise of magnitude MR images:
    Gudbjartsson and Patz 1995, eq. 1).
    """

    hflip: float = Field(0.0, ge=0, le=1)
    vflip: float = Field(0.0, ge=0, le=1)
    rotate: float = Field(0.0, ge=0, le=180)
    scale: float = Field(0.0, ge=0, lt=1)
    translate: float = Field(0.0, ge=0, le=1)
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, lt=1)
    noise: float = Field(0.0, ge=0, le=1)

    @property
    def active(self) -> bool:
        """Whether anything may change at all."""
        return any(getattr(self, name) > 0 for name in type(self).model_fields)

    def sample(self, n: int, generator: torch.Generator) -> AugmentParams:
        """Draw the parameters of ``n`` images from ``generator`` (CPU).

        All fields are drawn whether they are in use or not, so switching one on leaves the others' draws alone.
        """
        uniform = torch.rand(10, n, generator=generator)
        seeds = torch.randint(0, 2**31 - 1, (n,), generator=generator)
        signed = uniform * 2 - 1
        return AugmentParams(
            hflip=uniform[0] < self.hflip,
            vflip=uniform[1] < self.vflip,
            rotate=signed[2] * self.rotate,
            scale=1 + signed[3] * self.scale,
            translate=torch.stack((signed[4], signed[5]), dim=1) * self.translate,
            brightness=signed[6] * self.brightness,
            contrast=1 + signed[7] * self.contrast,
            noise=uniform[8] * self.noise,
            noise_seed=seeds,
        )

    @staticmethod
    def apply(batch: Tensor, params: AugmentParams) -> Tensor:
        """Change each image as ``params`` says; a pure function of both, each image on its own.

        ``batch``: (N, C, H, W), uint8 or float in 0..1, before normalisation. Where only mirror images are asked for,
        the type is kept; otherwise the result is float32 in 0..1. What comes from outside the image is black.
        """
        if len(params) != len(batch):
            raise ValueError(f"{len(batch)} images but parameters for {len(params)}")
        warped = (params.rotate != 0) | (params.scale != 1) | (params.translate != 0).any(dim=1)
        toned = (params.brightness != 0) | (params.contrast != 1) | (params.noise > 0)
        if not (warped | toned).any():
            return _flip(batch, params)
        pixels = batch.float().div_(255.0) if batch.dtype == torch.uint8 else batch.float()
        pixels = _flip(pixels, params)
        if warped.any():
            rows = warped.nonzero().flatten()
            pixels = pixels.index_copy(0, rows.to(pixels.device), _warp(pixels[rows], params.take(rows)))
        if toned.any():
            rows = toned.nonzero().flatten()
            pixels = pixels.index_copy(0, rows.to(pixels.device), _tone(pixels[rows], params.take(rows)))
        return pixels


def _flip(batch: Tensor, params: AugmentParams) -> Tensor:
    for chosen, axis in ((params.hflip, 3), (params.vflip, 2)):
        if chosen.any():
            where = chosen.to(batch.device)[:, None, None, None]
            batch = torch.where(where, batch.flip(axis), batch)
    return batch


def _warp(pixels: Tensor, params: AugmentParams) -> Tensor:
    """Rotate about the centre, scale, then translate: one bilinear interpolation."""
    height, width = pixels.shape[2:]
    # Double precision keeps quarter turns on the pixel grid to within float32 rounding.
    angle = params.rotate.double() * (math.pi / 180)
    cos, sin = torch.cos(angle) / params.scale, torch.sin(angle) / params.scale
    # affine_grid asks where each output pixel comes from, in units of half the width and half the height.
    shift_x, shift_y = params.translate.double().unbind(dim=1)
    aspect = height / width
    row_x = torch.stack((cos, -sin * aspect, -2 * (cos * shift_x - sin * aspect * shift_y)), dim=1)
    row_y = torch.stack((sin / aspect, cos, -2 * (sin / aspect * shift_x + cos * shift_y)), dim=1)
    theta = torch.stack((row_x, row_y), dim=1)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False).to(pixels.device, torch.float32)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _tone(pixels: Tensor, params: AugmentParams) -> Tensor:
    """Contrast about the image's mean, then brightness, then Rician noise; kept within 0..1."""
    brightness, contrast, noise = (
        part.to(pixels.device)[:, None, None, None] for part in (params.brightness, params.contrast, params.noise)
    )
    centre = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = ((pixels - centre) * contrast + centre + brightness).clamp(0, 1)
    if (params.noise > 0).any():
        # One colour image is one measurement with grey copies, so channels share their noise.
        real, imaginary = (part.to(pixels.device) for part in _complex_noise(params.noise_seed, pixels.shape[2:]))
        noisy = torch.sqrt((pixels + real * noise) ** 2 + (imaginary * noise) ** 2).clamp(0, 1)
        pixels = torch.where(noise > 0, noisy, pixels)
    return pixels


def _complex_noise(seeds: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Standard normal real and imaginary parts, each (n, 1, H, W), every image from its own seed."""
    drawn = [torch.randn(2, *size, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    both = torch.stack(drawn)
    return both[:, :1], both[:, 1:]
