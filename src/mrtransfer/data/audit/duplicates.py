"""Clusters of copies: byte-identical, pixel-identical, near-identical, mirrored.

The kinds are cumulative: a byte-identical copy is pixel-identical too, and a pixel-identical one near-identical, so
each kind's clusters contain those of the kind before. Mirrored copies are a class of their own, and join the final
groups.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from mrtransfer.data.audit.fingerprint import Fingerprints
from mrtransfer.data.audit.similarity import Alike, same_image

KINDS = ("byte_identical", "pixel_identical", "near_identical")


@dataclass(frozen=True)
class Duplicates:
    """Cluster numbers (n,) per kind: rows with one number are copies of one image."""

    byte_identical: np.ndarray
    pixel_identical: np.ndarray
    near_identical: np.ndarray
    near: Alike
    """Near-identical pairs of rows, one row standing for all that are pixel-identical to it."""
    mirrored: Alike
    """Pairs of rows that are mirror images of each other, standing for their clusters in the same way."""

    @cached_property
    def all(self) -> np.ndarray:
        """(n,) cluster numbers with mirror images joined: what a split must keep together."""
        return joined(self.near_identical, [(self.mirrored.first, self.mirrored.second)])

    @property
    def groups(self) -> np.ndarray:
        """(n,) str: the name of the cluster, "" where a sample has no copy."""
        number = self.all
        sizes = np.bincount(number)
        names: dict[int, str] = {}
        for one in number[sizes[number] > 1]:
            names.setdefault(int(one), f"copies-{len(names) + 1:04d}")
        return np.array([names.get(int(one), "") for one in number], dtype=object)


def find_duplicates(prints: Fingerprints, subjects: np.ndarray) -> Duplicates:
    """Find all copies among the readable samples; unreadable ones are copies of nothing.

    ``subjects`` (n,) int, -1 where unknown. Two pictures of one subject that look the same, yet differ in pixels, are
    taken for neighbouring slices: a split keeps them together anyhow.
    """
    nothing = np.arange(len(prints.pixels))
    same_bytes = np.where(prints.readable, prints.bytes, [f"row {i}" for i in nothing])
    by_bytes = pd.factorize(same_bytes)[0]
    by_pixels = joined(by_bytes, [_star(pd.factorize(prints.pixels)[0])])
    stand_ins = np.flatnonzero(~pd.Series(by_pixels).duplicated().to_numpy() & prints.readable)
    side = prints.form[["width", "height"]].min(axis=1).to_numpy()[stand_ins]
    near, mirrored = (
        Alike(stand_ins[pairs.first], stand_ins[pairs.second], pairs.score)
        for pairs in same_image(prints.thumbnails[stand_ins], side)
    )
    within = (subjects[near.first] >= 0) & (subjects[near.first] == subjects[near.second])
    near = Alike(*(field[~within] for field in near))
    return Duplicates(by_bytes, by_pixels, joined(by_pixels, [(near.first, near.second)]), near, mirrored)


def joined(clusters: np.ndarray, links: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Merge clusters (n,) along links between rows; numbered by first appearance."""
    ends = [_star(clusters), *links]
    first, second = (np.concatenate([np.asarray(end[side], dtype=np.int64) for end in ends]) for side in (0, 1))
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(len(clusters), len(clusters)))
    return pd.factorize(connected_components(graph, directed=False)[1])[0]


def _star(clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Links from every row to the first row of its cluster."""
    _, first, member = np.unique(clusters, return_index=True, return_inverse=True)
    return np.arange(len(clusters)), first[member.reshape(-1)]
