"""Rendering: from a location such as ``phantom:seed=0&subject=3&lesion=glioma&z=12.5&contrast=t1ce`` to its pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.data.phantom.acquisition import SCANNERS, acquire, export
from mrtransfer.data.phantom.anatomy import Labels, normal_labels
from mrtransfer.data.phantom.contrast import AFTER_AGENT, CONTRASTS
from mrtransfer.data.phantom.grid import FIELD_OF_VIEW, Floats, Grid
from mrtransfer.data.phantom.head import head, place
from mrtransfer.data.phantom.randomness import Stream, generator
from mrtransfer.data.phantom.tissues import CORE, GRAIN, N_TISSUES, WHOLE, relaxation
from mrtransfer.data.phantom.tumours import CLASSES, incidental, lesion, paint, pushed

SCHEME = "phantom:"
REGIONS = MappingProxyType(
    {
        "whole": np.isin(np.arange(N_TISSUES), WHOLE),
        "core": np.isin(np.arange(N_TISSUES), CORE),
    }
)
_GRAIN = GRAIN.astype(np.float32)
_LEAST_POINTS = 128  # across the field of view, so that the cortex is not aliased


@dataclass(frozen=True)
class Scan:
    """What defines one slice of the phantom."""

    seed: int = 0
    subject: int = 0
    lesion: str = "no_tumour"
    z: float = 15.0  # mm
    contrast: str = "t1ce"
    scanner: str = "a"
    size: int = 128

    def __post_init__(self) -> None:
        """Refuse what no phantom has."""
        for kind, name, known in (
            ("lesion", self.lesion, CLASSES),
            ("contrast", self.contrast, CONTRASTS),
            ("scanner", self.scanner, SCANNERS),
        ):
            if name not in known:
                raise UserError(f"phantom: {unknown_name(kind, name, known)}")
        if not 16 <= self.size <= 1024:
            raise UserError(f"phantom: size is {self.size}; it must be between 16 and 1024 pixels")
        if not abs(self.z) <= 150:
            raise UserError(f"phantom: z is {self.z}; it must be a finite height between -150 and 150 mm")
        if self.seed < 0 or self.subject < 0:
            raise UserError(f"phantom: seed {self.seed}, subject {self.subject}; both must be 0 or more")

    @property
    def location(self) -> str:
        """The location that :func:`parse` reads back."""
        return SCHEME + "&".join(f"{key}={value}" for key, value in asdict(self).items())

    @property
    def grid(self) -> Grid:
        """Where the slice's pixels lie."""
        return Grid.axial(self.z, self.size)


def spacing(size: int) -> float:
    """Size of a pixel in mm."""
    return FIELD_OF_VIEW / size


def parse(location: str) -> Scan:
    """The slice that a location names; whatever it leaves out has :class:`Scan`'s default."""
    scan, _ = _split(location)
    return scan


def render(location: str) -> NDArray[np.uint8]:
    """The image (H, W) at ``location``, the same bytes every time."""
    return render_scan(parse(location))


def render_many(locations: Sequence[str]) -> NDArray[np.uint8]:
    """Images (n, H, W) of one size. Slices of a subject are quickest in a row: its anatomy is drawn once."""
    images = [render(location) for location in locations]
    if len({image.shape for image in images}) > 1:
        raise UserError("phantom: locations of different sizes cannot be rendered into one array; use one size")
    return np.stack(images)


def render_labels(location: str) -> Labels:
    """The tissue labels (H, W) at ``location``; see :class:`~mrtransfer.data.phantom.tissues.Tissue`."""
    scan = parse(location)
    return label_grid(scan.seed, scan.subject, scan.lesion, scan.grid)[0][0]


def render_mask(location: str) -> NDArray[np.bool_]:
    """Where the tumour is (H, W); ``region=core`` in the location leaves out the oedema around it."""
    scan, region = _split(location)
    return mask_of(scan, region)


def render_scan(scan: Scan) -> NDArray[np.uint8]:
    """:func:`render` for a slice that is already taken apart."""
    labels, grain = _anatomy(scan)
    signal = signal_table(scan.seed, (scan.subject,), scan.contrast, scan.scanner)[labels]
    signal *= 1 + _GRAIN[labels] * grain
    signal = _blocks(signal, scan.size).mean(axis=(1, 3))
    scanner = SCANNERS[scan.scanner]
    # Noise differs between slices, contrasts and scanners; heights are told apart to a hundredth of a millimetre.
    height, contrast = round((scan.z + 1000) * 100), CONTRASTS.index(scan.contrast)
    machine = list(SCANNERS).index(scan.scanner)
    draw = generator(scan.seed, Stream.ACQUISITION, scan.subject, height, contrast, machine)
    return export(acquire(signal, spacing(scan.size), scanner, draw), scanner, draw)


def mask_of(scan: Scan, region: str = "whole") -> NDArray[np.bool_]:
    """:func:`render_mask` for a slice that is already taken apart."""
    inside = REGIONS[region][_anatomy(scan)[0]]
    return _blocks(inside, scan.size).mean(axis=(1, 3)) >= 0.5


def _anatomy(scan: Scan) -> tuple[Labels, Floats]:
    """Labels and grain as in :func:`label_grid`, of one slice, at no less than the anatomy's own resolution.

    Pixels of small images hold several points of the anatomy and show their mean: the partial volume effect.
    """
    points = scan.size * max(1, -(-_LEAST_POINTS // scan.size))
    return _slice(scan.seed, scan.subject, scan.lesion, scan.z, points)


def _blocks(points: NDArray, size: int) -> NDArray:
    """(size, k, size, k) view of a square array: the points of each pixel."""
    k = len(points) // size
    return points.reshape(size, k, size, k)


@lru_cache(maxsize=64)
def _slice(seed: int, subject: int, kind: str, z: float, size: int) -> tuple[Labels, Floats]:
    labels, grain = label_grid(seed, subject, kind, Grid.axial(z, size))
    labels.setflags(write=False)
    return labels[0], grain[0]


def label_grid(seed: int, subject: int, kind: str, grid: Grid) -> tuple[Labels, Floats]:
    """A subject on any grid, slice or volume: tissue labels, and the grain of unit variance by which the proton density
    differs within a tissue, each ``grid.shape``.
    """
    _, labels, grain = head_labels(seed, subject, kind, grid)
    return labels, grain


def head_labels(seed: int, subject: int, kind: str, grid: Grid) -> tuple[Labels, Labels, Floats]:
    """As :func:`label_grid`, and before them the labels without the tumour in what it has pushed aside."""
    body = head(seed, subject)
    at = place(body, grid)
    tumour = lesion(seed, subject, kind)
    healthy = normal_labels(body, grid, at if tumour is None else pushed(at, tumour))
    incidental(seed, subject, body, healthy, at)
    labels = healthy if tumour is None else paint(tumour, healthy, at, grid)
    return healthy, labels, body.folds.slope(grid)


@lru_cache(maxsize=256)
def signal_table(seed: int, person: tuple[int, ...], contrast: str, scanner: str) -> Floats:
    """Signal by tissue label, (tissues,); ``person`` says whose tissues they are."""
    machine = SCANNERS[scanner]
    draw = generator(seed, Stream.TISSUE, *person)
    tissue = relaxation(machine.field, agent=contrast in AFTER_AGENT, generator=draw)
    return machine.sequences[contrast].signal(tissue).astype(np.float32)


def _split(location: str) -> tuple[Scan, str]:
    options = dict(location_options(location))
    region = options.pop("region", "whole")
    if region not in REGIONS:
        raise UserError(f"{location}: {unknown_name('region', region, REGIONS)}")
    types = {field.name: field.type for field in fields(Scan)}
    values: dict[str, int | float | str] = {}
    for key, value in options.items():
        if key not in types:
            raise UserError(f"{location}: {unknown_name('key', key, [*types, 'region'])}")
        values[key] = _typed(location, key, value, types[key])
    return Scan(**values), region  # type: ignore[arg-type]


def location_options(location: str) -> Iterator[tuple[str, str]]:
    """What a phantom's location says, (key, value) each."""
    if not location.startswith(SCHEME):
        raise UserError(f"{location}: not a phantom; a phantom's location starts with {SCHEME!r}")
    for part in filter(None, location.removeprefix(SCHEME).split("&")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"{location}: {part!r} has no value; write {part}=…")
        yield key, value


def _typed(location: str, key: str, value: str, kind: object) -> int | float | str:
    try:
        return kind(value) if kind in (int, float) else value
    except ValueError as error:
        raise UserError(f"{location}: {key}={value} is not a number") from error
