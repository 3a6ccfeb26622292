"""A reconstruction model with all that its folder says about its use, and what it makes of a scan."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import ValidationError

from mrtransfer.common.errors import UserError
from mrtransfer.common.strict import first_error
from mrtransfer.data.kspace import KspaceVolume
from mrtransfer.models.package import load_model
from mrtransfer.models.reconstruction import ReconstructionNetwork
from mrtransfer.physics.masks import SampledColumns, Sampling
from mrtransfer.training.precision import Precision


@dataclass(frozen=True)
class TrainedReconstructor:
    """The network, how k-space was undersampled while it was trained, and what it was trained on."""

    network: ReconstructionNetwork
    sampling: Sampling
    acquisitions: tuple[str, ...]
    """The protocols it was trained on (CORPD_FBK, AXT2, …), as far as the files said."""
    digest: str
    """Of the weights."""
    provenance: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The model in ``folder``; :class:`UserError` where it is damaged or made for another task."""
        model = load_model(folder)
        if not isinstance(model.network, ReconstructionNetwork):
            raise UserError(f"{folder}: is a model for {model.task}, not for reconstruction")
        spec, file = model.spec, folder / "model.json"
        try:
            sampling = Sampling.model_validate(spec["sampling"])
        except ValidationError as error:
            raise first_error(error, f"{file}: sampling") from error
        acquisitions = tuple(map(str, spec.get("acquisitions", ())))
        return cls(model.network, sampling, acquisitions, str(spec["digest"]), dict(spec["provenance"]))

    def undersampling(
        self, acceleration: float | None, mask: str | None = None, centre_fraction: float | None = None
    ) -> Sampling | None:
        """How fully sampled files are to be undersampled, None for not at all; what is not given is as in training.

        Raises :class:`UserError` that names the option of the command line: where it cannot be, or where the model was
        not trained at this ``acceleration`` and so does not say how many centre lines go with it.
        """
        if acceleration is None:
            for option, value in (("--mask", mask), ("--centre-fraction", centre_fraction)):
                if value is not None:
                    raise UserError(
                        f"{option} {value}: says how fully sampled k-space is to be undersampled; add --acceleration, "
                        f"such as --acceleration {self.sampling.acceleration[0]:g}"
                    )
            return None
        known = dict(zip(self.sampling.acceleration, self.sampling.centre_fraction, strict=True))
        fraction = known.get(acceleration) if centre_fraction is None else centre_fraction
        chosen = {"mask": mask or self.sampling.mask, "acceleration": acceleration}
        try:
            sampling = Sampling.model_validate({**chosen, "centre_fraction": 1.0 if fraction is None else fraction})
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise UserError(as_option(message)) from error
        if fraction is None:
            nearest = min(known, key=lambda value: abs(value - acceleration))
            raise UserError(
                f"--acceleration {acceleration:g}: the model was trained at {_listed(known)}, which does not say how "
                "many lines of the centre go with it; add --centre-fraction, such as --centre-fraction "
                f"{nearest * known[nearest] / acceleration:.2g}"
            )
        return sampling


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """One reconstructed volume; images are magnitudes (S, h, w) float32 within the volume's crop."""

    volume: KspaceVolume
    images: np.ndarray
    zero_filled: np.ndarray
    targets: np.ndarray | None
    """What the images should be; None where the full data are not there."""
    max_value: float
    """The data range of the scores: the largest value of the targets, as the file says where it does."""
    columns: np.ndarray
    """bool (W,): the columns of k-space that the images were made from."""
    drawn: SampledColumns | None
    """How they were chosen; None where the file was undersampled when it was measured."""
    digest: str
    """Of its k-space, as a :class:`~mrtransfer.data.kspace.store.KspaceStore` has it."""
    precision: Precision

    @property
    def middle(self) -> int:
        """The slice that is shown."""
        return len(self.images) // 2

    @property
    def sampled(self) -> np.ndarray:
        """bool (A,): of the columns that a full acquisition has, those used; a scanner fills others with zeros."""
        return self.columns if self.volume.padding is None else self.columns[slice(*self.volume.padding)]

    @property
    def acceleration(self) -> float:
        """How many times fewer columns were used than the full acquisition has."""
        return len(self.sampled) / int(self.sampled.sum())


def as_option(message: str) -> str:
    """What :class:`Sampling` says about a field, about the option of the command line that sets it."""
    for field in Sampling.model_fields:
        if message.startswith(f"{field}: "):
            return f"--{field.replace('_', '-')}{message.removeprefix(field)}"
    return f"--mask: {message}"


def _listed(values: dict[float, float]) -> str:
    return " and ".join(f"{value:g}" for value in values)
