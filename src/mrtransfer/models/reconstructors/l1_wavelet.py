"""Compressed sensing: parallel imaging of images that are sparse in wavelets."""

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from mrtransfer.models.parallel_imaging import Encoding, ParallelImaging
from mrtransfer.models.reconstructor import Reconstructor
from mrtransfer.models.reconstructors import RECONSTRUCTORS
from mrtransfer.models.wavelets import analyse, synthesise

_LEVELS = 4
_MOMENTS = 2
_SEED = 0


@RECONSTRUCTORS.register("l1_wavelet")
def l1_wavelet(
    *, iterations: Annotated[int, Field(ge=1)] = 60, strength: Annotated[float, Field(ge=0)] = 0.003
) -> Reconstructor:
    """Compressed sensing: L1-wavelet-regularised SENSE with ESPIRiT coil sensitivities.

    ``strength``: the weight λ of ‖Ψ x‖₁ beside ½ ‖A x − y‖², as a fraction of the 99th percentile of |Aᴴ y|, the
    zero-filled image; so it means the same whatever the file's units. Stop early or late by ``iterations``. The
    defaults were chosen on a knee with simulated coils and noise, at accelerations 4 and 8.
    """
    return Reconstructor(L1Wavelet(iterations, strength), multicoil=False)


class L1Wavelet(ParallelImaging):
    """min ½ ‖A x − y‖² + λ ‖Ψ x‖₁, Ψ an orthonormal wavelet transform (Daubechies, two vanishing moments).

    Lustig et al., Sparse MRI, Magn Reson Med 58:1182 (2007). The wavelets' grid is shifted at random in every
    iteration, always by the same draws, which does away with most of the blocks of one fixed grid (cycle spinning:
    Coifman and Donoho, Translation-invariant de-noising, 1995; random: Figueiredo and Nowak, IEEE Trans Image Process
    12:906, 2003).
    """

    def __init__(self, iterations: int, strength: float) -> None:
        super().__init__()
        self.iterations = iterations
        self.strength = strength

    def solve(self, model: Encoding) -> Tensor:
        """The image after ``iterations`` of :func:`fista` with random shifts."""
        shifts = np.random.default_rng(_SEED).integers(0, 2**_LEVELS, (self.iterations, 2))
        height, width = model.measured.shape
        return fista(model, self.strength, shifts, _LEVELS, _MOMENTS)[:height, :width]


def fista(model: Encoding, strength: float, shifts: NDArray[np.integer], levels: int, moments: int) -> Tensor:
    """The image after one iteration for each of ``shifts`` (iterations, 2) of the wavelets' grid.

    Beck and Teboulle, A fast iterative shrinkage-thresholding algorithm, SIAM J Imaging Sci 2:183 (2009), with step 1
    as ‖A‖ ≤ 1. Its sides are the next multiples of 2^``levels``: the rows and columns beyond (H, W) are unknowns that A
    does not see. So Ψ is orthonormal, and its threshold exact, at any size.
    """
    height, width = model.measured.shape
    margin = (0, -width % 2**levels, 0, -height % 2**levels)
    image = previous = torch.zeros_like(pad(model.measured, margin))
    momentum = 1.0
    for rows, columns in shifts.tolist():
        gradient = model.normal(image[:height, :width]) - model.measured
        ahead = (image - pad(gradient, margin)).roll((rows, columns), (0, 1))
        sparse = shrink(analyse(ahead, levels, moments), strength)
        current = synthesise(sparse, levels, moments).roll((-rows, -columns), (0, 1))
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        image = current + (momentum - 1) / following * (current - previous)
        previous, momentum = current, following
    return previous


def shrink(values: Tensor, threshold: float) -> Tensor:
    """Complex ``values`` with magnitudes smaller by ``threshold``, or 0: the proximal map of threshold · ‖·‖₁."""
    magnitude = values.abs()
    kept = (magnitude - threshold).clamp_min(0) / magnitude.clamp_min(torch.finfo(magnitude.dtype).tiny)
    return values * kept
