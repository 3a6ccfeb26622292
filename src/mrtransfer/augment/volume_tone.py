"""Changes of intensity and sharpness of patches (N, C, X, Y, Z), each a pure function of patches and parameters."""

import math

import torch
import torch.nn.functional as F  # noqa: N812  (PyTorch's own convention)
from torch import Tensor

_SPATIAL = (2, 3, 4)


def toned(images: Tensor, gamma: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    """Change each channel of each patch by its own (n, C) parameters.

    ``gamma``: exponent, with the channel's range taken as 0..1. ``contrast``: factor on the distance from the mean.
    ``brightness``: added, in standard deviations of the channel.
    """
    gamma, contrast, brightness = (_to(value, images) for value in (gamma, contrast, brightness))
    if (gamma != 1).any():
        least, most = images.amin(dim=_SPATIAL, keepdim=True), images.amax(dim=_SPATIAL, keepdim=True)
        span = (most - least).clamp_min(torch.finfo(torch.float32).tiny)
        bent = ((images - least) / span).clamp(0, 1) ** gamma * (most - least) + least
        images = torch.where(gamma != 1, bent, images)
    if (contrast != 1).any() or (brightness != 0).any():
        spread, centre = torch.std_mean(images, dim=_SPATIAL, keepdim=True, correction=0)
        changed = (images - centre) * contrast + centre + brightness * spread
        images = torch.where((contrast != 1) | (brightness != 0), changed, images)
    return images


def add_noise(images: Tensor, noise: Tensor, seeds: Tensor) -> Tensor:
    """Gaussian noise of standard deviation ``noise`` (n,), as a share of each channel's; each patch from its seed."""
    rows = (noise > 0).nonzero().flatten()
    if not len(rows):
        return images
    drawn = torch.stack(
        [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(int(seeds[row]))) for row in rows]
    )
    own = images[rows.to(images.device)]
    spread = own.std(dim=_SPATIAL, keepdim=True, correction=0)
    noisy = own + drawn.to(images) * spread * _to(noise[rows, None], images)
    return images.index_copy(0, rows.to(images.device), noisy)


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of standard deviation ``sigma`` (n,) voxels along every axis; borders are repeated."""
    rows = (sigma > 0).nonzero().flatten()
    if not len(rows):
        return images
    own, spread = images[rows.to(images.device)], sigma[rows].double()
    radius = math.ceil(3 * float(spread.max()))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * spread[:, None] ** 2))
    weights[offsets.abs() > torch.ceil(3 * spread)[:, None]] = 0  # whatever the other patches' blur
    weights = (weights / weights.sum(dim=1, keepdim=True)).to(images)
    for axis in _SPATIAL:
        length = own.shape[axis]
        if length == 1:
            continue
        index = torch.arange(-radius, length + radius).clamp(0, length - 1).to(images.device)
        wide = own.index_select(axis, index)
        own = torch.zeros_like(own)
        for place in range(2 * radius + 1):
            own += wide.narrow(axis, place, length) * weights[:, place, None, None, None, None]
    return images.index_copy(0, rows.to(images.device), own)


def coarsened(images: Tensor, zoom: Tensor) -> Tensor:
    """As if scanned on a grid coarser by ``zoom`` (n,), 1 or less: nearest voxels of it, interpolated linearly."""
    rows = (zoom < 1).nonzero().flatten().tolist()
    if not rows:
        return images
    images = images.clone()
    planes = images.shape[4] == 1
    for row in rows:
        own = images[row : row + 1].squeeze(4) if planes else images[row : row + 1]
        size = [max(round(length * float(zoom[row])), 1) for length in own.shape[2:]]
        coarse = F.interpolate(own, size=size, mode="nearest")
        fine = F.interpolate(coarse, size=own.shape[2:], mode="bilinear" if planes else "trilinear")
        images[row] = fine.reshape(images.shape[1:])
    return images


def _to(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images)[:, :, None, None, None]
