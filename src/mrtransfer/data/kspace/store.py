"""The k-space of a manifest: files are read where they lie, phantom volumes rendered once, and none silently stale."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import digest
from mrtransfer.common.progress import progress
from mrtransfer.data.kspace.open import files_of, open_volume, render, rendered_crop
from mrtransfer.data.kspace.volume import KspaceVolume
from mrtransfer.data.kspace.write import write_fastmri
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.readers.location import is_phantom
from mrtransfer.data.stored import Sources, about, file_name, open_or_build, unusable
from mrtransfer.data.threads import in_threads

FORMAT = 1  # raise it when the same files would give other k-space
_LISTED = 50  # unusable volumes that are named


@dataclass(frozen=True, eq=False)
class KspaceStore:
    """The volumes of a manifest; row i is sample i. It holds no open file, so processes and threads may share it."""

    name: str
    root: Path
    locations: tuple[str, ...]
    """Where each row's k-space lies: as in the manifest, or in the store where it is rendered."""
    described: tuple[dict[str, Any], ...]
    """What reading each volume once has shown."""

    def __len__(self) -> int:
        return len(self.locations)

    def volume(self, row: int) -> KspaceVolume:
        """The volume of sample ``row``; its slices are read when they are asked for."""
        if row not in self._opened:
            volume = open_volume(self.locations[row], self.root)
            self._opened[row] = replace(volume, stored_max=self.described[row]["max"])
        return self._opened[row]

    @property
    def content(self) -> str:
        """Digest of all k-space and targets: the same data have the same name, wherever they lie."""
        return digest([[row["kspace"], row["target"], row["crop"]] for row in self.described])

    @cached_property
    def row_digests(self) -> np.ndarray:
        """(N,) str: digest of each volume's k-space, which depends on neither its target nor other volumes."""
        return np.array([row["kspace"] for row in self.described])

    @cached_property
    def slices(self) -> np.ndarray:
        """(N,) int64: slices of each volume."""
        return np.array([row["shape"][0] for row in self.described], dtype=np.int64)

    @cached_property
    def coils(self) -> np.ndarray:
        """(N,) int64: coils of each volume."""
        return np.array([row["shape"][1] for row in self.described], dtype=np.int64)

    @cached_property
    def matrices(self) -> np.ndarray:
        """(N, 2) int64: rows and columns of each volume's k-space."""
        return np.array([row["shape"][2:] for row in self.described], dtype=np.int64).reshape(-1, 2)

    @cached_property
    def _opened(self) -> dict[int, KspaceVolume]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens its own volumes."""
        return {key: value for key, value in self.__dict__.items() if key != "_opened"}


def open_kspace(manifest: Manifest, directory: str | Path) -> KspaceStore:
    """The k-space of ``manifest``, one volume a row; what has to be known or rendered once is kept in ``directory``.

    Every file is read once, for its digest, its largest target, and values that are not finite; that is remembered for
    as long as its path, size and times of change stay as they are, so another manifest of the same files reads only
    what is new. Files are never copied; phantom volumes are rendered into fastMRI's layout. Raises one
    :class:`UserError` that names all volumes that cannot be used.
    """
    if manifest.channels != ("image",):
        raise UserError(f"{manifest.name}: has the images {', '.join(manifest.channels)}; k-space has one, 'image'")
    rows: list[tuple[str, dict[str, Any]]] = []
    problems: list[tuple[str, UserError]] = []
    samples = manifest.table["sample"]
    with progress(f"reading k-space of {manifest.name}", len(manifest)) as advance:
        for sample, found in zip(samples, _each(manifest, Path(directory)), strict=True):
            advance(1)
            if isinstance(found, UserError):
                problems.append((sample, found))
            else:
                rows.append(found)
    if problems:
        raise unusable(manifest.name, len(manifest), problems, "volumes", _LISTED)
    return KspaceStore(manifest.name, manifest.root, *map(tuple, zip(*rows, strict=True)))


def _each(manifest: Manifest, directory: Path) -> Iterator[tuple[str, dict[str, Any]] | UserError]:
    """Location and description of every row in order, or what is wrong with it."""

    def one(row: int) -> tuple[str, dict[str, Any]] | UserError:
        try:
            return _row(manifest, row, directory)
        except UserError as problem:
            return problem

    return in_threads(one, range(len(manifest)), ahead=1)


def _row(manifest: Manifest, row: int, directory: Path) -> tuple[str, dict[str, Any]]:
    """Where the k-space of ``row`` lies, and what is known of it; read or rendered first where that is not known."""
    sample, location = str(manifest.table["sample"].iloc[row]), manifest.locations(row)[0]
    phantom = is_phantom(location)
    said = _said(manifest, row) if phantom else {}
    files = files_of(location, manifest.root)
    sources = Sources(f"{manifest.name}-{sample}", manifest.root, [files], {"format": FORMAT, "said": said})
    named = f"{file_name(sample)}.h5"

    def opened(folder: Path, meta: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return (str((folder / named).absolute()) if phantom else location), _description(folder, phantom, named, meta)

    def build(folder: Path) -> dict[str, Any]:
        with about(sample):
            if phantom:
                write_fastmri(folder / named, render(location), crop=rendered_crop(location), **said)
                return _described(open_volume(named, folder))
            return _described(open_volume(location, manifest.root))

    return open_or_build(sources, directory, opened, build)


def _said(manifest: Manifest, row: int) -> dict[str, Any]:
    """What the table says about a rendered volume, for its file."""
    table = manifest.table.iloc[row]
    columns = ("spacing_y", "spacing_x", "spacing_z")
    known = all(column in table and table[column] == table[column] for column in columns)
    texts = {"acquisition": table.get("acquisition"), "subject": table["subject"], "scanner": table["scanner"]}
    said = {key: value for key, value in texts.items() if isinstance(value, str)}
    return {**said, "spacing": tuple(float(table[column]) for column in columns) if known else None}


def _description(folder: Path, phantom: bool, named: str, meta: dict[str, Any]) -> dict[str, Any]:
    """What ``meta`` says of the volume; raises OSError where its rendered file is gone or was cut."""
    if phantom and (folder / named).stat().st_size != meta["bytes"]:
        raise OSError(f"{folder / named} is damaged")
    return {key: meta[key] for key in ("kspace", "target", "crop", "shape", "max")}


def _described(volume: KspaceVolume) -> dict[str, Any]:
    """Read all slices of ``volume`` once: digests, and the largest target."""
    kspace, target = hashlib.sha256(), hashlib.sha256()
    largest = [volume.stored_max] if volume.stored_max is not None else []
    for index in range(volume.slices):
        samples, image = volume.arrays(index)
        kspace.update(samples.data)
        if image is not None:
            if volume.stored_targets:  # a computed one follows from k-space and the crop
                target.update(image.data)
            if volume.stored_max is None:
                largest.append(float(image.max()))
    file = Path(volume.location)
    columns = None if volume.columns is None else volume.columns.astype(int).tolist()
    shape = [volume.slices, volume.coils, *volume.matrix]
    return {
        "kspace": digest([kspace.hexdigest(), shape, columns, volume.padding]),
        "target": target.hexdigest()[:16] if volume.stored_targets else None,
        "crop": list(volume.crop),
        "shape": shape,
        "max": max(largest, default=None),
        "bytes": file.stat().st_size if file.is_file() else 0,
    }
