"""From what a user types to the scans that are meant, each with a file for every channel of a model."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.data.readers import SUFFIXES, has_dicom_mark, suffix
from mrtransfer.data.readers.location import Location, is_phantom
from mrtransfer.data.volume.case import COLOURS
from mrtransfer.deploy.locate import PATTERN

ALIASES = {"t2f": "flair", "t1n": "t1", "t1c": "t1ce", "t2w": "t2"}
"""Names of contrasts in BraTS since 2023, and what they were called before."""
NOT_SCANS = ("mask", "seg")
"""A file in a folder whose name ends so is a mask, not a scan."""
_NAMED = re.compile(r"([^=,#/\\:]+)=")
_BEFORE_NAMED = re.compile(r",(?=\s*[^=,#/\\:]+=)")
_SEPARATORS = "_-. "


@dataclass(frozen=True)
class Scan:
    """One case to be segmented: its ``name``, and a location for each channel (or one colour picture for all)."""

    name: str
    locations: tuple[str, ...]


@dataclass(frozen=True)
class _Piece:
    """A file or DICOM folder that may be a channel of a scan; ``named``: the user typed it, it was not just found."""

    path: Path
    named: bool

    @property
    def stem(self) -> str:
        return _stem(self.path)


def find_scans(names: Iterable[str | Path], channels: Sequence[str]) -> list[Scan]:
    """All scans that ``names`` mean to a model of these ``channels``, each once, in the order given.

    For a model of one channel (or of colour pictures) a name is a file, a folder with one DICOM series, a folder of
    scans, or a pattern (``scans/*.nii.gz``). For several channels it is ``flair=a.nii.gz,t1ce=b.nii.gz``, or a folder
    or files whose names end in the channels' (``case7_flair.nii.gz``; BraTS' newer names ``t2f``, ``t1n``, ``t1c`` and
    ``t2w`` are known); files that share the rest of their name in one folder are a scan. A channel may be a folder with
    a DICOM series. Of a folder, a model of one channel is given the files whose names end in that channel's, or else
    all but those that end in ``_mask`` or ``_seg``. Two scans of one name get their
    folder's name in front. Raises :class:`UserError` that names the channel that is missing, or what leads to no scan.
    """
    channels = tuple(channels)
    found: list[Scan | _Piece] = []
    for name in names:
        found += _expanded(str(name), channels)
    if not found:
        raise UserError("no scans given; name files or folders")
    pieces = list(dict.fromkeys(item for item in found if isinstance(item, _Piece)))
    scans = [item for item in found if isinstance(item, Scan)]
    scans += _grouped(pieces, channels) if _has_several_files(channels) else map(_alone, pieces)
    for location in (location for scan in scans for location in scan.locations):
        if not is_phantom(location) and not Path(Location.parse(location).path).exists():
            raise UserError(f"{Location.parse(location).path}: no such file or folder")
    return with_own_names(list({scan.locations: scan for scan in scans}.values()))


def _has_several_files(channels: tuple[str, ...]) -> bool:
    return len(channels) > 1 and channels != COLOURS


def _expanded(name: str, channels: tuple[str, ...]) -> list[Scan | _Piece]:
    if _NAMED.match(name) and not Path(name).exists():
        return [_by_channel(name, channels)]
    if is_phantom(name) or Location.parse(name).options:
        if _has_several_files(channels):
            raise UserError(f"{name}: {_needs(channels)}; name its file for each of them: {_example(channels)}")
        return [Scan(_stem(Path(Location.parse(name).path)), (name,))]
    if not Path(name).exists() and any(sign in name for sign in PATTERN):
        matched = sorted(glob(name, recursive=True))
        if not matched:
            raise UserError(f"{name}: no file matches this pattern")
        return [piece for match in matched for piece in _pieces(Path(match), channels)]
    return list(_pieces(Path(name), channels))


def _by_channel(name: str, channels: tuple[str, ...]) -> Scan:
    """``flair=a.nii.gz,t1ce=b.nii.gz``."""
    given: dict[str, str] = {}
    for part in _BEFORE_NAMED.split(name):
        channel, _, location = part.partition("=")
        channel, location = channel.strip(), location.strip()
        if channel not in channels:
            raise UserError(f"{name}: {unknown_name('channel', channel, channels)}")
        if channel in given or not location:
            raise UserError(f"{name}: give each channel once, with its file: {_example(channels)}")
        given[channel] = location
    missing = [channel for channel in channels if channel not in given]
    if missing:
        raise UserError(f"{name}: {', '.join(missing)} is missing; {_needs(channels)}")
    stems = [_stem(Path(Location.parse(location).path)) for location in given.values()]
    shared = _shared_start(stems)
    return Scan(shared or stems[0], tuple(given[channel] for channel in channels))


def _pieces(path: Path, channels: tuple[str, ...]) -> Iterator[_Piece]:
    """``path`` itself, or what lies below it and can be a scan or a channel of one."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if not path.is_dir() or _is_series(path):
        yield _Piece(path, named=True)
        return
    below = list(dict.fromkeys(_below(path)))
    fitting = [piece for piece in below if _channel_of(piece.stem, channels)[1] is not None]
    several = _has_several_files(channels)
    if not fitting and not several:
        fitting = [piece for piece in below if not piece.stem.lower().endswith(NOT_SCANS)]
    if not fitting:
        ends = f", and no file below it whose name ends in {' or '.join(channels)}" if several else ""
        named = f"; files of other names are given as {_example(channels)}" if several else ""
        raise UserError(f"{path}: holds no scan{ends}; {_needs(channels)}{named}")
    yield from fitting


def _below(folder: Path) -> Iterator[_Piece]:
    """Files of known kinds and DICOM folders, at any depth."""
    for child in sorted(folder.iterdir()):
        if child.name.startswith("."):
            continue
        if child.is_dir():
            yield from [_Piece(child, named=False)] if _is_series(child) else _below(child)
        elif suffix(child) in SUFFIXES:
            yield _Piece(child, named=False)


def _is_series(path: Path) -> bool:
    """Whether DICOM files lie in this folder."""
    if not path.is_dir():
        return False
    files = (child for child in sorted(path.iterdir()) if child.is_file() and not child.name.startswith("."))
    return any(SUFFIXES.get(suffix(file)) == "dicom" or has_dicom_mark(file) for file in files)


def _channel_of(stem: str, channels: tuple[str, ...]) -> tuple[str, str | None]:
    """(what is before the channel's name, the channel) of a file's name; None where it ends in no channel."""
    known = {channel.lower(): channel for channel in channels}
    known |= {alias: name for alias, name in ALIASES.items() if name in channels and alias not in known}
    for ending in sorted(known, key=len, reverse=True):
        if stem.lower() == ending:
            return "", known[ending]
        start = stem[: -len(ending)]
        if stem.lower().endswith(ending) and start[-1] in _SEPARATORS:
            return start.rstrip(_SEPARATORS), known[ending]
    return stem, None


def _alone(piece: _Piece) -> Scan:
    return Scan(piece.stem, (str(piece.path),))


def _grouped(pieces: list[_Piece], channels: tuple[str, ...]) -> list[Scan]:
    """Scans of the pieces that share a folder and a name but for the channel."""
    groups: dict[tuple[Path, str], dict[str, Path]] = {}
    for piece in pieces:
        start, channel = _channel_of(piece.stem, channels)
        if channel is None:
            raise UserError(
                f"{piece.path}: {_needs(channels)}, and this name ends in none of them; say which file is which: "
                f"{_example(channels)}"
            )
        parts = groups.setdefault((piece.path.parent, start), {})
        if channel in parts:
            raise UserError(f"{piece.path}: is {channel}, and so is {parts[channel]}; leave one of them out")
        parts[channel] = piece.path
    scans = []
    for (folder, start), parts in groups.items():
        name = start or folder.resolve().name
        missing = [channel for channel in channels if channel not in parts]
        if missing:
            raise UserError(
                f"{folder / name if start else folder}: has no file for {', '.join(missing)}; {_needs(channels)}"
            )
        scans.append(Scan(name, tuple(str(parts[channel]) for channel in channels)))
    return scans


def _needs(channels: tuple[str, ...]) -> str:
    several = _has_several_files(channels)
    return f"the model needs {', '.join(channels)}" if several else "the model needs one image per scan"


def _example(channels: tuple[str, ...]) -> str:
    return ",".join(f"{channel}=FILE" for channel in channels)


def _shared_start(stems: Sequence[str]) -> str:
    """What all names start with, up to a separator."""
    length = 0
    while all(len(stem) > length and stem[length] == stems[0][length] for stem in stems):
        length += 1
    if all(len(stem) == length for stem in stems):
        return stems[0]
    return stems[0][: max((stems[0].rfind(sign, 0, length) for sign in _SEPARATORS), default=-1) + 1].rstrip(
        _SEPARATORS
    )


def with_own_names(scans: list[Scan]) -> list[Scan]:
    """The scans with names that can be files' names and are all different."""
    scans = [replace(scan, name=re.sub(r"[^\w. -]+", "_", scan.name).strip(_SEPARATORS) or "scan") for scan in scans]
    names = [scan.name for scan in scans]
    taken: set[str] = set()
    for index, scan in enumerate(scans):
        name = scan.name
        if names.count(name) > 1:
            name = f"{Path(Location.parse(scan.locations[0]).path).absolute().parent.name}_{name}"
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        taken.add(free)
        scans[index] = replace(scan, name=free)
    return scans


def _stem(path: Path) -> str:
    """A file's name without its suffix, of which ``.nii.gz`` is one; a folder's whole name."""
    if path.is_dir() or suffix(path) not in SUFFIXES:
        return path.resolve().name
    return path.name[: -len(suffix(path))]
