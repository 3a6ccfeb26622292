"""Subjects keep their rows together: which relabellings there are, and how subjects are drawn again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.shift.parts import Parts


def design(only_x: int, only_y: int, both: int, rows: int = 2) -> Parts:
    shared = [f"b{number}" for number in range(both)]
    x = shared + [f"x{number}" for number in range(only_x)]
    y = shared + [f"y{number}" for number in range(only_y)]
    return Parts.of(np.repeat(x, rows), np.tile(y, rows))


designs = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)).filter(
    lambda sizes: sizes[0] + sizes[2] >= 2 and sizes[1] + sizes[2] >= 2
)


def test_rows_belong_to_the_part_of_their_subject_and_domain():
    parts = Parts.of(np.array(["anna", "ben", "anna", "cleo"]), np.array(["dora", "ben", "dora"]))
    assert parts.of_x.tolist() == [0, 1, 0, 2]
    assert parts.of_y.tolist() == [4, 3, 4]
    assert parts.in_x.tolist() == [True, True, True, False, False]
    assert parts.pairs.tolist() == [[1, 3]]
    assert (parts.count, parts.subjects, parts.paired) == (5, 4, True)
    assert parts.subject[1] == parts.subject[3]


def test_numbers_and_names_name_subjects_alike():
    assert Parts.of(np.array([1, 2]), np.array(["1", "3"])).pairs.tolist() == [[0, 2]]


@given(designs)
@settings(deadline=None)
def test_few_relabellings_are_listed_completely_and_keep_the_design(sizes):
    parts = design(*sizes)
    found = parts.relabellings(400, seed=0)
    assert found.exact
    assert found.possible == parts.possible == len(found.first) == len(np.unique(found.first, axis=0))
    assert (found.first == parts.in_x).all(1).nonzero()[0].tolist() == [parts.possible - 1]  # the observed one, last
    check_design(parts, found.first)


@given(designs, st.integers(0, 5))
@settings(deadline=None)
def test_random_relabellings_keep_the_design_and_are_the_same_for_one_seed(sizes, seed):
    parts = design(*sizes)
    found = parts.relabellings(parts.possible - 1, seed)
    assert not found.exact
    assert len(found.first) == parts.possible - 1
    check_design(parts, found.first)
    np.testing.assert_array_equal(found.first, parts.relabellings(parts.possible - 1, seed).first)


def check_design(parts: Parts, first: np.ndarray) -> None:
    a, b = parts.pairs.T
    assert (first[:, a] != first[:, b]).all()  # the two halves of a subject are never in one domain
    assert (first.sum(1) == parts.in_x.sum()).all()


def test_random_relabellings_are_equally_likely():
    parts = design(2, 2, 2)
    first = np.concatenate([parts.relabellings(20, seed).first for seed in range(300)])
    _, counts = np.unique(first, axis=0, return_counts=True)
    assert len(counts) == parts.possible == 24
    expected = len(first) / 24
    assert ((counts - expected) ** 2 / expected).sum() < 49.7  # chi², 23 degrees of freedom, p = 0.001


@given(designs)
@settings(deadline=None)
def test_the_smallest_p_is_what_a_symmetric_statistic_reaches_at_best(sizes):
    parts = design(*sizes)
    first = parts.relabellings(400, seed=0).first
    weights = 3.0 ** np.arange(parts.count)  # no two labellings but opposite ones give the same value
    values = np.abs(np.where(first, 1, -1) @ weights)
    shares = [(values >= value).mean() for value in values]
    assert min(shares) == pytest.approx(parts.smallest_p)


def test_more_relabellings_than_asked_for_may_exist():
    found = design(30, 30, 0).relabellings(10, seed=0)
    assert not found.exact
    assert found.possible == 118264581564861424
    assert len(design(4, 4, 0).relabellings(0, seed=0).first) == 0


@given(designs, st.integers(0, 3))
@settings(deadline=None)
def test_subjects_are_drawn_with_replacement_each_kind_by_itself(sizes, seed):
    only_x, only_y, both = sizes
    parts = design(*sizes)
    counts = parts.resamples(20, seed)
    a, b = parts.pairs.T
    single = np.setdiff1d(np.arange(parts.count), parts.pairs)
    assert (counts[:, a] == counts[:, b]).all()
    assert (counts[:, a].sum(1) == both).all()
    assert (counts[:, single[parts.in_x[single]]].sum(1) == only_x).all()
    assert (counts[:, single[~parts.in_x[single]]].sum(1) == only_y).all()
    for side in (parts.in_x, ~parts.in_x):
        assert ((counts[:, side] > 0).sum(1) >= 2).all()
    np.testing.assert_array_equal(counts, parts.resamples(20, seed))


@pytest.mark.parametrize(("x", "y", "named"), [(["a", "a"], ["b", "c"], "X"), (["a", "b"], ["c"], "Y")])
def test_a_domain_with_one_subject_is_refused(x, y, named):
    with pytest.raises(UserError, match=f"{named} has 1 subject: .* at least two"):
        Parts.of(np.array(x), np.array(y))
