"""What predictions into a folder share: the folder, and what is told at the end."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import writing
from mrtransfer.common.progress import progress
from mrtransfer.data.readers.location import Location, is_phantom
from mrtransfer.deploy.scans import Scan
from mrtransfer.training.precision import Precision, Requested


@dataclass(frozen=True)
class Finished:
    """The summaries of all scans that were done, and a sentence about each that could not be."""

    summaries: list[dict[str, Any]]
    problems: list[str]


def apply_to_each(
    scans: Sequence[Scan],
    work: Callable[[Scan, Precision | Requested], tuple[Precision, Callable[[], dict[str, Any]]]],
    doing: str,
    precision: Requested,
) -> Finished:
    """Do ``work`` for one scan after another, and write each as soon as it is done.

    ``work`` returns the setting that it computed in, which goes for all further scans, and what writes the scan's files
    and returns its summary. A scan for which it raises :class:`UserError` is left out; one in writing ends everything.
    """
    chosen: Precision | Requested = precision
    summaries, problems = [], []
    bar = progress(doing, len(scans)) if len(scans) > 1 else nullcontext(lambda n: None)
    with bar as advance:
        for scan in scans:
            try:
                chosen, write = work(scan, chosen)
            except UserError as problem:
                problems.append(str(problem))
            else:
                summaries.append(write())
            advance(1)
    return Finished(summaries, problems)


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
