"""Resolution: a scanner measures only the centre of k-space."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft


def limit_resolution(
    image: NDArray[np.floating], pixel: float | tuple[float, float], resolution: float, taper: float = 0.5
) -> NDArray[np.float32]:
    """``image`` (…, H, W) as measured with pixels of ``resolution`` mm and interpolated back to ``pixel`` mm.

    ``pixel`` may be (between rows, between columns).

    Frequencies above 1/(2·resolution) are lost, as when a scanner zero-fills. ``taper`` is the outer part of the kept
    frequencies that is rolled off (Tukey window), which scanners do to weaken Gibbs ringing; 0 leaves it whole.
    """
    rows, columns = image.shape[-2:]
    down, across = (min(1.0, p / resolution) for p in (pixel if isinstance(pixel, tuple) else (pixel, pixel)))
    spectrum = fft.rfft2(image.astype(np.float32, copy=False))
    spectrum *= _window(rows, down, taper)[:, None] * _window(columns, across, taper)[None, : columns // 2 + 1]
    return fft.irfft2(spectrum, s=(rows, columns))


@lru_cache(maxsize=64)
def _window(length: int, keep: float, taper: float) -> NDArray[np.float32]:
    """Tukey window over FFT-ordered frequencies, zero above ``keep`` of the Nyquist frequency."""
    frequency = np.abs(fft.fftfreq(length)) * 2 / keep
    if taper <= 0:
        return (frequency <= 1).astype(np.float32)
    ramp = np.clip((frequency - (1 - taper)) / taper, 0, 1)
    return (0.5 * (1 + np.cos(np.pi * ramp))).astype(np.float32)
