"""Receive coils: combining their images, and their sensitivities estimated from the centre of k-space (ESPIRiT)."""

import torch
from torch import Tensor

from mrtransfer.common.errors import UserError
from mrtransfer.physics.fourier import fft2c, ifft2c
from mrtransfer.physics.masks import apply_mask

_CALIBRATION = 24  # rows of the calibration region, where only columns are undersampled
_LEAST = 4  # rows and columns of a region that says anything about how sensitivities change in space
_BLOCK = 2**20  # complex numbers of the pixelwise operator held at once: 8 MiB


def rss(images: Tensor) -> Tensor:
    """Root sum of squares (…, H, W), real, of complex coil images (…, C, H, W); its gradient is 0 where all are 0."""
    energy = (images.real.square() + images.imag.square()).sum(-3)
    empty = (energy == 0).to(energy.dtype)  # the square root has no slope at 0
    return (energy + empty).sqrt() - empty


def combine(images: Tensor, maps: Tensor) -> Tensor:
    """The image (…, H, W) that coil images (…, C, H, W) agree on: Σ conj(S) x, optimal where Σ |S|² = 1."""
    return (maps.conj() * images).sum(-3)


def expand(image: Tensor, maps: Tensor) -> Tensor:
    """What each coil sees (…, C, H, W) of a complex image (…, H, W); the adjoint of :func:`combine`."""
    return maps * image.unsqueeze(-3)


def forward(image: Tensor, maps: Tensor, columns: Tensor) -> Tensor:
    """The SENSE model: complex image (…, H, W) to the sampled k-space (…, C, H, W), zero outside ``columns``."""
    return apply_mask(fft2c(expand(image, maps)), columns)


def adjoint(kspace: Tensor, maps: Tensor, columns: Tensor) -> Tensor:
    """The adjoint of :func:`forward`: k-space (…, C, H, W) to a complex image (…, H, W)."""
    return combine(ifft2c(apply_mask(kspace, columns)), maps)


@torch.no_grad()
def espirit(
    kspace: Tensor, centre: int | tuple[int, int], *, kernel: int = 6, threshold: float = 0.02, crop: float = 0.95
) -> Tensor:
    """Coil sensitivities (C, H, W), complex, of one slice's k-space (C, H, W) whose centre is fully sampled.

    ``centre``: rows and columns of the calibration region, or its columns alone (all rows are sampled; 24 are used, or
    as many as columns). ``kernel``: side of the patches of k-space; a region less than about three times as large gets
    patches of a third of its side, at least 2, so that there are enough of them. ``threshold``: singular values of the
    calibration matrix below this fraction of the largest are noise. Maps are zero where the eigenvalue is below
    ``crop`` (no signal that the calibration explains); elsewhere Σ |S|² = 1, and the strongest combination of coils is
    real and positive.

    Uecker et al., ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI, Magn Reson Med 71:990 (2014), with
    one set of maps. Raises :class:`UserError` where the region has fewer than 4 rows or columns, or no signal.
    """
    coils, height, width = kspace.shape
    calibration = _centre_of(kspace, (max(centre, _CALIBRATION), centre) if isinstance(centre, int) else centre)
    rows, columns = (max(2, min(kernel, (size + 1) // 3)) for size in calibration.shape[1:])
    correlation = _correlation(_signal_projection(calibration, rows, columns, threshold), coils, rows, columns)
    along, across = _waves(height, rows, kspace.device), _waves(width, columns, kspace.device)
    reference = _strongest(calibration)
    maps = torch.empty_like(kspace)
    block = max(1, _BLOCK // (coils**2 * width))
    for first in range(0, height, block):
        here = slice(first, first + block)
        values, vectors = torch.linalg.eigh(torch.einsum("hy,cdyx,wx->hwcd", along[here], correlation, across))
        leading = vectors[..., -1] * (values[..., -1:] >= crop)
        angle = (leading @ reference.conj()).angle()
        maps[:, here] = (leading * torch.polar(torch.ones_like(angle), -angle).unsqueeze(-1)).permute(2, 0, 1)
    return maps


def _centre_of(kspace: Tensor, size: tuple[int, int]) -> Tensor:
    """The calibration region (C, rows, columns) in the middle of k-space (C, H, W); refused where it says nothing."""
    height, width = kspace.shape[1:]
    rows, columns = min(size[0], height), min(size[1], width)
    if min(rows, columns) < _LEAST:
        known = f"it needs at least {_LEAST} of each: sample more of the centre (centre_fraction)"
        raise UserError(f"coil sensitivities: the sampled centre has {rows} rows and {columns} columns; {known}")
    # As the low-frequency columns lie (masks.centre_lines), whose first is rounded up.
    top, left = (height - rows + 1) // 2, (width - columns + 1) // 2
    region = kspace[:, top : top + rows, left : left + columns]
    if not bool(region.abs().amax() > 0):
        raise UserError("coil sensitivities: the centre of k-space holds no signal; its lines must be fully sampled")
    return region


def _signal_projection(calibration: Tensor, rows: int, columns: int, threshold: float) -> Tensor:
    """The projection (n, n), n = C rows columns, onto what patches (C, rows, columns) of k-space look like."""
    patches = calibration.unfold(1, rows, 1).unfold(2, columns, 1).permute(0, 3, 4, 1, 2)
    patches = patches.reshape(calibration.shape[0] * rows * columns, -1).to(torch.complex128)
    patches = patches / patches.abs().amax()
    energies, vectors = torch.linalg.eigh(patches @ patches.mH)  # left singular vectors, squared singular values
    signal = vectors[:, energies > threshold**2 * energies[-1]]
    return signal @ signal.mH


def _correlation(projection: Tensor, coils: int, rows: int, columns: int) -> Tensor:
    """The projection of every patch that holds a point, averaged: a convolution (C, C, 2 rows − 1, 2 columns − 1).

    Entry (c, d, δ) is what coil d gives to coil c from the distance δ, counted from −(rows − 1) and −(columns − 1).
    """
    blocks = projection.reshape(coils, rows, columns, coils, rows, columns)
    total = blocks.new_zeros(coils, coils, 2 * rows - 1, 2 * columns - 1)
    for y in range(rows):
        for x in range(columns):
            down, right = rows - 1 - y, columns - 1 - x
            total[:, :, down : down + rows, right : right + columns] += blocks[:, y, x]
    return (total / (rows * columns)).to(torch.complex64)


def _waves(size: int, patch: int, device: torch.device) -> Tensor:
    """(size, 2 patch − 1) exp(−2πi δ r / size) of the pixels r, counted from the centre, and the distances δ."""
    pixels = torch.arange(size, device=device, dtype=torch.float64) - size // 2
    distances = torch.arange(1 - patch, patch, device=device, dtype=torch.float64)
    turns = torch.outer(pixels, distances) / size
    return torch.polar(torch.ones_like(turns), -2 * torch.pi * turns).to(torch.complex64)


def _strongest(calibration: Tensor) -> Tensor:
    """The combination (C,) of coils that holds most of the centre's energy."""
    samples = calibration.flatten(1)
    return torch.linalg.eigh(samples @ samples.mH)[1][:, -1]
