"""Metrics of a reconstructed volume, as fastMRI computes them (Zbontar et al. 2018, section 6).

SSIM is the mean over slices, with the volume's maximum as data range; PSNR and NMSE are those of the whole volume, not
means over slices. They are computed on the device of the images, in float64 where it has that. Images that are not
finite score NaN.
"""

import math

import numpy as np
import torch
from torch import Tensor

from mrtransfer.common.errors import UserError
from mrtransfer.tasks.reconstruction.similarity import structural_similarity

RECONSTRUCTION_METRICS = ("ssim", "psnr", "nmse")
HIGHER_IS_BETTER = {"ssim": True, "psnr": True, "nmse": False}
RANGES = {"ssim": (-1.0, 1.0), "psnr": (-math.inf, math.inf), "nmse": (0.0, math.inf)}
WORDS = {"ssim": "SSIM", "psnr": "PSNR", "nmse": "NMSE"}
UNITS = {"psnr": "dB"}
_SLICES_AT_ONCE = 4  # bounds the memory of the windowed sums to that of a few slices

Volume = Tensor | np.ndarray
"""Magnitudes (S, h, w)."""


@torch.no_grad()
def evaluate_volume(pred: Volume, target: Volume, max_value: float) -> dict[str, float]:
    """Every metric of :data:`RECONSTRUCTION_METRICS`, of the magnitudes ``pred`` and ``target`` (S, h, w).

    ``max_value``: the maximum of the volume's target, fastMRI's attribute ``max``. Where the two are equal, PSNR is
    infinite. Raises :class:`UserError` where ``max_value`` is not a positive number.
    """
    return {
        "ssim": ssim(pred, target, max_value).item(),
        "psnr": psnr(pred, target, max_value).item(),
        "nmse": nmse(pred, target).item(),
    }


def ssim(pred: Volume, target: Volume, data_range: float) -> Tensor:
    """Scalar: the mean of :func:`ssim_of_slices`."""
    return ssim_of_slices(pred, target, data_range).mean()


@torch.no_grad()
def ssim_of_slices(pred: Volume, target: Volume, data_range: float) -> Tensor:
    """(S,) SSIM of every slice, all with the data range of the volume."""
    pred, target = _paired(pred, target)
    positive(data_range)
    parts = zip(pred.split(_SLICES_AT_ONCE), target.split(_SLICES_AT_ONCE), strict=True)
    return torch.cat([structural_similarity(_exact(own), _exact(true), data_range) for own, true in parts])


@torch.no_grad()
def psnr(pred: Volume, target: Volume, data_range: float) -> Tensor:
    """Scalar, dB: 10 log₁₀(data_range² / MSE), of the whole volume."""
    pred, target = _paired(pred, target)
    return 20 * math.log10(positive(data_range)) - 10 * torch.log10(_squares(pred, target) / pred.numel())


@torch.no_grad()
def nmse(pred: Volume, target: Volume) -> Tensor:
    """Scalar: ‖pred − target‖² / ‖target‖², of the whole volume."""
    pred, target = _paired(pred, target)
    return _squares(pred, target) / _squares(target, None)


def positive(max_value: float) -> float:
    """``max_value``; :class:`UserError` where it is not a positive number."""
    if not 0 < max_value < math.inf:
        raise UserError(f"reconstruction metrics: the target's maximum is {max_value}; it must be a positive number")
    return max_value


def _squares(images: Tensor, others: Tensor | None) -> Tensor:
    """‖images − others‖², slice by slice."""
    parts = [_exact(one) if others is None else _exact(one) - _exact(others[at]) for at, one in enumerate(images)]
    return torch.stack([part.square().sum() for part in parts]).sum()


def _paired(pred: Volume, target: Volume) -> tuple[Tensor, Tensor]:
    """Both as tensors on the device of ``pred``; magnitudes (S, h, w) of one shape."""
    pred = torch.as_tensor(pred)
    target = torch.as_tensor(target, device=pred.device)
    if pred.shape != target.shape or pred.ndim != 3 or not len(pred) or pred.is_complex() or target.is_complex():
        raise ValueError(
            f"images {tuple(pred.shape)} {pred.dtype} and targets {tuple(target.shape)} {target.dtype} "
            "must both be real, (S, h, w), with a slice"
        )
    return pred, target


def _exact(images: Tensor) -> Tensor:
    """In float64, where the device knows it."""
    return images.float() if images.device.type == "mps" else images.double()
