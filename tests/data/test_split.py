"""No unit on both sides of a split, classes in proportion, budgets nested: for any data."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.data.split import draw, holdout, make_folds, published, units


class Table:
    """As much of a manifest as the split looks at."""

    def __init__(self, **columns):
        self.table = pd.DataFrame(columns)
        for name in ("subject", "group", "split"):
            if name not in self.table:
                self.table[name] = pd.Series([pd.NA] * len(self.table), dtype="string")
        self.name = "table"

    def __len__(self):
        return len(self.table)


def linked_by_hand(*columns):
    """Units by the slow rule: merge until nothing shares a value any more."""
    n = len(columns[0])
    unit = list(range(n))
    changed = True
    while changed:
        changed = False
        for column in columns:
            for i in range(n):
                for j in range(n):
                    if column[i] is not None and column[i] == column[j] and unit[i] != unit[j]:
                        unit[i] = unit[j] = min(unit[i], unit[j])
                        changed = True
    return unit


def same_partition(a, b):
    return len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))


names = st.one_of(st.none(), st.sampled_from("abcde"))


@given(st.lists(st.tuples(names, names), min_size=1, max_size=14))
def test_units_are_the_connected_components_of_shared_subjects_and_clusters(rows):
    subject, group = map(list, zip(*rows, strict=True))
    found = units(Table(subject=subject, group=group))
    assert same_partition(found.tolist(), linked_by_hand(subject, group))
    assert found[0] == 0
    assert same_partition(units(Table(subject=subject, group=group), by=["cluster"]).tolist(), linked_by_hand(group))


def test_an_unknown_column_to_split_by_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match="did you mean 'subject'"):
        units(Table(subject=["a", "b"]), by=["subjct"])


def test_any_column_can_be_split_by():
    assert units(Table(subject=["a", "b", "c"], site=["x", "y", "x"]), by=["site"]).tolist() == [0, 1, 0]


@st.composite
def samples(draw_, one_class_units=False, least=2):
    """Labels and units: every class in ``least`` units or more."""
    classes = draw_(st.integers(2, 4))
    label_of_unit = np.repeat(np.arange(classes), [draw_(st.integers(least, 12)) for _ in range(classes)])
    sizes = [draw_(st.integers(1, 5)) for _ in label_of_unit]
    unit = np.repeat(np.arange(len(sizes)), sizes)
    label = np.repeat(label_of_unit, sizes)
    if not one_class_units:
        flips = draw_(st.lists(st.integers(0, len(label) - 1), max_size=6))
        label[flips] = (label[flips] + 1) % classes
    shuffled = np.random.default_rng(draw_(st.integers(0, 99))).permutation(len(unit))
    return label[shuffled], unit[shuffled]


@given(samples(least=3), st.integers(2, 5), st.integers(0, 5))
def test_every_unit_is_tested_once_and_never_stands_on_both_sides(data, folds, seed):
    labels, unit = data
    made = make_folds(labels, unit, folds=folds, seed=seed)
    tested = np.concatenate([fold.test for fold in made])
    assert sorted(tested.tolist()) == list(range(len(labels)))
    for fold in made:
        assert len(fold.test)
        assert sorted([*fold.test, *fold.development]) == list(range(len(labels)))
        assert not set(unit[fold.test]) & set(unit[fold.development])


@given(samples(one_class_units=True), st.integers(2, 4))
def test_the_folds_share_every_class_up_to_its_largest_unit(data, folds):
    labels, unit = data
    made = make_folds(labels, unit, folds=folds, seed=1)
    for c in np.unique(labels):
        counts = [(labels[fold.test] == c).sum() for fold in made]
        assert max(counts) - min(counts) <= np.bincount(unit[labels == c]).max()


@given(
    st.integers(0, 3), st.lists(st.integers(12, 60), min_size=2, max_size=4), st.sampled_from([0.1, 0.15, 0.25, 0.4])
)
def test_a_held_out_set_of_single_samples_has_the_share_of_every_class_within_one_sample(seed, sizes, test):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    (fold,) = holdout(labels, np.arange(len(labels)), test=test, seed=seed)
    for c, size in enumerate(sizes):
        assert abs((labels[fold.test] == c).sum() - test * size) <= 1


@given(samples(least=8), st.integers(0, 5))
def test_a_held_out_set_never_shares_a_unit_with_development(data, seed):
    labels, unit = data
    (fold,) = holdout(labels, unit, test=0.3, seed=seed)
    assert not set(unit[fold.test]) & set(unit[fold.development])
    assert sorted([*fold.test, *fold.development]) == list(range(len(labels)))


@settings(deadline=None)
@given(samples(least=3), st.integers(0, 5), st.sampled_from([0.0, 0.15, 0.3]))
def test_budgets_are_nested_for_training_and_for_validation(data, seed, validation):
    labels, unit = data
    development = make_folds(labels, unit, folds=2, seed=0)[0].development
    available = len(np.unique(unit[development]))
    budgets = [b for b in (4, 5, 6, 8, 12, 20) if b <= available]
    drawn = [draw(labels, unit, development, budget=b, validation=validation, seed=seed) for b in [*budgets, "all"]]
    for small, large in itertools.pairwise(drawn):
        assert set(small.train) <= set(large.train)
        assert set(small.validation) <= set(large.validation)
    for one, budget in zip(drawn, [*budgets, available], strict=True):
        together = np.concatenate([one.train, one.validation])
        assert one.units == budget == len(np.unique(unit[together]))
        assert not set(unit[one.train]) & set(unit[one.validation])
        assert set(together) <= set(development)
        assert set(labels[one.train]) == set(labels[development])
        for u in np.unique(unit[together]):  # whole units
            assert (unit[together] == u).sum() == (unit[development] == u).sum()
    assert set(np.concatenate([drawn[-1].train, drawn[-1].validation])) == set(development)


@given(st.lists(st.integers(20, 80), min_size=2, max_size=4), st.integers(0, 9), st.integers(8, 60))
def test_a_budget_holds_the_classes_in_proportion_and_its_share_of_validation_units(sizes, seed, budget):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.arange(len(labels))
    drawn = draw(labels, rows, rows, budget=min(budget, len(rows)), validation=0.15, seed=seed)
    both = np.concatenate([drawn.train, drawn.validation])
    for c, size in enumerate(sizes):
        assert abs((labels[both] == c).sum() - drawn.units * size / len(rows)) <= 2
    free = drawn.units - len(sizes)
    assert abs(len(drawn.validation) - 0.15 * free) <= len(sizes)


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    labels, unit = np.arange(60) % 3, np.arange(60) // 2
    a, b, c = (make_folds(labels, unit, folds=3, seed=s)[0].test.tolist() for s in (4, 4, 5))
    assert a == b != c
    rows = np.arange(60)
    a, b, c = (draw(labels, unit, rows, budget=10, seed=s).train.tolist() for s in (4, 4, 5))
    assert a == b != c


def test_what_cannot_be_split_is_refused_in_one_sentence():
    labels, rows = np.array([0, 0, 0, 1, 1, 1]), np.arange(6)
    with pytest.raises(UserError, match="7 folds need 7 subjects"):
        make_folds(labels, rows, folds=7)
    with pytest.raises(UserError, match="1 of 2 classes occur in one subject"):
        make_folds(labels, np.array([0, 1, 2, 3, 3, 3]), folds=2)
    with pytest.raises(UserError, match=r"budgets: 640 .* only 6"):
        draw(labels, rows, rows, budget=640)
    with pytest.raises(UserError, match="budgets: 1 is too small"):
        draw(labels, rows, rows, budget=1)
    with pytest.raises(UserError, match="no label"):
        make_folds(np.array([0, -1]), np.arange(2))
    with pytest.raises(UserError, match=r"split\.test"):
        holdout(labels, rows, test=1.5)


def test_a_published_split_that_leaks_is_refused_or_its_leaked_part_dropped():
    table = Table(split=["train", "train", "validation", "test", "test", None], group=["a", None, "b", "a", "c", "c"])
    unit = units(table)
    with pytest.raises(UserError, match="1 of 2 published test samples"):
        published(table, unit)
    (fold,) = published(table, unit, leaks="drop")
    assert fold.development.tolist() == [0, 1, 2]
    assert fold.test.tolist() == [4]


def test_published_folds_are_used_as_they_are():
    table = Table(fold=[1, 2, 2, 1, 3], subject=["a", "b", "b", "c", "d"])
    folds = published(table, units(table))
    assert [fold.test.tolist() for fold in folds] == [[0, 3], [1, 2], [4]]
    assert folds[0].development.tolist() == [1, 2, 4]


def test_a_dataset_without_a_published_split_says_so():
    with pytest.raises(UserError, match="no published split"):
        published(Table(subject=["a", "b"]), np.arange(2))
