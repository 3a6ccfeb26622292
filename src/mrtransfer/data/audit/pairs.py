"""Which pairs of copies to show first."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from mrtransfer.data.audit.duplicates import Duplicates
from mrtransfer.data.audit.leakage import sides_of
from mrtransfer.data.audit.report import Pair
from mrtransfer.data.manifest import Manifest

_ORDER = ("near_identical", "flipped", "pixel_identical", "byte_identical")
_MOST = 500


def worst_pairs(manifest: Manifest, found: Duplicates) -> list[Pair]:
    """Up to 500 pairs, worst first: other labels, then across the split, then by kind, the least alike first."""
    pairs = [_pair(manifest, kind, rows, score) for kind, rows, score in _linked(manifest, found)]
    pairs.sort(key=lambda p: (not p.conflicting, not p.crossing, _ORDER.index(p.kind), p.score, p.rows))
    return pairs[:_MOST]


def _linked(manifest: Manifest, found: Duplicates) -> Iterator[tuple[str, tuple[int, int], float]]:
    """One pair of rows for every link between two different files, pixel arrays or pictures."""
    table = manifest.table
    sides = sides_of(manifest)
    keys = pd.DataFrame({"label": manifest.labels, "side": np.select([sides.train, sides.test], [1, 2], default=0)})
    members = {
        kind: {key: list(same) for key, same in pd.Series(range(len(table))).groupby(getattr(found, kind))}
        for kind in ("byte_identical", "pixel_identical", "near_identical")
    }

    def worst(a: list[int], b: list[int]) -> tuple[int, int]:
        """The pair of a member of each that differs most in label and side."""
        a, b = (keys.iloc[rows].drop_duplicates().index.tolist() for rows in (a, b))
        return max(((i, j) for i in a for j in b if i != j), key=lambda p: (_differ(keys, *p), -p[0], -p[1]))

    for rows in members["byte_identical"].values():
        for other in rows[1:]:
            first = max((row for row in rows if row != other), key=lambda row: (_differ(keys, row, other), -row))
            yield "byte_identical", (first, other), 1.0
    for rows in members["pixel_identical"].values():
        files = [list(same) for _, same in pd.Series(rows).groupby(found.byte_identical[rows])]
        for other in files[1:]:
            yield "pixel_identical", worst(files[0], other), 1.0
    same_pixels = members["pixel_identical"]
    for i, j, score in zip(*found.near, strict=True):
        pair = worst(same_pixels[found.pixel_identical[i]], same_pixels[found.pixel_identical[j]])
        yield "near_identical", pair, float(score)
    same_picture = members["near_identical"]
    for i, j, score in zip(*found.mirrored, strict=True):
        pair = worst(same_picture[found.near_identical[i]], same_picture[found.near_identical[j]])
        yield "flipped", pair, float(score)


def _differ(keys: pd.DataFrame, i: int, j: int) -> tuple[bool, bool]:
    a, b = keys.iloc[i], keys.iloc[j]
    return bool(a["label"] != b["label"]), bool(a["side"] != b["side"])


def _pair(manifest: Manifest, kind: str, rows: tuple[int, int], score: float) -> Pair:
    table = manifest.table.iloc[list(rows)]

    def texts(column: str) -> tuple[str | None, str | None]:
        first, second = (None if pd.isna(value) else str(value) for value in table[column])
        return first, second

    samples = (str(table["sample"].iloc[0]), str(table["sample"].iloc[1]))
    locations = (manifest.locations(rows[0])[0], manifest.locations(rows[1])[0])
    return Pair(kind, rows, samples, texts("label"), texts("split"), locations, round(min(score, 1.0), 4))
