"""Receiver noise: complex Gaussian, so that magnitudes are Rician."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive


def complex_noise(shape: tuple[int, ...], sigma: float, generator: np.random.Generator) -> NDArray[np.complex64]:
    """Complex Gaussian noise, standard deviation ``sigma`` in each of the real and the imaginary part."""
    parts = generator.standard_normal((*shape, 2), dtype=np.float32)
    return np.float32(sigma) * parts.view(np.complex64)[..., 0]


def rician(image: NDArray[np.floating], sigma: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """The magnitude |image + noise| that a receiver with noise ``sigma`` gives for a true magnitude ``image``.

    Gudbjartsson & Patz, The Rician distribution of noisy MRI data, Magn Reson Med 34:910 (1995).
    """
    return np.abs(image.astype(np.float32, copy=False) + complex_noise(image.shape, sigma, generator))


def rician_mean(image: NDArray[np.floating], sigma: float) -> NDArray[np.float64]:
    """The expected value of :func:`rician`: σ √(π/2) L½(−A²/2σ²), written with scaled Bessel functions."""
    half = np.asarray(image, dtype=np.float64) ** 2 / (4 * sigma**2)
    return sigma * np.sqrt(np.pi / 2) * ((1 + 2 * half) * ive(0, half) + 2 * half * ive(1, half))
