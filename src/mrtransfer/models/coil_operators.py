"""What couples the coils in an unrolled network, with backward passes of its own that keep no images of the coils.

With S the coils' sensitivities and T = F⁻¹ M F, which sets to zero what was not sampled. Columns are sampled whole, so
that rows need no transform. T is a circular convolution of each row, whether indices count from the centre or from the
corner: the mask is shifted once, and images never.

On a CPU, coil after coil: an image then stays in the cache from one step to the next.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def normal(image: Tensor, maps: Tensor, kept: Tensor) -> Tensor:
    """Sᴴ T S of complex images (N, H, W), for ``maps`` (N, C, H, W) and ``kept``, see :func:`kept_columns`."""
    return _Normal.apply(image, maps, kept)


def corrected(images: Tensor, sampled: Tensor, free: Tensor, maps: Tensor, kept: Tensor) -> Tensor:
    """Root sum of squares (N, H, W) over the coils of ``images`` + T S ``sampled`` − S ``free``.

    ``images`` (N, C, H, W); ``sampled`` and ``free`` (N, H, W).
    """
    return _Corrected.apply(images, sampled, free, maps, kept)


def kept_columns(columns: Tensor, dtype: torch.dtype) -> Tensor:
    """``columns`` (N, W) bool as the factor (N, 1, 1, W) of type ``dtype`` by which T multiplies uncentred spectra."""
    return torch.fft.ifftshift(columns, dim=-1)[:, None, None, :].to(dtype)


def _sampled(images: Tensor, kept: Tensor) -> Tensor:
    """T of images (N, C, H, W)."""
    return torch.fft.ifft(torch.fft.fft(images).mul_(kept))


def _coils(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The parts (N, c, H, W) of tensors (N, C, H, W) that are worked on at a time."""
    together = 1 if tensors[0].device.type == "cpu" else tensors[0].shape[1]
    return zip(*(tensor.split(together, dim=1) for tensor in tensors), strict=True)


class _Normal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, maps: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(image, maps, kept)
        out, image = torch.zeros_like(image), image[:, None]
        for (part,) in _coils(maps):
            out += _sampled(part * image, kept).mul_(part.conj()).sum(dim=1)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The operator is its own adjoint; the maps take part twice, as S and as Sᴴ."""
        image, maps, kept = ctx.saved_tensors
        image, gradient = image[:, None], gradients[0][:, None]
        for_image, for_maps = torch.zeros_like(gradients[0]), torch.empty_like(maps)
        for part, into in _coils(maps, for_maps):
            back = _sampled(part * gradient, kept)
            if ctx.needs_input_grad[1]:
                there = _sampled(part * image, kept).mul_(gradient.conj())
                torch.addcmul(there, back, image.conj(), out=into)
            for_image += back.mul_(part.conj()).sum(dim=1)
        return for_image, for_maps if ctx.needs_input_grad[1] else None, None


class _Corrected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, sampled: Tensor, free: Tensor, maps: Tensor, kept: Tensor) -> Tensor:
        power = torch.zeros_like(sampled.real)
        for one, part in _coils(images, maps):
            coil = _corrected(one, sampled, free, part, kept)
            power += torch.view_as_real(coil).square_().sum(dim=(1, -1))
        magnitude = power.sqrt_()
        ctx.save_for_backward(images, sampled, free, maps, kept, magnitude)
        return magnitude

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor, None]:
        images, sampled, free, maps, kept, magnitude = ctx.saved_tensors
        # Where there is no signal there is no direction either: 0, as for the norm of a vector.
        gradient = torch.where(magnitude > 0, gradients[0] / magnitude, 0.0)[:, None]
        for_sampled, for_free, for_maps = torch.zeros_like(sampled), torch.zeros_like(free), torch.empty_like(maps)
        for_images = []
        for one, part, into in _coils(images, maps, for_maps):
            direct = _corrected(one, sampled, free, part, kept).mul_(gradient)
            through = _sampled(direct, kept)
            torch.mul(through, sampled[:, None].conj(), out=into).addcmul_(direct, free[:, None].conj(), value=-1)
            for_sampled += through.mul_(part.conj()).sum(dim=1)
            for_free -= (part.conj() * direct).sum(dim=1)
            if ctx.needs_input_grad[0]:
                for_images.append(direct)
        return torch.cat(for_images, dim=1) if for_images else None, for_sampled, for_free, for_maps, None


def _corrected(images: Tensor, sampled: Tensor, free: Tensor, maps: Tensor, kept: Tensor) -> Tensor:
    """The coils' images (N, c, H, W) after the last step, of which :func:`corrected` takes the magnitude."""
    return _sampled(maps * sampled[:, None], kept).add_(images).addcmul_(maps, free[:, None], value=-1)
