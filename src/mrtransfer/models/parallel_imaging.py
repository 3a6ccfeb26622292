"""Classical parallel imaging: the encoding of one undersampled slice, and reconstructions that invert it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mrtransfer.common.errors import UserError
from mrtransfer.models.coil_operators import kept_columns, normal
from mrtransfer.physics.coils import adjoint, espirit
from mrtransfer.physics.masks import centre_columns

_CALIBRATION = 24  # more lines do not improve the sensitivities
_KERNEL = 6
_FEWEST = 3


@dataclass(frozen=True, eq=False)
class Encoding:
    """The linear model of one slice, y = A x with A = sampling · Fourier · sensitivities.

    ``maps`` (C, H, W): sensitivities with Σ |S|² = 1, so that ‖A‖ ≤ 1 and the magnitude of x is the root sum of squares
    of what the coils see. ``measured`` (H, W): Aᴴ y divided by ``scale``, the 99th percentile of its magnitude, so that
    the strength of a regulariser means the same in every file. ``kept``: the sampled columns, as
    :func:`~mrtransfer.models.coil_operators.kept_columns` gives them.
    """

    maps: Tensor
    kept: Tensor
    measured: Tensor
    scale: Tensor

    def normal(self, image: Tensor) -> Tensor:
        """Aᴴ A x of an image (H, W)."""
        return normal(image[None], self.maps[None], self.kept)[0]


def encode(kspace: Tensor, columns: Tensor, centre: int) -> Encoding:
    """The encoding of one slice: k-space (C, H, W), its sampled ``columns`` (W,), of which ``centre`` in the middle.

    Sensitivities by ESPIRiT from the centre lines, kept also where there is little signal, as few lines cannot tell
    where that is. Raises :class:`UserError` where there are fewer than three.
    """
    if centre < _FEWEST:
        raise UserError(
            f"coil sensitivities: the sampled centre of k-space has {centre} lines; it needs at least {_FEWEST}"
        )
    lines = min(centre, _CALIBRATION)
    # A narrow centre holds few wide kernels; half its width was best on a knee with simulated coils.
    maps = espirit(kspace, lines, kernel=min(_KERNEL, (lines + 1) // 2), crop=0.0)
    measured = adjoint(kspace, maps, columns)
    scale = measured.abs().flatten().quantile(0.99)
    return Encoding(maps, kept_columns(columns[None], scale.dtype), measured / scale, scale)


class ParallelImaging(nn.Module):
    """A reconstruction that inverts the encoding of each slice of a batch on its own."""

    def solve(self, model: Encoding) -> Tensor:
        """The complex image (H, W) in units of ``model.scale``."""
        raise NotImplementedError

    def forward(self, kspace: Tensor, columns: Tensor, centre: Tensor | None = None) -> Tensor:
        """Magnitudes (N, H, W); arguments as in :class:`~mrtransfer.models.reconstructor.Reconstructor`."""
        lines = centre_columns(columns, centre).sum(1).tolist()
        with torch.no_grad(), torch.autocast(kspace.device.type, enabled=False):
            return torch.stack([self._magnitude(*one) for one in zip(kspace, columns, lines, strict=True)])

    def _magnitude(self, kspace: Tensor, columns: Tensor, centre: int) -> Tensor:
        if not bool(kspace.any()):  # a slice without signal is an image without signal
            return torch.zeros_like(kspace[0].real)
        model = encode(kspace, columns, centre)
        return self.solve(model).abs() * model.scale
