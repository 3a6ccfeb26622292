"""Reconstruction networks: undersampled k-space to the magnitude of the image."""

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from mrtransfer.common.errors import UserError
from mrtransfer.common.strict import first_error, unknown_key
from mrtransfer.models.network import StagedNetwork, seeded
from mrtransfer.models.reconstructor import Reconstructor
from mrtransfer.models.reconstructors import RECONSTRUCTORS

_COMPLEX = 2  # channels of a complex image: real and imaginary part


class ReconstructionNetwork(StagedNetwork):
    """K-space (N, C, H, W) to magnitudes (N, H, W), by a network or by a classical method.

    ``multicoil``: it needs several coils. ``learns``: it has parameters; without any, it has no stages either, and
    nothing to load or to train. The number of coils and the size of the matrix may be others at every call.
    """

    def __init__(self, parts: Reconstructor, description: Mapping[str, Any]) -> None:
        super().__init__(
            description["name"],
            parts.body,
            in_channels=_COMPLEX,
            stages=parts.stages,
            classifier=("loss",),  # fastMRI's training checkpoints hold the window of their SSIM loss as `loss.w`
            first_conv=(),
        )
        self._description = dict(description)
        self.multicoil = parts.multicoil
        self.smallest = parts.smallest
        self.learns = any(True for _ in parts.body.parameters())

    @property
    def description(self) -> dict[str, Any]:
        """The arguments with which :func:`build_reconstruction_network` builds it again; its weights apart."""
        return dict(self._description)

    def forward(self, kspace: Tensor, columns: Tensor, centre: Tensor | None = None) -> Tensor:
        """Magnitudes (N, H, W) float32.

        ``kspace``: (N, C, H, W) complex64, zero where nothing was sampled. ``columns``: (N, W) bool, the sampled ones.
        ``centre``: (N,), how many low-frequency columns were sampled; None: as many as ``columns`` has in one piece
        and symmetric around the centre.
        """
        return self.body(kspace, columns, centre)

    def check(self, coils: int, matrix: tuple[int, int]) -> None:
        """Raise :class:`UserError` where k-space of ``coils`` coils and ``matrix`` (H, W) does not fit."""
        if self.multicoil and coils < 2:
            raise UserError(f"network {self.name}: it needs several coils, and this k-space has one; use unet for one")
        if min(matrix) < self.smallest:
            raise UserError(
                f"network {self.name}: a matrix of {matrix[0]}×{matrix[1]} is too small; it needs at least "
                f"{self.smallest}×{self.smallest}, or fewer pools"
            )


def build_reconstruction_network(
    name: str, *, options: Mapping[str, Any] | None = None, seed: int = 0
) -> ReconstructionNetwork:
    """A reconstruction with random weights, if it has any, drawn from ``seed`` alone.

    ``name``: one of :data:`~mrtransfer.models.reconstructors.RECONSTRUCTORS`. ``options``: the parameters of the
    function in ``reconstructors/``. Raises :class:`UserError` for what it does not know or cannot build, with the
    nearest valid name.
    """
    build = RECONSTRUCTORS.get(name)
    chosen = check_options(name, options or {})
    with seeded(seed):
        parts = build(**chosen)
    return ReconstructionNetwork(parts, {"name": name, "options": chosen})


def check_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a reconstruction with their values, defaults included, ready for JSON.

    Raises :class:`UserError` for an unknown option, with the nearest valid one, and for a value that cannot be.
    """
    known = inspect.signature(RECONSTRUCTORS.get(name)).parameters
    for key in options:
        if key not in known:
            raise UserError(f"network {name}: {unknown_key(str(key), list(known))}")
    chosen = {}
    for key, parameter in known.items():
        try:
            value = TypeAdapter(parameter.annotation).validate_python(options.get(key, parameter.default))
        except ValidationError as error:
            raise first_error(error, f"network {name}: {key}") from error
        chosen[key] = list(value) if isinstance(value, tuple) else value
    return chosen
