"""What the datasets of k-space share: one row a volume, made of what its header says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mrtransfer.common.errors import UserError
from mrtransfer.common.progress import progress
from mrtransfer.data.kspace import KspaceVolume, open_volume
from mrtransfer.data.stored import unusable
from mrtransfer.data.threads import in_threads

_LISTED = 50  # unusable files that are named
_ANATOMIES = {"COR": "knee", "AX": "brain"}  # how fastMRI's acquisitions begin


def opened(locations: Sequence[str], root: Path) -> list[KspaceVolume]:
    """The volumes at ``locations``; only their headers are read.

    Raises one :class:`UserError` that names all files that cannot be used.
    """

    def one(location: str) -> KspaceVolume | UserError:
        try:
            return open_volume(location, root)
        except UserError as problem:
            return problem

    volumes: list[KspaceVolume] = []
    problems: list[tuple[str, UserError]] = []
    with progress(f"reading headers in {root.name}", len(locations)) as advance:
        for location, found in zip(locations, in_threads(one, locations), strict=True):
            advance(1)
            if isinstance(found, UserError):
                problems.append((location, found))
            else:
                volumes.append(found)
    if problems:
        raise unusable(str(root), len(locations), problems, "files", _LISTED)
    return volumes


def row(location: str, volume: KspaceVolume) -> dict[str, Any]:
    """What the manifest says of a volume; its name is its path without the suffix, its subject at worst its name."""
    path = Path(location.partition("#")[0])
    name = path.with_suffix("").as_posix()
    spacing = volume.spacing or (None, None, None)
    return {
        "sample": name,
        "subject": volume.subject or name,
        "image": location,
        "spacing_x": spacing[1],
        "spacing_y": spacing[0],
        "scanner": volume.scanner or None,
        "spacing_z": spacing[2],
        "acquisition": volume.acquisition or None,
        "anatomy": anatomy_of(volume.acquisition),
        "slices": volume.slices,
        "coils": volume.coils,
        "rows": volume.matrix[0],
        "columns": volume.matrix[1],
        "target": volume.has_targets,
    }


def anatomy_of(acquisition: str) -> str | None:
    """The anatomy that an acquisition of fastMRI shows, by its name; None where it does not say."""
    return next((anatomy for start, anatomy in _ANATOMIES.items() if acquisition.upper().startswith(start)), None)


def without_targets(table: pd.DataFrame) -> list[str]:
    """A note on the volumes that have no target, or none where all have one."""
    without = int((~table["target"]).sum())
    said = "volumes are undersampled and have no reconstructed images: they cannot be trained on or scored"
    return [f"{without} {said}"] if without else []
