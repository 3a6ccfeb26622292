"""Volumes of k-space for trainings: ellipses seen by a few coils with smooth sensitivities, in fastMRI's files."""

import numpy as np
import pandas as pd

from mrtransfer.data.kspace import open_kspace, write_fastmri
from mrtransfer.data.manifest import Manifest

_DRAWN = ("seed", "slices", "coils", "height", "width")


def ellipses(rng, slices, height, width):
    """Complex images (S, H, W): bright ellipses under a smooth phase."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    images = np.zeros((slices, height, width))
    for image in images:
        image += 0.6 * ((x / 0.75) ** 2 + (y / 0.85) ** 2 < 1)
        for _ in range(6):
            a, b = rng.uniform(0.05, 0.3, 2)
            cx, cy = rng.uniform(-0.45, 0.45, 2)
            image += rng.uniform(-0.3, 0.5) * (((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1)
    return np.clip(images, 0, None) * np.exp(1j * (x + 0.5 * y * x))


def kspace_of(seed=0, slices=2, coils=3, height=36, width=32):
    """complex64 (S, C, H, W), in about fastMRI's units."""
    rng = np.random.default_rng(seed)
    images = ellipses(rng, slices, height, width)
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = np.stack([np.exp(-((x - np.cos(a)) ** 2 + (y - np.sin(a)) ** 2) / 2 + 1j * a * x) for a in angles])
    axes = (-2, -1)
    shifted = np.fft.ifftshift(images[:, None] * maps, axes=axes)
    samples = np.fft.fftshift(np.fft.fft2(shifted, axes=axes, norm="ortho"), axes=axes)
    noise = rng.normal(size=samples.shape) + 1j * rng.normal(size=samples.shape)
    return ((samples + 0.002 * noise) * 1e-4).astype(np.complex64)


def store_of(folder, volumes):
    """The store of ``volumes``: mappings of what :func:`kspace_of` and ``write_fastmri`` take."""
    folder.mkdir(exist_ok=True)
    names = [f"v{number}.h5" for number in range(len(volumes))]
    for number, (name, given) in enumerate(zip(names, volumes, strict=True)):
        drawn = {"seed": number} | {key: value for key, value in given.items() if key in _DRAWN}
        kspace = given["kspace"] if "kspace" in given else kspace_of(**drawn)
        said = {key: value for key, value in given.items() if key not in (*_DRAWN, "kspace")}
        write_fastmri(folder / name, kspace, **({"crop": (28, 28)} | said))
    table = pd.DataFrame({"sample": [name[:-3] for name in names], "image": names})
    return open_kspace(Manifest.create(table, folder, "ellipses"), folder / "store")
