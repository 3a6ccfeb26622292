"""What is compared between two domains, and how surely: for the command ``shift``, and a recipe's block ``shift:``."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, field_validator

from mrtransfer.common.errors import UserError
from mrtransfer.common.strict import Strict
from mrtransfer.data.harmoniser import Harmoniser, parse_harmoniser
from mrtransfer.shift.distance import Distance, parse_distance
from mrtransfer.shift.feature import Feature, parse_feature

FEATURES = ("pixels", "histogram", "radiomics", "spectrum")
DISTANCES = ("mmd", "frechet", "proxy_a", "coral", "sliced_wasserstein")
PRIMARY = "mmd"
"""The distance that the verdict rests on, said before anything is computed."""


class ShiftSettings(Strict):
    """How two domains are compared. Features, distances and harmonisers are names, or mappings with settings."""

    features: tuple[Feature, ...] = Field(tuple(FEATURES), validate_default=True, min_length=1)
    """What is seen of a slice. The first of each family (intensity, content, scanner) decides about that family."""
    distances: tuple[Distance, ...] = Field(tuple(DISTANCES), validate_default=True, min_length=1)
    """``mmd``, or where it is not there the first, decides; the others are there to be read."""
    harmonise: tuple[Harmoniser, ...] = ()
    """Preprocessings that are tried: how far apart the domains still are afterwards."""
    maps: tuple[Literal["pca", "tsne", "umap"], ...] = ("pca", "tsne", "umap")
    """UMAP is left out, and the results say so, where umap-learn is not installed."""
    permutations: int = Field(1000, ge=1)
    resamples: int = Field(1000, ge=0)
    slices: int = Field(8, ge=1)
    """Of each volume."""
    size: int = Field(128, ge=16)
    """Pixels of a side."""
    seed: int = Field(0, ge=0)

    @property
    def primary(self) -> Distance:
        """The one distance whose p-values decide."""
        return next((distance for distance in self.distances if distance.name == PRIMARY), self.distances[0])

    @property
    def deciding(self) -> dict[str, Feature]:
        """Family to the one feature that decides about it: the first of the family."""
        found: dict[str, Feature] = {}
        for feature in self.features:
            found.setdefault(feature.family, feature)
        return found

    @field_validator("features", mode="before")
    @classmethod
    def _features(cls, value: Any) -> Any:
        return _parsed(value, "features", parse_feature)

    @field_validator("distances", mode="before")
    @classmethod
    def _distances(cls, value: Any) -> Any:
        return _parsed(value, "distances", parse_distance)

    @field_validator("harmonise", mode="before")
    @classmethod
    def _harmonise(cls, value: Any) -> Any:
        return _parsed(value, "harmonise", parse_harmoniser)

    @field_validator("maps", mode="before")
    @classmethod
    def _one_or_more_maps(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("maps")
    @classmethod
    def _each_map_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))


def _parsed(value: Any, where: str, parse: Callable[[Any, str], Any]) -> Any:
    """One entry or several, each parsed; the same entry twice is refused, as it would count as two tests."""
    entries = list(value) if isinstance(value, list | tuple) else [value]
    try:
        parsed = tuple(parse(entry, where) for entry in entries)
    except UserError as error:
        # the name of the field stands before the sentence already
        raise ValueError(str(error).removeprefix(f"{where}: ").removeprefix(f"{where} ")) from error
    for place, entry in enumerate(parsed):
        if entry in parsed[:place]:
            raise ValueError(f"{entry.name} is there twice; give each once, or with other settings")
    return parsed
