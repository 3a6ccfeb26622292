"""The plan: how cases are prepared, and the patches and network that fit them; JSON that the user may edit."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import digest, read_json, write_json
from mrtransfer.common.strict import Strict, first_error
from mrtransfer.data.cases.fingerprint import Fingerprint
from mrtransfer.data.cases.geometry import (
    divisible,
    divisor,
    halvings,
    largest_patch,
    target_spacing,
)
from mrtransfer.data.cases.normalise import Normalise

Size = Annotated[int, Field(ge=1)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]

MEMORY = 4.0
"""GiB that one training step may take, unless :func:`make_plan` is told otherwise."""
_STEP_BYTES = 128 * 32
"""Per voxel of all patches: activations and gradients of a U-Net with 32 features at full resolution. Measured with
MONAI's DynUNet on a CPU: 85 (bfloat16) to 127 (float32) bytes for each voxel and feature of the first level."""
_ENCODER = 32  # timm's 2-D encoders halve five times


class _Fields(Strict):
    """The fields of a plan, each checked for itself."""

    version: Literal[1] = 1
    dims: Literal[2, 3]
    """2: patches have one slice, Z = 1."""
    spacing: tuple[Length, Length, Length] | None
    """Of prepared cases, in mm; None: each case keeps its own."""
    crop: Literal["nonzero", "none"]
    """``nonzero``: to the box outside of which there is only background: in all channels the value that all corners of
    the volume have, or else 0."""
    normalise: tuple[Normalise, ...] = Field(min_length=1)
    """One per channel. ``zscore``: minus mean, by standard deviation of the case. ``zscore_nonzero``: of its voxels
    that are not background, which becomes 0. ``uint8``: value / 255, then ImageNet's mean and standard deviation where
    there are 3 channels, else (x - 0.5) / 0.5."""
    patch: tuple[Size, Size, Size]
    """Voxels of a training patch and of a window in inference."""
    batch: int = Field(ge=1)
    """Patches in an optimisation step."""
    features: tuple[Size, ...] = Field(min_length=1)
    """Feature maps at each level of the network, full resolution first."""
    strides: tuple[tuple[Size, Size, Size], ...]
    """From each level to the next, so one fewer than ``features``."""
    foreground: float = Field(1 / 3, ge=0, le=1)
    """Share of training patches that are centred on a voxel of a class, the classes of a case being equally likely."""
    class_frequencies: dict[str, Annotated[float, Field(ge=0, le=1)]]
    """Share of all training voxels by class, background included; for the reader, and for losses with weights."""

    @field_validator("spacing", "patch", "strides", mode="before")
    @classmethod
    def _of_three(cls, value: Any, info: ValidationInfo) -> Any:
        for three in value if info.field_name == "strides" and isinstance(value, list | tuple) else [value]:
            if isinstance(three, list | tuple) and len(three) != 3:
                raise ValueError(f"{list(three)} has {len(three)} numbers; three are needed, for X, Y and Z")
        return value

    @field_validator("class_frequencies")
    @classmethod
    def _sum_to_one(cls, value: dict[str, float]) -> dict[str, float]:
        if value and abs(sum(value.values()) - 1) > 1e-3:
            raise ValueError(f"the shares of all classes sum to {sum(value.values()):g}; they must sum to 1")
        return value


class SegmentationPlan(_Fields):
    """How the cases of a study are prepared and sampled, and how large the network is. Axes are canonical: RAS."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.dims == 2 and self.patch[2] != 1:
            raise ValueError(f"patch: has {self.patch[2]} slices, and dims is 2; the third number must be 1")
        if len(self.strides) != len(self.features) - 1:
            raise ValueError(
                f"strides: has {len(self.strides)} entries for {len(self.features)} levels of features; "
                f"it must have {len(self.features) - 1}, one between each level and the next"
            )
        for axis, length, step in zip("XYZ", self.patch, divisor(self.strides), strict=True):
            if length % step:
                near = max(round(length / step), 1) * step
                raise ValueError(
                    f"patch: is {length} voxels along {axis}, and the strides divide by {step} there; "
                    f"it must be a multiple of {step}, such as {near}"
                )
        return self

    @property
    def data_key(self) -> str:
        """Digest of what defines stored pixels: the same key, the same pixels from the same files."""
        return digest(self.model_dump(mode="json", include={"version", "spacing", "crop", "normalise"}))

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON can write it."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, data: Any, where: str | Path = "plan") -> Self:
        """The plan that :meth:`to_json` wrote; raises :class:`UserError` that names ``where`` and the wrong key."""
        if not isinstance(data, dict):
            raise UserError(f"{where}: must be a JSON object with the keys {', '.join(cls.model_fields)}")
        with _one_sentence(where):
            return cls(**data)

    def save(self, path: str | Path) -> None:
        """Write the plan as readable JSON."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a plan, perhaps edited by hand; raises :class:`UserError` that names the file and the wrong key."""
        if not Path(path).is_file():
            raise UserError(f"{path}: no such plan")
        return cls.from_json(read_json(path), path)


def make_plan(
    fingerprint: Fingerprint,
    *,
    dims: Literal[2, 3] | None = None,
    overrides: Mapping[str, Any] | None = None,
    memory: float = MEMORY,
) -> SegmentationPlan:
    """The plan that fits the training data, by the rules of nnU-Net (Isensee et al. 2021), adapted to CPUs.

    * ``dims``: 2 where the cases are single slices, else 3.
    * ``spacing``: the median; the 10th percentile through thick slices (:func:`~.geometry.target_spacing`). None for
      PNG, JPEG and alike, which have no geometry. Cases within 1 % of it are not resampled.
    * ``crop`` and ``normalise``: where the background was removed (skull-stripped), cropped to what is left, and
      z-scored over it; else z-scored over all voxels; images of 8 bits as networks for photographs see them.
    * ``patch``: at most the median prepared shape, and at most half (3-D) or a quarter (2-D) of the voxels that a step
      of ``memory`` GiB allows with 32 features at full resolution: 2^20 for the default 4 GiB, so patches of 80³ or
      512², which take a CPU seconds; nnU-Net fills a GPU instead. As near to a cube in mm as the shape allows; a
      multiple of the strides (2-D: of 32, for timm's encoders).
    * ``strides``: axes are halved while maps stay 4 wide, thick slices later (:func:`~.geometry.halvings`).
    * ``features``: from 32 where a patch covers the median case or ``dims`` is 2, else from 16; doubled at each level
      up to 320 (512 in 2-D).
    * ``batch``: what the memory allows, 2 to 8 patches in 3-D and 4 to 16 in 2-D.
    * ``foreground``: a third.

    ``overrides`` are fields of the plan that the user has chosen; the others are made to fit them where they can.
    Raises :class:`UserError` where they are not valid or do not fit together.
    """
    given = dict(overrides or {})
    if dims is not None and given.setdefault("dims", dims) != dims:
        raise UserError(f"plan: dims is {given['dims']}, and the network is for {dims}-D; leave one of them out")
    if isinstance(given.get("normalise"), str):
        given["normalise"] = [given["normalise"]] * len(fingerprint.channels)
    defaults = _from_data(fingerprint)
    voxels = memory * 2**30 / _STEP_BYTES
    with _one_sentence("plan"):
        checked = _Fields(
            **{**defaults, **_sizes(fingerprint, _Fields(**defaults, **_ANY_SIZE), set(), voxels), **given}
        )
    if len(checked.normalise) != len(fingerprint.channels):
        raise UserError(
            f"plan: normalise has {len(checked.normalise)} entries, and the images have {len(fingerprint.channels)} "
            f"channels ({', '.join(fingerprint.channels)}); give one for each, or a single name for all"
        )
    sizes = _sizes(fingerprint, checked, set(given), voxels)
    return SegmentationPlan.from_json({**checked.model_dump(), **sizes})


_ANY_SIZE: dict[str, Any] = {"patch": (1, 1, 1), "batch": 1, "features": (1,), "strides": ()}


def _from_data(fingerprint: Fingerprint) -> dict[str, Any]:
    """The fields that say how cases are prepared."""
    spacing = target_spacing(fingerprint.spacing.median, fingerprint.spacing.tenth, fingerprint.extent.median)
    score = "zscore_nonzero" if fingerprint.background_removed else "zscore"
    return {
        "dims": 2 if fingerprint.shape.median[2] <= 1 else 3,
        "spacing": None if fingerprint.uint8 else spacing,
        "crop": "nonzero" if fingerprint.background_removed else "none",
        "normalise": ("uint8" if fingerprint.uint8 else score,) * len(fingerprint.channels),
        "class_frequencies": fingerprint.class_frequencies,
    }


def _sizes(fingerprint: Fingerprint, plan: _Fields, given: set[str], voxels: float) -> dict[str, Any]:
    """Patch, strides, features and batch for a step of ``voxels``; those ``given`` by the user stay as in ``plan``."""
    spacing = plan.spacing or fingerprint.spacing.median
    shape = [max(1, round(length / size)) for length, size in zip(fingerprint.extent.median, spacing, strict=True)]
    limit, batches = (voxels / 2, (2, 8)) if plan.dims == 3 else (voxels / 4, (4, 16))
    if plan.dims == 2:
        shape[2] = 1
    patch = plan.patch if "patch" in given else largest_patch(shape, spacing, limit)
    strides = plan.strides
    if "strides" not in given:
        strides = halvings(patch, spacing, even="patch" in given)
        strides = strides[: len(plan.features) - 1] if "features" in given else strides
    if "patch" not in given:
        x, y, z = divisor(strides)
        multiple = (x, y, z) if plan.dims == 3 else (math.lcm(x, _ENCODER), math.lcm(y, _ENCODER), z)
        patch = divisible(patch, shape, multiple, limit)
    whole = all(length >= size for length, size in zip(patch, shape, strict=True))
    first, most = (32, 512) if plan.dims == 2 else (32 if whole else 16, 320)
    features = [min(first * 2**level, most) for level in range(len(strides) + 1)]
    batch = min(max(int(voxels // math.prod(patch)), batches[0]), batches[1])
    found = {"patch": patch, "strides": strides, "features": features, "batch": batch}
    return {key: value for key, value in found.items() if key not in given}


@contextmanager
def _one_sentence(where: str | Path) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise first_error(error, str(where)) from error
