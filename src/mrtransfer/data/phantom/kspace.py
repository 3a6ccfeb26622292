"""K-space volumes of the phantom: complex images seen by an array of coils, with their noise.

Fully sampled, as fastMRI stores it: centred, orthonormal, (slices, coils, rows, columns), columns phase-encoded.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from mrtransfer.data.phantom.acquisition import SCANNERS
from mrtransfer.data.phantom.complex_image import complex_image
from mrtransfer.data.phantom.kspace_scan import KSPACE_CONTRASTS, KspaceScan, Part, parse_kspace
from mrtransfer.data.phantom.volume_scan import ANATOMIES
from mrtransfer.physics.noise import complex_noise
from mrtransfer.physics.receive import CoilArray

# Half axes (mm, x and y) of the array's cylinder, and of the body within it.
_ARRAYS = {"brain": ((132.0, 150.0), (75.0, 95.0)), "knee": ((94.0, 98.0), (60.0, 62.0))}
_BODY_NOISE = 0.3  # share of the noise that comes from the body
_LEVEL = 3e-4  # of bright tissue in the units of fastMRI's files, before the scan's own gain

Complex = NDArray[np.complex64]


def render_kspace(location: str) -> Complex:
    """The k-space at ``location``, the same bytes every time: (slices, coils, rows, columns)."""
    scan = parse_kspace(location)
    kspace = coil_images(scan)
    draw = scan.generator(
        Part.NOISE, KSPACE_CONTRASTS.index(scan.contrast), list(SCANNERS).index(scan.scanner), *scan.matrix, scan.coils
    )
    combined = np.sqrt(np.square(np.abs(kspace)).sum(axis=1))
    level = 2 * float(np.median(combined[combined > 0.1 * np.percentile(combined, 99)]))  # about the brightest tissue's
    sigma = SCANNERS[scan.scanner].noise * level * np.exp(0.3 * draw.standard_normal())
    gain = _LEVEL * np.exp(0.4 * draw.standard_normal()) / level
    mixing = np.linalg.cholesky(noise_correlation(scan)).astype(np.complex64)
    for images in kspace:
        noise = complex_noise(images.shape, sigma, draw)
        images[:] = _to_kspace(images) + np.tensordot(mixing, noise, axes=1)
        images *= np.float32(gain)
    return kspace


def coil_images(scan: KspaceScan) -> Complex:
    """What each coil sees without noise, (slices, coils, rows, columns)."""
    array = receive_array(scan)
    images = np.empty((scan.slices, scan.coils, *scan.matrix), dtype=np.complex64)
    for number in range(scan.slices):
        image, grid = complex_image(scan, number)
        x, y, z = grid.axes()
        seen = array.sensitivities(x, y, z)
        for coil in range(scan.coils):
            np.multiply(scan.as_slices(seen[coil])[0], image, out=images[number, coil])
    return images


def receive_array(scan: KspaceScan) -> CoilArray:
    """The coils around this subject: an array of the anatomy's size, a little differently placed in every scan."""
    draw = scan.generator(Part.COILS, list(SCANNERS).index(scan.scanner), scan.coils)
    half, _ = _ARRAYS[scan.anatomy]
    x, y, z = (float(middle + draw.normal(0, 5.0)) for middle in ANATOMIES[scan.anatomy].centre)
    return CoilArray.around(scan.coils, half, draw, middle=(x, y, z))


def noise_correlation(scan: KspaceScan) -> NDArray[np.complex128]:
    """(coils, coils) of the noise that this scan's coils pick up from the body, and of their own."""
    _, (width, height) = _ARRAYS[scan.anatomy]
    x, y, z = np.meshgrid(*(np.linspace(-0.9, 0.9, 9) * half for half in (width, height, width)), indexing="ij")
    inside = np.square(x / width) + np.square(y / height) < 1
    middle = ANATOMIES[scan.anatomy].centre
    points = (axis[inside] + at for axis, at in zip((x, y, z), middle, strict=True))
    return receive_array(scan).noise_correlation(*points, share=_BODY_NOISE)


def _to_kspace(images: Complex) -> Complex:
    """Centred orthonormal FFT over the last two axes."""
    axes = (-2, -1)
    spectrum = fft.fft2(fft.ifftshift(images, axes=axes), norm="ortho")
    return np.asarray(fft.fftshift(spectrum, axes=axes), dtype=np.complex64)
