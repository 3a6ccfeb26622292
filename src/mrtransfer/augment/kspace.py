"""MRAugment: geometric augmentation of fully sampled k-space through its complex coil images.

Fabian, Heckel and Soltanolkotabi, Data augmentation for deep learning based accelerated MRI reconstruction with limited
data, ICML 2021 (arXiv 2106.14947), with the weights, limits and transforms of its authors' published code. Real and
imaginary parts and all coils move alike, so that coil sensitivities and phase go with the anatomy and noise stays
noise; the target is computed from what was moved, and the sampling mask is drawn afterwards, by the caller. Validation
is left alone: its parameters are :meth:`MRParams.identity`.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from mrtransfer.augment.kspace_geometry import MRParams, gather
from mrtransfer.augment.kspace_images import as_table, centre, chunks, from_table, moved
from mrtransfer.common.strict import Strict
from mrtransfer.physics.coils import rss
from mrtransfer.physics.fourier import fft2c, ifft2c

Share = Annotated[float, Field(ge=0, le=1)]
_PLANE = (-2, -1)


class MRAugment(Strict):
    """What may happen to a slice, how often and how far. The defaults are the published ones for small data.

    ``strength``: the probability p that the schedule ends at; each transform happens with its weight times p,
    independently. Weights: ``hflip``, ``vflip``, ``rot90``, ``translate``, ``rotate``, ``shear``, ``scale``. Limits,
    either way: ``max_translate``: fractions of the rows and of the columns; ``max_rotate``, ``max_shear``: degrees;
    ``max_scale``: 0.25 draws a factor of 0.75 to 1.25. ``schedule``: how p grows from epoch ``delay`` on;
    ``decay``: the exponential's c. ``upsample``: interpolate on a finer grid by this factor, made bilinearly
    (``order`` 1) or bicubically (3).
    """

    strength: float = Field(0.55, ge=0, le=1)
    schedule: Literal["exponential", "linear", "constant"] = "exponential"
    decay: float = Field(5.0, gt=0)
    delay: int = Field(0, ge=0)
    hflip: Share = 0.5
    vflip: Share = 0.5
    rot90: Share = 0.5
    translate: Share = 1.0
    rotate: Share = 0.5
    shear: Share = 1.0
    scale: Share = 1.0
    max_translate: tuple[Share, Share] = (0.125, 0.08)
    max_rotate: float = Field(180.0, ge=0, le=180)
    max_shear: float = Field(15.0, ge=0, le=45)
    max_scale: float = Field(0.25, ge=0, lt=1)
    upsample: int = Field(1, ge=1, le=4)
    order: Literal[1, 3] = 1

    @property
    def active(self) -> bool:
        """Whether anything may change at all."""
        weights = (self.hflip, self.vflip, self.rot90, self.translate, self.rotate, self.shear, self.scale)
        return self.strength > 0 and any(weights)

    def probability(self, epoch: int, epochs: int) -> float:
        """p of ``epoch``, counted from 0, in a training of ``epochs``: 0 up to the delay, ``strength`` at the end.

        With x = (epoch − delay) / (epochs − delay): strength · (1 − e^(−c x)) / (1 − e^(−c)), strength · x, or
        strength. The first epoch of a growing schedule is without augmentation, as published.
        """
        if epoch < self.delay or epochs <= self.delay:
            return 0.0
        if self.schedule == "constant":
            return self.strength
        x = min((epoch - self.delay) / (epochs - self.delay), 1.0)
        if self.schedule == "linear":
            return self.strength * x
        return self.strength * math.expm1(-self.decay * x) / math.expm1(-self.decay)

    def sample(self, n: int, shape: tuple[int, int], probability: float, generator: torch.Generator) -> MRParams:
        """Draw the parameters of ``n`` slices of (H, W) pixels from ``generator`` (CPU).

        The same numbers are drawn whatever the settings, the probability and the size, so arms that share a seed share
        their draws: what happens at a smaller p happens at a larger one, by the same angle.
        """
        drawn = torch.rand(n, 14, dtype=torch.float64, generator=generator)
        weights = (self.hflip, self.vflip, self.rot90, self.translate, self.rotate, self.shear, self.scale)
        happens = drawn[:, :7] < torch.tensor(weights, dtype=torch.float64) * probability
        signed = (drawn[:, 7:] * 2 - 1).T
        limit = torch.tensor([share * side for share, side in zip(self.max_translate, shape, strict=True)])
        return MRParams(
            hflip=happens[:, 0],
            vflip=happens[:, 1],
            rot90=(1 + (drawn[:, 7] * 3).long()) * happens[:, 2],
            translate=(signed[1:3].T * limit).long() * happens[:, 3:4],  # towards zero, as published
            rotate=signed[3] * self.max_rotate * happens[:, 4],
            shear=signed[4:6].T * self.max_shear * happens[:, 5:6],
            scale=1 + signed[6] * self.max_scale * happens[:, 6],
            upsample=self.upsample,
            order=self.order,
        )

    def sample_each(self, seeds: Sequence[int], shape: tuple[int, int], probability: float) -> MRParams:
        """Draw each slice's parameters from a seed of its own: whoever shares its batch, worker or arm changes nothing.

        A seed should be a hash of (seed, epoch, sample).
        """
        return MRParams.cat([self.sample(1, shape, probability, torch.Generator().manual_seed(s)) for s in seeds])

    @staticmethod
    def apply(images: Tensor, params: MRParams) -> Tensor:
        """Move complex coil images (N, C, H, W) as ``params`` says; a pure function, linear, each slice on its own.

        The size stays: a quarter turn of an image that is not square is cropped and reflected about its centre to fit,
        so that slices of a batch keep one shape. Beyond the border, images are reflected. What moves whole pixels only
        gives the same numbers elsewhere. Runs on the device of ``images``.
        """
        _same_number(images, params)
        parts = [moved(images[rows], params.take(rows)) for rows in chunks(images)]
        return torch.cat(parts) if parts else images.clone()


def augmented(
    kspace: Tensor,
    params: MRParams,
    crop: tuple[int, int],
    *,
    max_value: Tensor | None = None,
    resolution: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Augment fully sampled k-space (N, C, H, W), and compute the targets and data ranges that go with it.

    Returns k-space (N, C, H, W), to be masked by the caller; targets (N, h, w) float, the root sum of squares over
    coils (one coil: the magnitude), its centre of at most ``crop``; and data ranges (N,). Slices without changes keep
    their k-space to the bit, and their target is computed alike, so that arms with and without augmentation differ in
    nothing else. ``resolution``: keep at most this centre of the augmented images, and so of k-space's size.

    Data range: losses and metrics take the largest value of the whole volume's target, ``max_value`` (N,), which a
    slice moved on its own cannot tell. It shrinks as the slice's own largest value within the crop did, by
    interpolation or because what was bright has left, and it is never below what the slice now shows: with p and p'
    the slice's largest values before and after, it is max(p', max_value · min(p' / p, 1)); the same where values only
    change places. Without ``max_value``, the slice counts as a volume of its own: p'.
    """
    _same_number(kspace, params)
    shape = (kspace.shape[-2], kspace.shape[-1])
    size = shape if resolution is None else (min(shape[0], resolution[0]), min(shape[1], resolution[1]))
    crop = (min(size[0], crop[0]), min(size[1], crop[1]))
    even = all(side % 2 == 0 for side in shape + size)
    compute = _unshifted if even and params.upsample == 1 else _plain
    spectra, targets, before = compute(kspace, params, size, crop)
    after = targets.amax(dim=_PLANE)
    if max_value is None:
        return spectra, targets, after
    share = torch.where(before > 0, after / before, 1.0).clamp(max=1.0)
    return spectra, targets, torch.maximum(after, max_value.to(after) * share)


def acquired(params: MRParams, padding: Sequence[tuple[int, int] | None], width: int) -> list[tuple[int, int] | None]:
    """The columns of augmented k-space that may be sampled: (first, one past the last), or None for all.

    ``padding``: the same before augmentation, where scanners leave columns at both ends empty. A flip along the columns
    mirrors it; rows do not matter. Anything else (a quarter turn, a translation with reflection, an affine map) spreads
    the signal over all columns, and a mask that kept them out would throw measured signal away; so does keeping only
    the centre of images, ``resolution`` in :func:`augmented`, with which there is no window.
    """
    mirrored = params.hflip ^ (params.rot90 == 2)
    spread = (params.rot90 % 2 == 1) | (params.translate != 0).any(dim=1) | params.warps
    found: list[tuple[int, int] | None] = []
    for window, mirror, everywhere in zip(padding, mirrored.tolist(), spread.tolist(), strict=True):
        if window is not None and mirror:
            # Frequency k becomes −k. The outermost column of an even width is its own mirror image.
            first, end = 2 * (width // 2) + 1 - window[1], 2 * (width // 2) + 1 - window[0]
            window = (first, end) if end <= width else None
        found.append(None if everywhere else window)
    return found


def _plain(
    kspace: Tensor, params: MRParams, size: tuple[int, int], crop: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Augmented k-space and targets, and the largest value (n,) of each target before."""
    images = ifft2c(kspace)
    after = centre(MRAugment.apply(images, params), size)
    spectra, targets = fft2c(after), rss(centre(after, crop))
    if spectra.shape == kspace.shape:
        spectra = torch.where(params.changes.to(kspace.device)[:, None, None, None], spectra, kspace)
    return spectra, targets, rss(centre(images, crop)).amax(dim=_PLANE)


def _unshifted(
    kspace: Tensor, params: MRParams, size: tuple[int, int], crop: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`_plain`, to rounding, for even sizes: the gather sees to the shifts of both transforms as well."""
    shape = (kspace.shape[-2], kspace.shape[-1])
    changed = (params.changes | (size != shape)).nonzero().flatten()
    after = kspace.new_empty(len(changed), kspace.shape[1], *size)
    targets, before, done = [], [], 0
    for rows in chunks(kspace):
        table = as_table(torch.fft.ifft2(kspace[rows], norm="ortho"))
        images = _magnitude(table, shape, crop)
        before.append(images.amax(dim=_PLANE))
        some = changed[(changed >= rows.start) & (changed < rows.stop)]
        if len(some):
            here = (some - rows.start).to(kspace.device)
            table = table if len(some) == len(table) else table[here]
            table = gather(params.take(some), shape, kspace, output=size, unshifted=True)(table)
            from_table(table, after[done : done + len(some)])
            images = images.index_copy(0, here, _magnitude(table, size, crop))
            done += len(some)
        targets.append(images)
    return _joined(kspace, changed, after), torch.cat(targets), torch.cat(before)


def _joined(kspace: Tensor, changed: Tensor, after: Tensor) -> Tensor:
    """A copy of ``kspace`` with the rows ``changed`` replaced by those of the unshifted images ``after``."""
    if len(changed) == len(kspace):
        return torch.fft.fft2(after, norm="ortho")
    if len(changed) == 0:
        return kspace.clone()
    return kspace.index_copy(0, changed.to(kspace.device), torch.fft.fft2(after, norm="ortho"))


def _magnitude(table: Tensor, shape: tuple[int, int], crop: tuple[int, int]) -> Tensor:
    """Root sum of squares (n, h, w) over the coils of unshifted images, shifted and cropped."""
    pixels = table.unflatten(1, shape)
    above = shape[0] // 2 - (shape[0] - crop[0]) // 2  # the rows above the middle come last
    parts = (pixels[:, shape[0] - above :], pixels[:, : crop[0] - above])
    magnitude = torch.cat([torch.linalg.vector_norm(part, dim=-1) for part in parts], dim=1)
    return centre(magnitude.roll(shape[1] // 2, dims=-1), crop).contiguous()


def _same_number(slices: Tensor, params: MRParams) -> None:
    if len(slices) != len(params):
        raise ValueError(f"{len(slices)} slices, but parameters for {len(params)}")
