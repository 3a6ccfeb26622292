"""Susceptibility: how air and bone in and around the body bend the main field, and what a shim leaves of it."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Field = NDArray[np.float32]


def field_shift(susceptibility: NDArray[np.floating], spacing: tuple[float, float, float]) -> Field:
    """The relative change of the main field, in the units of ``susceptibility`` (ppm in, ppm out), (Z, Y, X).

    The main field is along the first axis; ``spacing`` in mm along the three. A product with 1/3 − kz²/k² in k-space
    (Salomir et al., Concepts Magn Reson B 19:26, 2003; Marques & Bowtell, Concepts Magn Reson B 25:65, 2005), so the
    object is repeated at the array's edges; the field's mean is 0.
    """
    shape = susceptibility.shape
    kz, ky, kx = (np.float32(1) * fft.fftfreq(n, step) for n, step in zip(shape, spacing, strict=True))
    kx = kx[: shape[2] // 2 + 1]
    kz2, ky2, kx2 = (np.square(np.abs(k)).astype(np.float32) for k in (kz, ky, kx))
    square = kz2[:, None, None] + ky2[None, :, None] + kx2[None, None, :]
    square[0, 0, 0] = 1
    dipole = np.float32(1 / 3) - kz2[:, None, None] / square
    dipole[0, 0, 0] = 0
    return fft.irfftn(fft.rfftn(susceptibility.astype(np.float32, copy=False)) * dipole, s=shape)


def shimmed(field: Field, inside: NDArray[np.bool_]) -> Field:
    """What a second-order shim leaves: ``field`` less the solid harmonics up to order 2 that fit it best ``inside``.

    Positions are relative to the array's middle and scaled to its longest side, which changes nothing but rounding.
    """
    z, y, x = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2).astype(np.float32) / max(field.shape) for n in field.shape),
        indexing="ij",
        sparse=True,
    )
    one = np.ones_like(field)
    terms = [one, one * x, one * y, one * z, one * x * y, one * x * z, one * y * z]
    terms += [one * (x**2 - y**2), one * (2 * z**2 - x**2 - y**2)]
    basis = np.stack([term[inside] for term in terms], axis=1).astype(np.float64)
    weights = np.linalg.solve(basis.T @ basis, basis.T @ field[inside].astype(np.float64))
    left = field.copy()
    for weight, term in zip(weights, terms, strict=True):
        left -= np.float32(weight) * term
    return left
