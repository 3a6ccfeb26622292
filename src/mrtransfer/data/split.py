"""Who is trained on and who is tested: splits that never put one subject, or copies of one image, on both sides.

The unit of every split is a connected component of samples: all samples that share a subject, or a cluster of
duplicate images, or anything else named in ``by``. Folds, hold-out sets, validation sets and label budgets are made of
whole units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from mrtransfer.common.errors import UserError, unknown_name
from mrtransfer.data.manifest import Manifest

COLUMN_OF = {"cluster": "group"}
"""Names used in ``by`` that differ from the manifest's column."""

# Different random streams for one seed, so that a fold and a draw never share their random numbers.
_FOLDS, _HOLDOUT, _DRAW = 1, 2, 3


@dataclass(frozen=True)
class Fold:
    """One division of the samples; both fields are sorted row numbers."""

    index: int
    development: np.ndarray
    """Rows that training and validation samples may be drawn from."""
    test: np.ndarray


@dataclass(frozen=True)
class Draw:
    """The labelled samples of one run; both fields are sorted row numbers."""

    train: np.ndarray
    validation: np.ndarray
    """Empty where the budget is so small that every unit is needed for training, or where no share was asked for."""
    budget: int | Literal["all"]
    units: int
    """Units in ``train`` and ``validation`` together."""


def units(manifest: Manifest, by: Sequence[str] = ("subject", "cluster")) -> np.ndarray:
    """Which samples belong together: (n,) int, numbered by first appearance.

    Two samples are in one unit when they share a value in any column of ``by``, or are linked by a chain of such
    samples (``cluster`` means the column ``group``). A missing value links nothing. Raises :class:`UserError` on an
    unknown name.
    """
    n = len(manifest)
    columns = [COLUMN_OF.get(name, name) for name in by]
    nodes, members, offset = [], [], n
    for name, column in zip(by, columns, strict=True):
        if column not in manifest.table.columns:
            valid = {"subject", "cluster", *map(str, manifest.table.columns)} - {"group", "image", "mask"}
            raise unknown_name("column to split by", name, valid)
        codes, _ = pd.factorize(manifest.table[column])
        known = np.flatnonzero(codes >= 0)
        members.append(known)
        nodes.append(codes[known] + offset)
        offset += int(codes.max(initial=-1)) + 1
    rows, columns_ = np.concatenate([*members, []]), np.concatenate([*nodes, []])
    graph = coo_matrix((np.ones(len(rows)), (rows.astype(int), columns_.astype(int))), shape=(offset, offset))
    _, component = connected_components(graph, directed=False)
    return pd.factorize(component[:n])[0].astype(np.int64)


def make_folds(labels: np.ndarray, units: np.ndarray, *, folds: int = 5, seed: int = 0) -> list[Fold]:
    """Cross-validation: every unit is tested exactly once, and every fold has its share of every class.

    ``labels`` and ``units`` are (n,) int. For units of one class each, a class's sample counts in two folds differ by
    no more than that class's largest unit. Raises :class:`UserError` where there are fewer units than folds, or a class
    has only one unit: it could not be trained on where it is tested.
    """
    labels, units = _checked(labels, units)
    if folds < 2:
        raise UserError(f"split.folds: {folds} is too few; cross-validation needs 2 folds or more")
    counts, member = _class_counts(labels, units)
    if len(counts) < folds:
        raise UserError(
            f"split.folds: {folds} folds need {folds} subjects or clusters or more, but there are {len(counts)}"
        )
    _refuse_lone_classes(counts)
    part = _deal(counts, np.full(folds, 1 / folds), np.random.default_rng([seed, _FOLDS]))[member]
    return [Fold(k, np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in range(folds)]


def holdout(labels: np.ndarray, units: np.ndarray, *, test: float = 0.15, seed: int = 0) -> list[Fold]:
    """One held-out test set with about the share ``test`` of the samples of every class, as a list of one fold."""
    labels, units = _checked(labels, units)
    if not 0 < test < 1:
        raise UserError(f"split.test: {test} is not a share between 0 and 1, such as 0.15")
    counts, member = _class_counts(labels, units)
    _refuse_lone_classes(counts)
    part = _deal(counts, np.array([1 - test, test]), np.random.default_rng([seed, _HOLDOUT]))[member]
    fold = Fold(0, np.flatnonzero(part == 0), np.flatnonzero(part == 1))
    if not len(fold.test) or not len(fold.development):
        raise UserError(
            f"split.test: {test} of {len(counts)} subjects or clusters leaves one side empty; choose another share"
        )
    return [fold]


def published(manifest: Manifest, units: np.ndarray, leaks: Literal["refuse", "drop"] = "refuse") -> list[Fold]:
    """The split that the dataset came with: its column ``split``, or one fold per value of a column ``fold``.

    Where units lie on both sides, ``refuse`` raises :class:`UserError`; ``drop`` leaves their samples out of the test
    set and keeps its clean part.
    """
    split = manifest.table["split"]
    if split.notna().any():
        test = (split == "test").fillna(False).to_numpy(dtype=bool)
        train = split.isin(["train", "validation"]).to_numpy(dtype=bool)
        sides = [(train, test)]
    elif "fold" in manifest.table and manifest.table["fold"].notna().any():
        codes, _ = pd.factorize(manifest.table["fold"], sort=True)
        sides = [((codes != k) & (codes >= 0), codes == k) for k in range(codes.max() + 1)]
    else:
        raise UserError(f"split.published: {manifest.name} has no published split; leave the key out to make a split")
    return [_published_fold(k, train, test, np.asarray(units), leaks) for k, (train, test) in enumerate(sides)]


def _published_fold(index: int, train: np.ndarray, test: np.ndarray, units: np.ndarray, leaks: str) -> Fold:
    if not train.any() or not test.any():
        raise UserError("split.published: the published split needs both training and test samples")
    leaked = test & np.isin(units, units[train])
    if leaked.any() and leaks == "refuse":
        raise UserError(
            f"split.published: {leaked.sum()} of {test.sum()} published test samples share a subject or are copies of "
            "training samples, so any score on them is void; use 'published: drop' to test on the clean rest only, "
            "or leave the key out to split anew"
        )
    clean = test & ~leaked
    if not clean.any():
        raise UserError(
            "split.published: every published test sample leaks from training; leave the key out to split anew"
        )
    return Fold(index, np.flatnonzero(train), np.flatnonzero(clean))


def draw(
    labels: np.ndarray,
    units: np.ndarray,
    development: np.ndarray,
    *,
    budget: int | Literal["all"],
    validation: float = 0.15,
    seed: int = 0,
) -> Draw:
    """The labelled samples for a budget of ``budget`` units, training and validation together.

    Units of ``development`` (row numbers) stand in one seeded order, of which a budget takes the beginning, and each
    has its role for good: with the same seed, a smaller budget's training and validation sets are subsets of a larger
    one's. Every beginning holds the classes in proportion, and starts with a training unit for every class. Validation
    labels cost labels too, hence they count. Raises :class:`UserError` where the budget is larger than the data, or too
    small to train on every class.
    """
    development = np.sort(np.asarray(development))
    labels, units = _checked(np.asarray(labels)[development], np.asarray(units)[development])
    if not 0 <= validation < 1:
        raise UserError(f"split.validation: {validation} is not a share; choose one from 0 to below 1, such as 0.15")
    counts, member = _class_counts(labels, units)
    taken = len(counts) if budget == "all" else int(budget)
    if taken > len(counts):
        raise UserError(
            f"budgets: {budget} labelled subjects or clusters are asked for, but only {len(counts)} may be trained on "
            "beside the test set; choose a smaller budget, or 'all'"
        )
    order, is_validation, needed = _order_and_roles(counts > 0, validation, np.random.default_rng([seed, _DRAW]))
    if taken < needed:
        raise UserError(
            f"budgets: {budget} is too small: {needed} labelled subjects or clusters cover every class once"
        )
    place = np.empty(len(order), dtype=int)
    place[order] = np.arange(len(order))
    inside, validates = place[member] < taken, is_validation[member]
    return Draw(development[inside & ~validates], development[inside & validates], budget, taken)


def _order_and_roles(
    present: np.ndarray, validation: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, int]:
    """Order of the units, (U,) bool whether each is for validation, and how many come first to cover every class.

    ``present`` (U, C) tells which classes a unit holds; units with the same ones form a stratum. Within a stratum the
    order is random; strata are interleaved in proportion (the i-th of n stands at (i + 1/2) / n: Sainte-Laguë).
    """
    shuffled = rng.permutation(len(present))
    first = _covering(present, shuffled)
    shuffled = np.concatenate([first, shuffled[~np.isin(shuffled, first)]])
    _, stratum = np.unique(present, axis=0, return_inverse=True)
    stratum = stratum.reshape(-1)
    strata = stratum.max() + 1
    # The j-th unit of a stratum validates when rounding (share · j) steps up; strata round at different points, so that
    # the shares of a small budget add up. Units that cover a class are always trained on.
    rounding = (rng.permutation(strata) + 0.5) / strata
    key, validates = np.empty(len(present)), np.zeros(len(present), dtype=bool)
    for s in range(strata):
        members = shuffled[stratum[shuffled] == s]
        key[members] = (np.arange(len(members)) + 0.5) / len(members)
        free = members[~np.isin(members, first)]
        steps = np.floor(np.arange(len(free) + 1) * validation + rounding[s] + 1e-9)
        validates[free] = np.diff(steps) > 0
    key[first] = np.arange(len(first)) - len(first)
    rank = np.empty(len(present), dtype=int)
    rank[shuffled] = np.arange(len(present))
    return np.lexsort((rank, key)), validates, len(first)


def _covering(present: np.ndarray, shuffled: np.ndarray) -> np.ndarray:
    """Units that together hold every class, rarest class first, each the first in ``shuffled`` to hold its class."""
    chosen: list[int] = []
    covered = np.zeros(present.shape[1], dtype=bool)
    for c in np.argsort(present.sum(axis=0), kind="stable"):
        if not covered[c]:
            chosen.append(int(shuffled[present[shuffled, c].argmax()]))
            covered |= present[chosen[-1]]
    return np.array(chosen, dtype=int)


def _deal(counts: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal units, largest first, into parts with given shares of every class: (U,) part of each unit.

    ``counts`` (U, C) are samples per class. Each unit goes where it adds least to Σ (have − want)² / want over parts
    and classes, ties to the emptiest part. For units of one sample this is the Sainte-Laguë apportionment, and no part
    stays empty where shares are equal and there are as many units as parts.
    """
    want = shares[:, None] * counts.sum(axis=0)
    have = np.zeros_like(want)
    part = np.empty(len(counts), dtype=int)
    shuffled = rng.permutation(len(counts))
    largest_first = shuffled[np.argsort(-counts[shuffled].sum(axis=1), kind="stable")]
    for unit in largest_first:
        n = counts[unit]
        cost = (n * (2 * have + n) / want).sum(axis=1)
        least = np.flatnonzero(cost <= cost.min() + 1e-9)
        part[unit] = least[np.argmin(have[least].sum(axis=1) / shares[least])]
        have[part[unit]] += n
    return part


def _class_counts(labels: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(U, C) samples of each class in each unit, over classes that occur, and (n,) the unit's row in it."""
    _, member = np.unique(units, return_inverse=True)
    _, label = np.unique(labels, return_inverse=True)
    counts = np.zeros((member.max() + 1, label.max() + 1))
    np.add.at(counts, (member, label), 1)
    return counts, member


def _refuse_lone_classes(counts: np.ndarray) -> None:
    lone = int(((counts > 0).sum(axis=0) == 1).sum())
    if lone:
        raise UserError(
            f"split: {lone} of {counts.shape[1]} classes occur in one subject or cluster only, so they cannot be both "
            "trained on and tested; add subjects, or leave the class out"
        )


def _checked(labels: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, units = np.asarray(labels), np.asarray(units)
    if labels.shape != units.shape or labels.ndim != 1:
        raise ValueError(f"labels and units must be of one length, not {labels.shape} and {units.shape}")
    if not len(labels):
        raise UserError("split: there are no labelled samples to split")
    if (labels < 0).any():
        raise UserError(f"split: {(labels < 0).sum()} samples have no label; leave them out first")
    return labels, units
