"""Moving complex coil images (n, C, H, W): as tables with all coils of a pixel side by side, or on a finer grid."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mrtransfer.augment.kspace_geometry import MRParams, gather


def moved(images: Tensor, params: MRParams) -> Tensor:
    """Images (n, C, H, W) as ``params`` says; slices without changes are copies."""
    rows = params.changes.nonzero().flatten()
    if len(rows) == 0:
        return images.clone()
    if len(rows) < len(params):
        return images.index_copy(0, rows.to(images.device), moved(images[rows], params.take(rows)))
    if params.upsample == 1:
        return _gathered(images, params)
    images = _gathered(images, params.without_affine())
    rows = params.warps.nonzero().flatten()
    if len(rows):
        images[rows] = _upsampled(images[rows], params.take(rows))
    return images


def as_table(images: Tensor) -> Tensor:
    """Complex images (n, C, H, W) as (n, H · W, 2 C) real: all coils of a pixel side by side."""
    n, coils, height, width = images.shape
    beside = images.permute(0, 2, 3, 1).contiguous()
    return torch.view_as_real(beside).view(n, height * width, 2 * coils)


def from_table(table: Tensor, images: Tensor) -> Tensor:
    """The inverse of :func:`as_table`, written into contiguous ``images`` (n, C, h, w)."""
    for pixels, image in zip(table, images, strict=True):
        # As a plain transposition of two dimensions, this copy is twice as fast.
        image.flatten(1).copy_(torch.view_as_complex(pixels.unflatten(1, (-1, 2))).T)
    return images


def centre(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The centre (…, h, w) of images (…, H, W), as fastMRI crops; a view."""
    top, left = ((whole - side) // 2 for whole, side in zip(images.shape[-2:], size, strict=True))
    return images[..., top : top + size[0], left : left + size[1]]


def chunks(images: Tensor) -> Iterator[slice]:
    """Slices to work on together: a processor keeps one of them in its cache, an accelerator wants all at once."""
    step = 1 if images.device.type == "cpu" else max(len(images), 1)
    for start in range(0, len(images), step):
        yield slice(start, start + step)


def _gathered(images: Tensor, params: MRParams) -> Tensor:
    shape = (images.shape[-2], images.shape[-1])
    table = gather(params, shape, images)(as_table(images))
    return from_table(table, torch.empty_like(images, memory_format=torch.contiguous_format))


def _upsampled(images: Tensor, params: MRParams) -> Tensor:
    """The affine map of images that were enlarged ``params.upsample`` times, reduced again."""
    shape = images.shape[-2:]
    fine = _resized(images, [side * params.upsample for side in shape], params.order)
    return _resized(_gathered(fine, params.only_affine()), shape, params.order)


def _resized(images: Tensor, size: Sequence[int], order: int) -> Tensor:
    parts = torch.view_as_real(images).movedim(-1, 2).flatten(1, 2)
    parts = interpolate(parts, size=list(size), mode="bicubic" if order == 3 else "bilinear", align_corners=False)
    return torch.view_as_complex(parts.unflatten(1, (-1, 2)).movedim(2, -1).contiguous())
