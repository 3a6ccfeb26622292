"""The fingerprint: what the training cases look like, from which their plan is made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import read_json, write_json
from mrtransfer.common.strict import Strict
from mrtransfer.data.cases.normalise import foreground
from mrtransfer.data.cases.reading import each_case, labels_of, meaning, pixel_sizes
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.readers import SUFFIXES, suffix
from mrtransfer.data.readers.location import Location, is_phantom
from mrtransfer.data.stored import Sources, file_name
from mrtransfer.data.volume import Case, make_frame, nonzero_crop

FORMAT = 1  # raise it when the same files would give other facts
_EMPTY = 0.25  # share of voxels of one value from which a background counts as removed
_SAMPLED = 200_000  # voxels of a channel, evenly spaced, from which its percentiles are taken

Triple = tuple[float, float, float]


class Spread(Strict):
    """How a quantity with a value per canonical axis (right, anterior, superior) varies between cases."""

    least: Triple
    tenth: Triple
    """10th percentile."""
    median: Triple
    ninetieth: Triple
    most: Triple

    @classmethod
    def of(cls, values: Sequence[Sequence[float]]) -> Self:
        """The spread of ``values`` (n, 3), each axis by itself."""
        found = np.percentile(np.asarray(values, dtype=np.float64), [0, 10, 50, 90, 100], axis=0)
        rows: list[Triple] = [(float(x), float(y), float(z)) for x, y, z in found]
        return cls(least=rows[0], tenth=rows[1], median=rows[2], ninetieth=rows[3], most=rows[4])


class Intensities(Strict):
    """Of one channel: medians over the cases; of what is not background where that was removed."""

    mean: float
    deviation: float
    low: float
    """0.5th percentile."""
    median: float
    high: float
    """99.5th percentile."""


class Fingerprint(Strict):
    """What a set of cases looks like; made from training cases only."""

    version: Literal[1] = 1
    cases: int
    labelled: int
    """Cases with a mask."""
    channels: tuple[str, ...]
    shape: Spread
    """Voxels of whole scans."""
    spacing: Spread
    """mm."""
    extent: Spread
    """mm, of the box outside of which there is only background where that was removed, or else of the whole scan."""
    background_share: float
    """Median share of voxels that are background: in all channels exactly the value of the corners, or 0."""
    background_removed: bool
    """In more than half of the cases all corners, and at least a quarter of all voxels, are background."""
    uint8: bool
    """All images are PNG, JPEG or alike, of whole numbers up to 255."""
    intensities: dict[str, Intensities]
    """By channel."""
    class_voxels: dict[str, int]
    class_cases: dict[str, int]
    """In how many cases a class occurs."""

    @property
    def class_frequencies(self) -> dict[str, float]:
        """Share of the voxels of all masks; empty where there is no mask."""
        total = sum(self.class_voxels.values())
        return {name: count / total for name, count in self.class_voxels.items()} if total else {}

    def to_json(self) -> dict[str, Any]:
        """The fingerprint as JSON can write it."""
        return self.model_dump(mode="json")


def fingerprint(manifest: Manifest, rows: np.ndarray, *, cache: str | Path | None = None) -> Fingerprint:
    """What the cases at ``rows`` look like; nothing else of ``manifest`` is read.

    ``cache`` is a folder in which what was found in each case is kept, so that folds that share cases read each of them
    once; a case whose files have changed since is read again. Raises one :class:`UserError` that names all cases that
    cannot be read.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if not len(rows):
        raise UserError(f"{manifest.name}: there are no training cases, from which a plan could be made")
    file = None if cache is None else Path(cache) / f"{file_name(manifest.name)}-cases.json"
    kept = _kept(file)
    keys = _keys(manifest, rows)
    missing = [int(row) for row in rows if keys[int(row)] not in kept]
    found = each_case(manifest, missing, lambda row, case: (row, _facts(manifest, row, case)), "looking at")
    fresh = {keys[row]: facts for row, facts in found}
    if file is not None and fresh:
        write_json(file, {**_kept(file), **fresh})
    kept |= fresh
    return _summary(manifest, [kept[keys[int(row)]] for row in rows])


def _kept(file: Path | None) -> dict[str, Any]:
    """Facts of cases by what names them; none where the file is absent or damaged."""
    if file is None or not file.is_file():
        return {}
    try:
        kept = read_json(file)
    except UserError:
        return {}
    return kept if isinstance(kept, dict) else {}


def _keys(manifest: Manifest, rows: np.ndarray) -> dict[int, str]:
    """Row to what names its files' state."""
    labels, pixels = meaning(manifest), pixel_sizes(manifest)
    whole = Sources.of(manifest, {}, masks=True)
    keys = {}
    for row in map(int, rows):
        options = {"format": FORMAT, "labels": labels, "pixel": pixels[row]}
        keys[row] = Sources(whole.name, whole.root, [whole.locations[row]], options).fingerprint()
    return keys


def _facts(manifest: Manifest, row: int, case: Case) -> dict[str, Any]:
    """What one case contributes, as JSON can write it."""
    axes = list(make_frame(case.image.shape[1:], case.affine).axes)
    first, end = nonzero_crop(case.image, case.affine)
    inside = foreground(case.image)
    x, y, z = (max(size - 1, 1) for size in inside.shape)
    share = 1 - float(inside.mean())
    removed = not inside[::x, ::y, ::z].any() and share >= _EMPTY
    classes = len(labels_of(manifest).names)
    return {
        "channels": list(case.channels),
        "shape": [case.image.shape[1:][axis] for axis in axes],
        "crop": [high - low for low, high in zip(first, end, strict=True)],
        "spacing": [case.spacing[axis] for axis in axes],
        "background_share": share,
        "background_removed": removed,
        "uint8": _is_uint8(manifest, row, case.image),
        "intensities": [_intensities(channel[inside] if removed else channel.ravel()) for channel in case.image],
        "voxels": None if case.mask is None else [int(np.count_nonzero(case.mask == k)) for k in range(classes)],
    }


def _is_uint8(manifest: Manifest, row: int, image: np.ndarray) -> bool:
    for location in manifest.locations(row):
        if is_phantom(location) or SUFFIXES.get(suffix(Location.parse(location).path)) != "raster":
            return False
    return bool(image.min() >= 0 and image.max() <= 255 and (image == np.rint(image)).all())


def _intensities(values: np.ndarray) -> list[float]:
    """Mean, standard deviation and percentiles; all 0 where there is no value."""
    if not values.size:
        return [0.0] * 5
    low, median, high = np.percentile(values[:: max(1, values.size // _SAMPLED)], [0.5, 50, 99.5])
    return [float(v) for v in (values.mean(dtype=np.float64), values.std(dtype=np.float64), low, median, high)]


def _summary(manifest: Manifest, facts: list[dict[str, Any]]) -> Fingerprint:
    several = sorted({tuple(case["channels"]) for case in facts})
    if len(several) > 1:
        listed = " and ".join(", ".join(channels) for channels in several[:2])
        raise UserError(f"{manifest.name}: some cases have the channels {listed}; all cases must have the same")
    removed = 2 * sum(case["background_removed"] for case in facts) > len(facts)
    inside = [case["crop" if removed else "shape"] for case in facts]
    intensities = np.median([case["intensities"] for case in facts], axis=0)
    masks = np.array([case["voxels"] for case in facts if case["voxels"] is not None])
    names = labels_of(manifest).names if len(masks) else ()
    return Fingerprint(
        cases=len(facts),
        labelled=len(masks),
        channels=several[0],
        shape=Spread.of([case["shape"] for case in facts]),
        spacing=Spread.of([case["spacing"] for case in facts]),
        extent=Spread.of([np.multiply(size, case["spacing"]) for size, case in zip(inside, facts, strict=True)]),
        background_share=float(np.median([case["background_share"] for case in facts])),
        background_removed=removed,
        uint8=all(case["uint8"] for case in facts),
        intensities={
            name: Intensities(**dict(zip(Intensities.model_fields, map(float, row), strict=True)))
            for name, row in zip(several[0], intensities, strict=True)
        },
        class_voxels={name: int(masks[:, k].sum()) for k, name in enumerate(names)},
        class_cases={name: int((masks[:, k] > 0).sum()) for k, name in enumerate(names)},
    )
