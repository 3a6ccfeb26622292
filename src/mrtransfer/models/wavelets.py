"""Daubechies' orthogonal wavelets of images, periodic at the edges, on any device."""

from functools import lru_cache
from math import comb

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@lru_cache(maxsize=16)
def daubechies(moments: int) -> NDArray[np.float64]:
    """The scaling filter (2·``moments``,) of the wavelet with that many vanishing moments; 1 is Haar's.

    By spectral factorisation, minimum phase: Daubechies, Orthonormal bases of compactly supported wavelets, Commun Pure
    Appl Math 41:909 (1988). Its sum is √2 and its sum of squares 1.
    """
    roots = [-1.0] * moments
    for y in np.roots([comb(moments - 1 + k, k) for k in reversed(range(moments))]):
        pair = np.roots([1, 4 * y - 2, 1])  # y = (2 − z − 1/z) / 4: z and 1/z, of which the one inside the unit circle
        roots.append(pair[np.abs(pair).argmin()])
    filter_ = np.poly(roots).real
    return filter_ * np.sqrt(2) / filter_.sum()


def analyse(image: Tensor, levels: int, moments: int) -> Tensor:
    """Coefficients, in the shape of ``image`` (…, H, W), real or complex; H and W are multiples of 2^``levels``.

    Mallat's arrangement: the coarse image in the upper left, (…, H / 2^levels, W / 2^levels). The transform is
    orthonormal: energy is kept, and :func:`synthesise` is its inverse and its adjoint.
    """
    if image.is_complex():  # real and imaginary parts apart: the filters are real
        return torch.complex(analyse(image.real, levels, moments), analyse(image.imag, levels, moments))
    result = image.clone()
    for part in _coarser(result, levels):
        rows, columns = (_matrix(size, moments, image.dtype, image.device) for size in part.shape[-2:])
        part.copy_(rows @ part @ columns.mT)
    return result


def synthesise(coefficients: Tensor, levels: int, moments: int) -> Tensor:
    """The image (…, H, W) of the coefficients that :func:`analyse` gives with the same arguments."""
    if coefficients.is_complex():
        parts = (synthesise(part, levels, moments) for part in (coefficients.real, coefficients.imag))
        return torch.complex(*parts)
    result = coefficients.clone()
    for part in reversed(_coarser(result, levels)):
        rows, columns = (_matrix(size, moments, part.dtype, part.device) for size in part.shape[-2:])
        part.copy_(rows.mT @ part @ columns)
    return result


def _coarser(image: Tensor, levels: int) -> list[Tensor]:
    """Views of what each level transforms: all of the image, its upper left quarter, and so on."""
    height, width = image.shape[-2:]
    return [image[..., : height >> level, : width >> level] for level in range(levels)]


@lru_cache(maxsize=64)
def _matrix(size: int, moments: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One level along one axis as an orthogonal matrix (size, size): low frequencies above, high ones below.

    A product with it is as fast as a filter bank at the sizes of MR images, and needs no rules for the edges.
    """
    low = daubechies(moments)
    high = low[::-1] * (-1.0) ** np.arange(low.size)
    matrix = np.zeros((size, size))
    rows = np.arange(size // 2)
    for tap in range(low.size):
        matrix[rows, (2 * rows + tap) % size] += low[tap]
        matrix[size // 2 + rows, (2 * rows + tap) % size] += high[tap]
    with torch.inference_mode(False):  # kept for later calls
        return torch.tensor(matrix, dtype=dtype, device=device)
