"""What is wrong with a dataset: copies, leaks, label conflicts, shortcuts, and how far memory alone gets."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mrtransfer.common.files import digest
from mrtransfer.data.audit import leakage
from mrtransfer.data.audit.duplicates import Duplicates, find_duplicates
from mrtransfer.data.audit.findings import findings
from mrtransfer.data.audit.fingerprint import Fingerprints, fingerprints
from mrtransfer.data.audit.neighbours import nearest_neighbour
from mrtransfer.data.audit.pairs import worst_pairs
from mrtransfer.data.audit.report import AuditReport, Pair, read_report, write_report
from mrtransfer.data.audit.shortcuts import shortcuts
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.readers.location import Location, is_phantom
from mrtransfer.data.split import units

__all__ = ["AuditReport", "Pair", "audit"]

_VERSION = 1
_EXAMPLES = 20


def audit(manifest: Manifest, *, cache: Path | None = None) -> AuditReport:
    """Read every file once and report what would make a score on this dataset void or misleading.

    With ``cache`` (a folder) the report is kept there and found again as long as neither the table nor any file's size
    or times change. Files that cannot be read are reported; :class:`UserError` is raised where none can.
    """
    kept = Path(cache) / f"{_state(manifest)}.json" if cache is not None else None
    if kept is not None and kept.is_file():
        return read_report(kept, manifest.root)
    prints = fingerprints(manifest)
    found = find_duplicates(prints, pd.factorize(manifest.table["subject"])[0])
    report = AuditReport(_figures(manifest, prints, found), found.groups, worst_pairs(manifest, found), manifest.root)
    if kept is not None:
        write_report(kept, report)
    return report


def _figures(manifest: Manifest, prints: Fingerprints, found: Duplicates) -> dict[str, Any]:
    sides = leakage.sides_of(manifest)
    leaks = leakage.leaked(found.all, sides)
    belong = units(manifest.with_groups(found.groups))
    conflicts = leakage.label_conflicts(manifest, found.all)
    samples = manifest.table["sample"]
    side = np.select([sides.train, sides.test], [0, 1], default=-1)
    described = manifest.describe()
    data = {
        "dataset": manifest.name,
        "files": len(manifest),
        "classes": {name: counts["samples"] for name, counts in described["classes"].items()},
        "splits": described["splits"],
        "subjects": described["subjects"],
        **leakage.count_kinds(found, sides),
        "leaked": int(leaks.sum()) if sides.published else None,
        "label_conflicts": len(conflicts),
        "label_conflict_examples": conflicts[:_EXAMPLES],
        "subjects_on_both_sides": leakage.subjects_on_both_sides(manifest, sides),
        "images_of_several_subjects": leakage.images_of_several_subjects(manifest, found.all),
        "nearest_neighbour": nearest_neighbour(
            prints.thumbnails, manifest.labels, belong, sides, leaks, prints.readable
        ),
        "shortcuts": shortcuts(
            prints.form[prints.readable].reset_index(drop=True),
            {"label": manifest.labels[prints.readable], "split": side[prints.readable]},
            belong[prints.readable],
        ),
        "unreadable": {str(samples[row]): problem for row, problem in prints.unreadable.items()},
    }
    data["findings"] = findings(data, manifest, _classes_gone(manifest, sides, leaks))
    return data


def _classes_gone(manifest: Manifest, sides: leakage.Sides, leaks: np.ndarray) -> list[str]:
    """Classes with published test samples, but none that is clean."""
    tested, clean = (set(manifest.labels[mask].tolist()) for mask in (sides.test, sides.test & ~leaks))
    return [name for label, name in enumerate(manifest.classes) if label in tested - clean]


def _state(manifest: Manifest) -> str:
    """A name that changes with the table, and with the size or times of any file."""
    table = manifest.table.drop(columns="group")
    files = {
        Location.parse(location).file(manifest.root)
        for row in range(len(manifest))
        for location in manifest.locations(row)
        if not is_phantom(location)
    }
    stats = [(str(path), *_stat(path)) for path in sorted(files)]
    rows = pd.util.hash_pandas_object(table.astype("string").fillna(""), index=False)
    return digest([_VERSION, list(map(str, table.columns)), list(manifest.classes), rows.tolist(), stats])


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
