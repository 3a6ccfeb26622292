"""From a location to a volume of k-space, whatever holds it."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.data.kspace.arrays import array_volume
from mrtransfer.data.kspace.bart import both_files, open_bart
from mrtransfer.data.kspace.fastmri import KSPACE, open_fastmri
from mrtransfer.data.kspace.files import hdf5
from mrtransfer.data.kspace.ismrmrd_raw import COUNTERS, group_of, open_raw
from mrtransfer.data.kspace.numpy_ import open_numpy
from mrtransfer.data.kspace.volume import KspaceVolume
from mrtransfer.data.readers.location import Location, is_phantom

HDF5, BART, NUMPY = (".h5", ".hdf5", ".mrd"), (".cfl", ".hdr"), (".npy", ".npz")
SUFFIXES = (*HDF5, ".cfl", *NUMPY)
"""How the names of files of k-space end."""
_YES, _NO = ("1", "true"), ("0", "false")


def open_volume(location: str, root: str | Path) -> KspaceVolume:
    """The k-space at ``location``; a relative path is relative to ``root``. Only headers are read.

    * ``.h5``, ``.hdf5``, ``.mrd``: a file as fastMRI publishes them, or raw acquisitions of ISMRMRD, of which
      ``#contrast=…``, ``#phase=…``, ``#repetition=…`` or ``#set=…`` choose one of several images
    * ``.cfl`` with its ``.hdr``: BART; ``#image=true`` says that it holds a complex image, whose k-space is simulated
    * ``.npy``, ``.npz``: complex, ``#axes=chw`` names the axes; ``#image=true`` likewise
    * ``phantom:…``: rendered, in memory

    Raises :class:`UserError` that names the file where it is missing, damaged or not what its name says.
    """
    if is_phantom(location):
        shape = rendered(location).shape
        volume = array_volume(Path("phantom"), _Rendered(location), shape, image=False)
        return replace(volume, location=location, crop=rendered_crop(location))
    parsed = Location.parse(location)
    file = parsed.file(Path(root))
    kind = _kind(file)
    if kind is HDF5:
        return _open_hdf5(parsed, file)
    if kind is NUMPY:
        options = parsed.only("axes", "image")
        return open_numpy(file, axes=options.get("axes"), image=_flag(parsed, "image"))
    if kind is BART:
        parsed.only("image")
        return open_bart(file, image=_flag(parsed, "image"))
    what = "unknown kind of k-space file" if file.exists() else "no such file"
    raise UserError(f"{file}: {what}; known: {', '.join(SUFFIXES)}")


def files_of(location: str, root: str | Path) -> list[str]:
    """The locations of all files that make up the volume at ``location``: of BART's there are two."""
    parsed = Location.parse(location)
    if is_phantom(location) or _kind(parsed.file(Path(root))) is not BART:
        return [location]
    header, data = both_files(Path(parsed.path))
    return [str(Location(data.as_posix(), parsed.options)), header.as_posix()]


def _kind(file: Path) -> tuple[str, ...] | None:
    for kind in (HDF5, NUMPY, BART):
        if file.suffix.lower() in kind:
            return kind
    return BART if file.with_name(file.name + ".cfl").is_file() else None  # BART names a pair without suffix


def _open_hdf5(parsed: Location, file: Path) -> KspaceVolume:
    with hdf5(file) as opened:
        group = None if KSPACE in opened else group_of(opened)
    if group is None:
        parsed.only()
        return open_fastmri(file)
    parsed.only(*COUNTERS)
    return open_raw(file, group, {counter: parsed.number(counter, 0) for counter in parsed.options})


def _flag(parsed: Location, key: str) -> bool:
    value = parsed.options.get(key, _NO[0]).lower()
    if value not in (*_YES, *_NO):
        raise UserError(f"{parsed}: {key} must be true or false")
    return value in _YES


@dataclass(frozen=True)
class _Rendered:
    """One slice of a rendered volume."""

    location: str

    def __call__(self, index: int) -> np.ndarray:
        return rendered(self.location)[index].copy()


def render(location: str) -> np.ndarray:
    """complex64 (S, C, H, W): the phantom's k-space at ``location``."""
    from mrtransfer.data.phantom.kspace import render_kspace

    return np.asarray(render_kspace(location), dtype=np.complex64)


def rendered_crop(location: str) -> tuple[int, int]:
    """Rows and columns of the phantom's image at ``location``, which may be fewer than those of k-space."""
    from mrtransfer.data.phantom.kspace_scan import parse_kspace

    return parse_kspace(location).crop


rendered = lru_cache(maxsize=1)(render)  # one volume in memory: a store keeps them all on disk
