"""The audit's result: figures for machines, sentences for people, clusters for the split, pairs to look at."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrtransfer.common.files import read_json, write_json


@dataclass(frozen=True)
class Pair:
    """Two samples that show one image."""

    kind: str
    """byte_identical, pixel_identical, near_identical or flipped."""
    rows: tuple[int, int]
    samples: tuple[str, str]
    labels: tuple[str | None, str | None]
    splits: tuple[str | None, str | None]
    locations: tuple[str, str]
    """Of the first channel."""
    score: float
    """Correlation of local contrast after alignment; 1 for identical pixels."""

    @property
    def conflicting(self) -> bool:
        """Whether the two carry different labels."""
        return None not in self.labels and self.labels[0] != self.labels[1]

    @property
    def crossing(self) -> bool:
        """Whether one is a test sample and the other is not."""
        return None not in self.splits and (self.splits[0] == "test") != (self.splits[1] == "test")


@dataclass(frozen=True)
class AuditReport:
    """What :func:`mrtransfer.data.audit.audit` found."""

    data: dict[str, Any]
    """The figures, as JSON can write them."""
    groups: np.ndarray
    """(n,) str: the cluster of copies that a sample belongs to (mirror images included), "" where it has none."""
    pairs: list[Pair]
    """Pairs of copies, worst first: other labels, then across the split, then the least alike."""
    root: Path
    """Folder that the pairs' locations are relative to."""

    @property
    def findings(self) -> list[str]:
        """Plain sentences, worst first."""
        return list(self.data["findings"])

    def to_json(self) -> dict[str, Any]:
        """The figures and findings.

        ``files`` · ``byte_identical``, ``pixel_identical``, ``near_identical`` (cumulative: each contains the one
        before) and ``flipped``, each ``{clusters, files, test_in_train}``, the last None without a published split ·
        ``leaked`` (test samples with any of these in training) · ``label_conflicts`` · ``subjects_on_both_sides`` ·
        ``nearest_neighbour`` · ``shortcuts`` · ``unreadable`` · ``findings``.
        """
        return dict(self.data)

    def save_pictures(self, folder: str | Path, limit: int = 40) -> list[Path]:
        """Write the worst ``limit`` pairs as PNG, side by side with their difference; returns the files."""
        from mrtransfer.data.audit.pictures import save_pictures

        return save_pictures(self.pairs[:limit], self.root, Path(folder))


def write_report(path: Path, report: AuditReport) -> None:
    """Keep a report for :func:`read_report`."""
    kept = {"data": report.data, "groups": list(report.groups), "pairs": [asdict(pair) for pair in report.pairs]}
    write_json(path, kept, sort=False)  # found again, it must give the same bytes of results


def read_report(path: Path, root: Path) -> AuditReport:
    """Read what :func:`write_report` wrote."""
    kept = read_json(path)
    pairs = [_pair({key: tuple(v) if isinstance(v, list) else v for key, v in pair.items()}) for pair in kept["pairs"]]
    return AuditReport(kept["data"], np.array(kept["groups"], dtype=object), pairs, root)


def _pair(kept: dict[str, Any]) -> Pair:
    return Pair(**kept)
