"""What a harmoniser is: it makes scans look as if they came from the domain it was fitted on.

What is learned, is learned of the source (or the training rows) alone; scans of any domain are then brought to that.
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import ValidationError

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import digest
from mrtransfer.common.named import Named, parse_named
from mrtransfer.common.strict import Strict, first_error
from mrtransfer.data.harmonise import HARMONISERS


class NothingLearned(Strict):
    """What a harmoniser has learned that corrects every scan by itself."""


class Harmoniser(Named):
    """How scans are harmonised. A subclass in ``data/harmonise/`` adds the settings as fields."""

    words: ClassVar[str] = ""
    """Its name in a sentence."""
    learned_type: ClassVar[type[Strict]] = NothingLearned
    neighbours: ClassVar[bool] = False
    """Whether it matters where a pixel lies; if so, slices with gaps between them are not one image."""

    def fit(self, images: Iterable[np.ndarray]) -> "FittedHarmoniser":
        """Learn the reference from ``images``, each (C, *spatial) float32 with the same C; one is in memory at a time.

        Raises :class:`UserError` where an image holds NaN or has other channels than the first, and where a channel
        shows something in no image.
        """
        return FittedHarmoniser(self, self._learn(images))

    @abstractmethod
    def _learn(self, images: Iterable[np.ndarray]) -> Strict:
        """What is to be remembered of ``images``, of type :attr:`learned_type`; they need not be read at all."""

    @abstractmethod
    def _harmonised(self, image: np.ndarray, learned: Any) -> np.ndarray:
        """A new image of the shape of ``image`` (C, *spatial) float32, which is finite."""


@dataclass(frozen=True, eq=False)
class FittedHarmoniser:
    """A harmoniser and what it has learned. Call it on an image; JSON, so that it travels with a model."""

    harmoniser: Harmoniser
    learned: Strict

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """``image`` (C, *spatial), harmonised: a new float32 array of the same shape.

        A channel that shows nothing (background only, or one value throughout) comes back unchanged. Raises
        :class:`UserError` where ``image`` holds NaN or infinite values, or has other channels than the reference.
        """
        return self.harmoniser._harmonised(checked(image), self.learned)

    def stack(self, slices: np.ndarray) -> np.ndarray:
        """Slices (n, C, H, W) of one scan, harmonised together: intensities are changed as in one image.

        Slice by slice where :attr:`Harmoniser.neighbours` matter, as slices may be far apart.
        """
        if self.harmoniser.neighbours:
            return np.stack([self(image) for image in slices])
        return np.ascontiguousarray(self(slices.swapaxes(0, 1)).swapaxes(0, 1))

    def to_json(self) -> dict[str, Any]:
        """Name, settings and what was learned, as JSON can write it without loss."""
        return {"harmoniser": self.harmoniser.model_dump(mode="json"), "learned": self.learned.model_dump(mode="json")}

    @classmethod
    def from_json(cls, data: Any, where: str = "harmoniser") -> "FittedHarmoniser":
        """What :meth:`to_json` wrote; raises :class:`UserError` that names ``where`` and the wrong key."""
        if not isinstance(data, dict) or set(data) != {"harmoniser", "learned"}:
            raise UserError(f"{where}: must be a JSON object with the keys harmoniser, learned")
        harmoniser = parse_harmoniser(data["harmoniser"], where)
        try:
            return cls(harmoniser, harmoniser.learned_type.model_validate(data["learned"]))
        except ValidationError as error:
            raise first_error(error, f"{where}: learned") from error

    @property
    def key(self) -> str:
        """Digest of settings and reference: the same key, the same change of the same image."""
        return digest(self.to_json())


def checked(image: np.ndarray) -> np.ndarray:
    """``image`` (C, *spatial) as float32; raises :class:`UserError` where it is none, or not finite."""
    image = np.asarray(image, dtype=np.float32)
    if image.ndim < 2 or not image.size:
        raise UserError(f"has the shape {image.shape}; an image is channels × its axes, none of them empty")
    wrong = image.size - np.count_nonzero(np.isfinite(image))
    if wrong:
        raise UserError(
            f"{wrong:,} of its {image.size:,} values are NaN or infinite, which cannot be harmonised; "
            "replace them, for example by 0"
        )
    return image


def parse_harmoniser(value: Any, where: str = "harmonise") -> Harmoniser:
    """A harmoniser from a recipe: see :func:`~mrtransfer.common.named.parse_named`."""
    found: Harmoniser = parse_named(value, HARMONISERS, where)
    return found
