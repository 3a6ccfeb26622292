"""From what a user types to the files of k-space that are meant."""

from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace.bart import both_files
from mrtransfer.data.kspace.ismrmrd_raw import COUNTERS
from mrtransfer.data.kspace.open import BART, SUFFIXES
from mrtransfer.data.readers.location import Location, is_phantom
from mrtransfer.deploy.locate import PATTERN
from mrtransfer.deploy.scans import Scan, with_own_names

OWN = "_reconstruction"
"""How the names of files end that reconstruction itself has written; in a folder they are not looked at."""


def find_kspace(names: Iterable[str | Path]) -> list[Scan]:
    """All files of k-space that ``names`` mean, each once, in the order given.

    A folder stands for all files of k-space below it, a pattern (``scans/*.h5``) for what it matches; options behind
    ``#`` (``raw.h5#repetition=0``, ``scans/*.npy#axes=chw``) go to each of them. BART's pair of files may be named with
    either suffix, or with none. Two scans of one name get their folder's name in front. Raises :class:`UserError` for a
    name that leads to no file.
    """
    locations = list(dict.fromkeys(location for name in names for location in _expanded(str(name))))
    if not locations:
        raise UserError("no scans given; name files or folders of k-space")
    return with_own_names([Scan(_name(location), (location,)) for location in locations])


def _expanded(name: str) -> Iterator[str]:
    if is_phantom(name):
        yield name
        return
    parsed = Location.parse(name)
    for file in _files(parsed.path):
        yield str(Location(str(file), parsed.options))


def _files(name: str) -> Iterator[Path]:
    path = Path(name)
    if path.is_dir():
        yield from _below(path)
    elif not path.exists() and any(sign in name for sign in PATTERN):
        matched = sorted(glob(name, recursive=True))
        if not matched:
            raise UserError(f"{name}: no file matches this pattern")
        for match in matched:
            yield from _files(match)
    else:
        yield _data(path)


def _below(folder: Path) -> list[Path]:
    """Files whose suffix says k-space, at any depth, but for hidden ones and those that reconstruction has written."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    files = [
        path
        for path in found
        if not path.stem.endswith(OWN) and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise UserError(f"{folder}: holds no k-space in this folder or below; known: {', '.join(SUFFIXES)}")
    return files


def _data(path: Path) -> Path:
    """The file itself; of BART's pair the one that holds the data."""
    if path.suffix.lower() in BART or not path.exists():
        _, data = both_files(path)
        if path.suffix.lower() in BART or data.is_file():
            return data
        raise UserError(f"{path}: no such file or folder")
    return path


def _name(location: str) -> str:
    """What the files of a scan are called: its own file's name, and which of several images in it is meant."""
    parsed = Location.parse(location)
    path = Path(parsed.path)
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return "_".join([stem, *(f"{key}{value}" for key, value in parsed.options.items() if key in COUNTERS)])
