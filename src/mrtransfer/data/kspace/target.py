"""The image that a network is to reconstruct, from fully sampled k-space."""

import numpy as np


def magnitude_target(kspace: np.ndarray, crop: tuple[int, int]) -> np.ndarray:
    """float32 (h, w): root sum of squares over the coil images of fully sampled ``kspace`` (C, H, W), cropped.

    As fastMRI computes its targets (Zbontar et al., arXiv 1811.08839, section 4); for one coil it is the magnitude.
    """
    import torch

    from mrtransfer.physics.coils import rss
    from mrtransfer.physics.fourier import ifft2c

    images = center_crop(ifft2c(torch.from_numpy(kspace)).numpy(), crop)
    return rss(torch.from_numpy(images)).numpy()


def center_crop(images: np.ndarray, crop: tuple[int, int]) -> np.ndarray:
    """The central (h, w) of ``images`` (…, H, W), a view; where the sizes differ by an odd number, as fastMRI crops."""
    top, left = ((size - part) // 2 for size, part in zip(images.shape[-2:], crop, strict=True))
    return images[..., top : top + crop[0], left : left + crop[1]]


def simulated_kspace(image: np.ndarray) -> np.ndarray:
    """complex64 (…, H, W): the k-space that an ideal coil of uniform sensitivity would have measured of ``image``."""
    import torch

    from mrtransfer.physics.fourier import fft2c

    return fft2c(torch.from_numpy(np.ascontiguousarray(image, dtype=np.complex64))).numpy()
