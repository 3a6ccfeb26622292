"""What a network sees."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, cast

import numpy as np
from pydantic import Field, field_validator

from mrtransfer.augment.prepare import resolve_normalise
from mrtransfer.common.errors import UserError
from mrtransfer.common.files import digest
from mrtransfer.data.pixels import WINDOW
from mrtransfer.models.features import feature_matrix
from mrtransfer.models.network import Backbone, build_network
from mrtransfer.models.weights import WeightsSpec, apply_weights, parse_weights
from mrtransfer.shift.feature import Family, Feature
from mrtransfer.shift.features import FEATURES
from mrtransfer.shift.slices import Slices

_OWN = "own"
_COLOURS = 3
_FORMAT = 1  # raise it when the same slices would be windowed otherwise


@FEATURES.register("network")
class Network(Feature):
    """Features of any network, whole or cut ``until`` a stage, with any weights, averaged over the picture.

    Each channel of a slice is windowed to its own 0.5th to 99.5th percentile, as images are for a study. Grey slices
    are seen in three equal channels, slices of three channels as colours; of any other number each channel is seen by
    itself, and the features stand side by side. ``normalise``: by default what the network's published weights expect.

    Moved by content and texture, the more by content the deeper the cut and the better the weights fit; by contrast
    too, and by noise and resolution, mostly after early stages. Not moved by any scale of intensities, but by a gamma
    curve.
    """

    name: ClassVar[str] = "network"
    words: ClassVar[str] = "features of a network"
    family: ClassVar[Family] = "content"

    network: str = "resnet18"
    weights: WeightsSpec = WeightsSpec(kind="imagenet")
    until: str | None = None
    normalise: str | dict[str, Any] = _OWN
    seed: int = Field(0, ge=0)
    """For weights, or parts of them, that are drawn at random."""

    @field_validator("weights", mode="before")
    @classmethod
    def _written_in_any_way(cls, value: Any) -> WeightsSpec:
        return parse_weights(value)

    @field_validator("normalise")
    @classmethod
    def _known(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        if value != _OWN:
            resolve_normalise(value)
        return value

    def learn(self, *domains: Slices) -> dict[str, Any]:
        """``weights``: the digest of all values, so that a file that has changed since is noticed."""
        return {"weights": self._loaded()[1]}

    def table(self, slices: Slices, learned: Mapping[str, Any]) -> np.ndarray:
        """(N, features of the network), or (N, C · features) where channels are seen one by one."""
        network, found = self._loaded()
        if found != learned["weights"]:
            raise UserError(
                f"feature network: the weights of {self.network} are no longer those that the feature was fitted with; "
                "give the same file again, or fit anew"
            )
        count = slices.images.shape[1]
        together = [list(range(count))] if count in (1, _COLOURS) else [[channel] for channel in range(count)]
        with _cache(slices) as cache:
            parts = [self._part(network, _Windowed(slices, channels), cache) for channels in together]
        return np.concatenate(parts, axis=1)

    def _part(self, network: Backbone, pixels: "_Windowed", cache: Path) -> np.ndarray:
        normalise = network.normalise if self.normalise == _OWN else self.normalise
        return np.array(feature_matrix(network, pixels, normalise=normalise, cache=cache)[0])

    def _loaded(self) -> tuple[Backbone, str]:
        network = build_network(self.network, in_channels=_COLOURS, until=self.until, seed=self.seed)
        report = apply_weights(network, self.weights, seed=self.seed)
        return network, report.digest


@contextmanager
def _cache(slices: Slices) -> Iterator[Path]:
    """Where features are kept: beside the slices, or for now only."""
    if slices.directory is not None:
        yield slices.directory / "features"
        return
    with TemporaryDirectory() as folder:
        yield Path(folder)


@dataclass(frozen=True)
class _Windowed:
    """Some channels of slices, as :func:`feature_matrix` reads a store: batch by batch, windowed when they are read."""

    slices: Slices
    channels: list[int]

    @property
    def images(self) -> np.ndarray:
        return cast(np.ndarray, self)  # of an array only the shape and batches of rows are asked for

    @property
    def shape(self) -> tuple[int, ...]:
        count, _, height, width = self.slices.images.shape
        return (count, len(self.channels), height, width)

    @property
    def content(self) -> str:
        return digest([_FORMAT, self.slices.content, self.channels, list(WINDOW)])

    def __getitem__(self, rows: slice) -> np.ndarray:
        """float32 (n, C, H, W) in 0..1."""
        images = np.asarray(self.slices.images[rows][:, self.channels], np.float32)
        low, high = np.percentile(images, WINDOW, axis=(2, 3), keepdims=True).astype(np.float32)
        lowest, highest = images.min(axis=(2, 3), keepdims=True), images.max(axis=(2, 3), keepdims=True)
        flat = high <= low  # almost constant: the window would divide by nothing
        low, high = np.where(flat, lowest, low), np.where(flat, highest, high)
        return np.clip((images - low) / np.where(high > low, high - low, 1), 0, 1)
