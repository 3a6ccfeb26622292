"""Centred orthonormal Fourier transforms between images and k-space, on native complex tensors."""

from functools import lru_cache

import torch
from torch import Tensor

_PLANE = (-2, -1)


def fft2c(image: Tensor) -> Tensor:
    """K-space (…, H, W) of complex images (…, H, W): zero frequency and the image's centre both at index size // 2.

    Orthonormal, so energy is kept and :func:`ifft2c` is both the inverse and the adjoint.
    """
    if _even(image):
        before, after = _checkerboards(*image.shape[-2:], image.dtype, image.device)
        return torch.fft.fft2(image * before, dim=_PLANE, norm="ortho").mul_(after)
    spectrum = torch.fft.fft2(torch.fft.ifftshift(image, dim=_PLANE), dim=_PLANE, norm="ortho")
    return torch.fft.fftshift(spectrum, dim=_PLANE)


def ifft2c(kspace: Tensor) -> Tensor:
    """Complex images (…, H, W) of k-space (…, H, W): the inverse and the adjoint of :func:`fft2c`."""
    if _even(kspace):
        before, after = _checkerboards(*kspace.shape[-2:], kspace.dtype, kspace.device)
        return torch.fft.ifft2(kspace * before, dim=_PLANE, norm="ortho").mul_(after)
    image = torch.fft.ifft2(torch.fft.ifftshift(kspace, dim=_PLANE), dim=_PLANE, norm="ortho")
    return torch.fft.fftshift(image, dim=_PLANE)


def _even(x: Tensor) -> bool:
    return x.shape[-2] % 2 == 0 and x.shape[-1] % 2 == 0


@lru_cache(maxsize=64)
def _checkerboards(height: int, width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Signs (H, W) before and after an uncentred transform that make it the centred one, for even sizes.

    A shift by half the size on one side is the sign (−1)^k on the other: two products cost less than two shifts.
    """
    with torch.inference_mode(False):  # kept for later calls, which may need it for a backward pass
        rows = 1 - 2 * (torch.arange(height, device=device) % 2)
        columns = 1 - 2 * (torch.arange(width, device=device) % 2)
        before = torch.outer(rows, columns).to(dtype)
        return before, before * (-1) ** (height // 2 + width // 2)
