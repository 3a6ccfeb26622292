"""What a feature is: from slices to a table of numbers, one row a slice, of which distances are taken."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.named import Named, parse_named
from mrtransfer.common.progress import progress
from mrtransfer.shift.features import FEATURES
from mrtransfer.shift.slices import Slices

__all__ = ["FEATURES", "Family", "Feature", "FittedFeature", "each_slice", "parse_feature"]

Family = Literal["intensity", "content", "scanner"]
"""What a feature is most sensitive to: the scale of intensities, what is shown, or how it was acquired."""


class Feature(Named):
    """How slices become rows of numbers. A subclass in ``shift/features/`` adds the settings as fields.

    It says in its docstring what moves it and what does not. Its rows depend on one slice each and on what was learned
    of all domains together, never on the other slices of a table: a new scan alone has the row that it has among
    others.
    """

    words: ClassVar[str] = ""  # "intensity histogram"
    family: ClassVar[Family] = "content"

    def fit(self, *domains: Slices) -> "FittedFeature":
        """Learn what is common to all ``domains`` (a histogram's range, a scale); no domain is treated unlike others.

        Raises :class:`UserError` where the domains have different numbers of channels.
        """
        counts = [domain.images.shape[1] for domain in domains]
        for domain, count in zip(domains, counts, strict=True):
            if count != counts[0]:
                raise _other_channels(domain, counts[0], domains[0].name)
        return FittedFeature(self, counts[0], self.learn(*domains))

    def learn(self, *domains: Slices) -> dict[str, Any]:
        """What :meth:`table` must know of all domains together, as JSON can write it."""
        return {}

    @abstractmethod
    def table(self, slices: Slices, learned: Mapping[str, Any]) -> np.ndarray:
        """(N, D) float32, finite; row i depends on slice i and ``learned`` alone."""


@dataclass(frozen=True)
class FittedFeature:
    """A feature with what it learned; it can be kept with a model and applied to new scans."""

    feature: Feature
    channels: int
    learned: dict[str, Any]

    def __call__(self, slices: Slices) -> np.ndarray:
        """The feature of each slice, float32 (N, D).

        Raises :class:`UserError` where ``slices`` have other channels, or a value of a feature is not finite.
        """
        if slices.images.shape[1] != self.channels:
            raise _other_channels(slices, self.channels, "what the feature was fitted to")
        table = self.feature.table(slices, self.learned)
        bad = ~np.isfinite(table).all(axis=1)
        if bad.any():
            sample = slices.samples[int(np.flatnonzero(bad)[0])]
            raise UserError(
                f"{slices.name}: sample {sample}: the feature {self.feature.name} is NaN or infinite; are all "
                "intensities finite and of a reasonable size?"
            )
        return table

    def to_json(self) -> dict[str, Any]:
        """All that is needed to compute the same numbers again, as JSON can write it."""
        return {"feature": self.feature.model_dump(mode="json"), "channels": self.channels, "learned": self.learned}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The feature that :meth:`to_json` wrote."""
        return cls(parse_feature(data["feature"], "feature"), int(data["channels"]), dict(data["learned"]))


def each_slice(slices: Slices, row: Callable[[np.ndarray, int], np.ndarray], title: str) -> np.ndarray:
    """``row(image (C, H, W), i)`` of every slice, as float32 (N, D)."""
    rows = []
    with progress(f"{title} of {slices.name}", len(slices)) as advance:
        for index, image in _images(slices):
            rows.append(np.asarray(row(image, index), np.float64).astype(np.float32))
            advance(1)
    return np.stack(rows)


def _images(slices: Slices) -> Iterator[tuple[int, np.ndarray]]:
    for index in range(len(slices)):
        yield index, np.asarray(slices.images[index], np.float32)


def _other_channels(slices: Slices, wanted: int, of: str) -> UserError:
    return UserError(
        f"{slices.name}: its images have {slices.images.shape[1]} channels ({', '.join(slices.channels)}), and {of} "
        f"has {wanted}; choose as many channels of each domain"
    )


def parse_feature(value: Any, where: str = "features") -> Feature:
    """A feature from a recipe or the command line: see :func:`~mrtransfer.common.named.parse_named`."""
    found: Feature = parse_named(value, FEATURES, where, alias="feature")
    return found
