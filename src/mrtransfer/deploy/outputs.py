"""What predictions into a folder share: the folder, and what is told at the end."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import writing
from mrtransfer.data.readers.location import Location, is_phantom
from mrtransfer.deploy.scans import Scan


@dataclass(frozen=True)
class Finished:
    """The summaries of all scans that were done, and a sentence about each that could not be."""

    summaries: list[dict[str, Any]]
    problems: list[str]


def output_folder(out: Path, scans: Iterable[Scan], holds: str) -> Path:
    """``out``, made where it is absent; it is for what ``holds`` says ("masks").

    Raises :class:`UserError` where a scan lies in it, or where nothing can be written.
    """
    for scan in scans:
        for location in scan.locations:
            if not is_phantom(location) and Path(Location.parse(location).path).resolve().parent == out.resolve():
                raise UserError(f"--out {out}: the scans lie in this folder; choose another, so that no file is lost")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; name a folder for the {holds}")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=out).close()
    return out
