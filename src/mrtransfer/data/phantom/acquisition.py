"""Acquisition: three scanners that differ in field, timing, coil, noise, resolution and exported grey values."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mrtransfer.data.phantom.contrast import GradientEcho, InversionRecovery, Sequence, SpinEcho
from mrtransfer.physics.bias import bias_field
from mrtransfer.physics.noise import rician
from mrtransfer.physics.resolution import limit_resolution


@dataclass(frozen=True)
class Scanner:
    """A scanner and its brain protocol."""

    name: str
    field: float  # tesla
    sequences: Mapping[str, Sequence]  # contrast to sequence
    noise: float  # standard deviation in each receiver channel, relative to the image's 99th percentile
    bias: float  # standard deviation of the log of the bias field
    resolution: float  # mm
    window: tuple[float, float]  # exported grey values: percentiles that become black and white
    gamma: float


def _protocol(**sequences: Sequence) -> Mapping[str, Sequence]:
    return MappingProxyType(sequences)


SCANNERS: Mapping[str, Scanner] = MappingProxyType(
    {
        # 1.5 T, spin echoes throughout
        "a": Scanner(
            "a",
            field=1.5,
            sequences=_protocol(
                t1=SpinEcho(450, 10),
                t1ce=SpinEcho(450, 10),
                t2=SpinEcho(4500, 98),
                flair=InversionRecovery(9000, 115, 2450),
                pd=SpinEcho(3000, 15),
            ),
            noise=0.022,
            bias=0.10,
            resolution=1.5,
            window=(1.0, 97.5),
            gamma=1.0,
        ),
        # 3 T, gradient-echo T1, sharper, stronger bias
        "b": Scanner(
            "b",
            field=3.0,
            sequences=_protocol(
                t1=GradientEcho(250, 2.6, 75),
                t1ce=GradientEcho(250, 2.6, 75),
                t2=SpinEcho(5200, 84),
                flair=InversionRecovery(9500, 125, 2500),
                pd=SpinEcho(3600, 12),
            ),
            noise=0.014,
            bias=0.24,
            resolution=1.2,
            window=(0.5, 95.5),
            gamma=0.85,
        ),
        # 1 T, older: noisy, coarse, other timings
        "c": Scanner(
            "c",
            field=1.0,
            sequences=_protocol(
                t1=SpinEcho(480, 18),
                t1ce=SpinEcho(480, 18),
                t2=SpinEcho(3000, 115),
                flair=InversionRecovery(7000, 100, 2050),
                pd=SpinEcho(2200, 22),
            ),
            noise=0.045,
            bias=0.16,
            resolution=2.2,
            window=(2.0, 98.0),
            gamma=1.15,
        ),
    }
)


def acquire(
    signal: NDArray[np.floating], pixel: float, scanner: Scanner, generator: np.random.Generator
) -> NDArray[np.float32]:
    """The magnitude image (H, W) that ``scanner`` makes of a noiseless signal with pixels of ``pixel`` mm."""
    image = limit_resolution(signal, pixel, scanner.resolution)
    image *= bias_field(image.shape, scanner.bias, generator)
    level = np.partition(image.ravel(), -image.size // 100)[-image.size // 100]
    return rician(image, scanner.noise * float(level), generator)


def export(image: NDArray[np.floating], scanner: Scanner, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Grey values as written to a picture: windowed between percentiles, with the operator's small changes of level."""
    last = image.size - 1
    low, high = (int(last * q / 100) for q in scanner.window)
    ordered = np.partition(image.ravel(), (low, high))
    black, white = ordered[low], ordered[high] * generator.uniform(0.95, 1.45)
    grey = np.clip((image - black) / max(white - black, 1e-6), 0, 1)
    if scanner.gamma != 1:
        grey **= np.float32(scanner.gamma)
    return (255 * grey + 0.5).astype(np.uint8)
