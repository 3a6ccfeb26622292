"""The end-to-end variational network of Sriram et al. (MICCAI 2020, arXiv 2004.06688), under fastMRI's names.

A network estimates the coils' sensitivities S from the centre of k-space. From k⁰ = k̃, what was measured, each of the
cascades then takes a step

    kᵗ⁺¹ = kᵗ − ηₜ M (kᵗ − k̃) − F S uₜ        with uₜ = Gₜ(xₜ), xₜ = Sᴴ F⁻¹ kᵗ, and Gₜ a normalised U-Net

(with the sign of fastMRI's code), and the image is the root sum of squares of F⁻¹ kᵀ. Here the same steps are taken
with single images in place of k-space of all coils. The sensitivities are normalised, Sᴴ S = 1, and k⁰ agrees with what
was measured. So M (kᵗ − k̃) = −M F S vₜ with v₀ = 0, and

    vₜ₊₁ = (1 − ηₜ) vₜ + uₜ        xₜ₊₁ = xₜ − uₜ + ηₜ A vₜ        with A = Sᴴ F⁻¹ M F S
    F⁻¹ kᵀ = F⁻¹ k̃ + F⁻¹ M F S Σ ηₜ vₜ − S Σ uₜ.

Between the cascades there are then C times fewer numbers to compute, and to keep for the backward pass. Only A meets
the coils; see :mod:`mrtransfer.models.coil_operators`.
"""

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from mrtransfer.models.coil_operators import corrected, kept_columns, normal
from mrtransfer.models.norm_unet import NormUnet, smallest_side
from mrtransfer.models.reconstructor import Reconstructor
from mrtransfer.models.reconstructors import RECONSTRUCTORS
from mrtransfer.models.stages import Stage
from mrtransfer.physics.coils import combine, rss
from mrtransfer.physics.fourier import ifft2c
from mrtransfer.physics.masks import centre_columns

Count = Annotated[int, Field(ge=1)]

_PIXELS = 2**17  # of coil images whose sensitivities are recomputed at once: all would take more memory than a cascade


class SensitivityNet(nn.Module):
    """Coil sensitivities from the centre of k-space, where all lines were sampled: one U-Net for all coils."""

    def __init__(self, channels: int, pools: int, mask_centre: bool, checkpoint: bool) -> None:
        super().__init__()
        self.norm_unet = NormUnet(channels, pools)
        self.mask_centre = mask_centre
        self.checkpoint = checkpoint

    def forward(self, kspace: Tensor, columns: Tensor, centre: Tensor | None) -> Tensor:
        """Sensitivities (N, C, H, W), whose squares add up to 1 over the coils."""
        if self.mask_centre:
            kspace = kspace * centre_columns(columns, centre)[:, None, None, :]
        images = ifft2c(kspace)
        coils = images.flatten(0, 1)
        if self.checkpoint and torch.is_grad_enabled():
            together = max(_PIXELS // coils[0].numel(), 1)
            refined = torch.cat([_recomputed(self.norm_unet, some) for some in coils.split(together)])
        else:
            refined = self.norm_unet(coils)
        maps = refined.unflatten(0, images.shape[:2])
        size = rss(maps).unsqueeze(1)
        return maps / (size + (size == 0))  # those of an empty image are 0


class Cascade(nn.Module):
    """The trained part of one step: its U-Net, and the weight of data consistency."""

    def __init__(self, channels: int, pools: int, checkpoint: bool) -> None:
        super().__init__()
        self.model = NormUnet(channels, pools)
        self.dc_weight = nn.Parameter(torch.ones(1))
        self.checkpoint = checkpoint

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """uₜ of the image xₜ (N, H, W), and ηₜ."""
        keeps = not (self.checkpoint and torch.is_grad_enabled())
        return self.model(x) if keeps else _recomputed(self.model, x), self.dc_weight


class VarNet(nn.Module):
    """The whole network; how its steps are computed is said at the top of this file."""

    def __init__(self, sens_net: SensitivityNet, cascades: Iterable[Cascade]) -> None:
        super().__init__()
        self.sens_net = sens_net
        self.cascades = nn.ModuleList(cascades)

    def forward(self, kspace: Tensor, columns: Tensor, centre: Tensor | None = None) -> Tensor:
        """Magnitudes (N, H, W) of k-space (N, C, H, W)."""
        images, maps = ifft2c(kspace), self.sens_net(kspace, columns, centre)
        kept = kept_columns(columns, images.real.dtype)
        x = combine(images, maps)
        v, consistent, refined = (torch.zeros_like(x) for _ in range(3))
        for number, cascade in enumerate(self.cascades):
            u, weight = cascade(x)
            if number + 1 < len(self.cascades):
                x = x - u + weight * normal(v, maps, kept) if number else x - u  # v is 0 at first
            consistent = consistent + weight * v
            refined = refined + u
            v = v - weight * v + u
        return corrected(images, consistent, refined, maps, kept)


def _recomputed(network: nn.Module, x: Tensor) -> Tensor:
    return recompute(network, x, use_reentrant=False, preserve_rng_state=False)  # nothing in it is drawn


@RECONSTRUCTORS.register("varnet")
def varnet(
    *,
    cascades: Count = 12,
    channels: Count = 18,
    pools: Count = 4,
    sens_channels: Count = 8,
    sens_pools: Count = 4,
    mask_centre: bool = True,
    checkpoint: bool = False,
) -> Reconstructor:
    """End-to-end variational network of Sriram et al. 2020; takes fastMRI's published files as they are.

    ``channels`` and ``pools`` are those of the cascades' U-Nets, ``sens_channels`` and ``sens_pools`` those of the one
    that finds the sensitivities, from low frequencies only with ``mask_centre``. ``checkpoint``: less memory for a
    training step, and a third more time.
    """
    sens_net = SensitivityNet(sens_channels, sens_pools, mask_centre, checkpoint)
    body = VarNet(sens_net, [Cascade(channels, pools, checkpoint) for _ in range(cascades)])
    names = ("sens_net", *(f"cascades.{number}" for number in range(cascades)))
    return Reconstructor(
        body,
        stages=tuple(Stage(name, (name,)) for name in names),
        smallest=smallest_side(max(pools, sens_pools), padded=True),
    )
