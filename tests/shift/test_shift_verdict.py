"""The verdict says what the deciding rows say, and what so many subjects could have shown."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.common.multiplicity import holm
from mrtransfer.shift.design import design_of, p_text
from mrtransfer.shift.verdict import OPEN, SAME, SHIFTED, verdict_of


def subjects(*numbers: int, slices: int = 3) -> np.ndarray:
    return np.repeat([f"s{number}" for number in numbers], slices)


def row(family: str, p: float, normalised: float | None = 1.0) -> dict:
    feature = {"intensity": "histogram", "content": "pixels", "scanner": "spectrum"}[family]
    return {"family": family, "feature": feature, "p": p, "normalised": normalised}


LARGE = design_of(subjects(*range(20)), subjects(*range(20, 40)), 1000)
SMALL = design_of(subjects(0, 1, 2), subjects(0, 1, 2), 1000)


def test_what_is_shifted_comes_strongest_first_and_the_rest_is_named():
    found = verdict_of([row("content", 0.4, 0.2), row("intensity", 0.002, 4.2), row("scanner", 0.001, 11.0)], LARGE)
    assert found["kind"] == SHIFTED
    assert found["shifted"] == ["scanner", "intensity"]
    assert found["headline"] == "Shifted by scanner and in intensity"
    assert found["sentence"] == (
        "Target is shifted against source by scanner (spectrum: 11.0 standard deviations above chance, corrected p "
        "0.003) and in intensity (histogram: 4.2 standard deviations above chance, corrected p 0.004); nothing was "
        "found in content."
    )


def test_p_values_are_corrected_for_the_number_of_families():
    alone = verdict_of([row("content", 0.03)], LARGE)
    among = verdict_of([row("content", 0.03), row("intensity", 0.5), row("scanner", 0.5)], LARGE)
    assert alone["kind"] == SHIFTED
    assert among["kind"] == SAME
    assert [one["p_holm"] for one in among["families"]] == holm([0.03, 0.5, 0.5])


def test_nothing_found_by_a_design_that_could_have_is_the_same_domain():
    found = verdict_of([row("content", 0.2), row("intensity", 0.9), row("scanner", 0.4)], LARGE)
    assert found["kind"] == SAME
    assert found["sentence"].startswith("Same domain, as far as 20 subjects against 20 others can tell: no shift")
    assert "smallest corrected p 0.60, where 0.003 was possible" in found["sentence"]


def test_a_design_that_can_show_nothing_says_so_and_what_stands_out():
    rows = [row("content", 0.25, 1.2), row("intensity", 0.25, 1.7), row("scanner", 0.5, 0.3)]
    found = verdict_of(rows, SMALL)
    assert found["kind"] == OPEN
    assert found["shifted"] == []
    assert found["smallest_p"] == 0.25
    assert found["smallest_p_holm"] == 0.75
    for part in (
        "Too little data to say: with 3 subjects in both domains no p below 0.25 is possible",
        "0.75 once corrected for 3 families",
        "the observed one is the farthest apart in intensity and in content",
        "1.7 of at most 1.7 standard deviations above chance, p 0.25",
    ):
        assert part in found["sentence"]


def test_too_little_data_is_judged_after_the_correction():
    """Five subjects in both domains reach 2/32 = 0.0625; six reach 0.031, which three families take to 0.094."""
    six = design_of(subjects(*range(6)), subjects(*range(6)), 1000)
    assert verdict_of([row("content", 0.5)], six)["kind"] == SAME
    assert verdict_of([row("content", 0.5), row("intensity", 0.5), row("scanner", 0.5)], six)["kind"] == OPEN


def test_a_shift_by_scanner_between_scanners_of_the_same_names_is_laid_to_something_else():
    same = (["a", "b"], ["b", "a"])
    sentence = verdict_of([row("scanner", 0.001)], LARGE, scanners=same)["sentence"]
    assert "the scanners are the same by name (a and b), so it is something else in how the scans" in sentence
    assert "by name" not in verdict_of([row("content", 0.001)], LARGE, scanners=same)["sentence"]


@pytest.mark.parametrize(
    ("scanners", "told"),
    [
        ((["a", "a"], ["b"]), "; the scanners differ by name, a against b."),
        ((["b", "a"], ["a", "b"]), None),
        ((["a"], ["", ""]), None),
        ((["a"], list("cdefgh")), "; the scanners differ by name, a against c, d, e, f and 2 more."),
    ],
)
def test_scanners_that_differ_by_name_are_named(scanners, told):
    sentence = verdict_of([row("content", 0.001)], LARGE, scanners=scanners)["sentence"]
    assert sentence.endswith(told) if told else "scanners" not in sentence


def test_a_feature_that_is_the_same_everywhere_comes_last():
    found = verdict_of([row("content", 1.0, None), row("intensity", 0.3, 0.5)], LARGE)
    assert [one["family"] for one in found["families"]] == ["intensity", "content"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_the_smallest_p_is_that_of_all_relabellings(pairs, only_x, only_y):
    """Counted by listing every way of exchanging labels, and looking for the ones that are the observed or mirrored."""
    if min(pairs + only_x, pairs + only_y) < 2:
        return
    both = list(range(pairs))
    x, y = [*both, *range(10, 10 + only_x)], [*both, *range(20, 20 + only_y)]
    found = design_of(subjects(*x), subjects(*y), 1000)
    single = [*x[pairs:], *y[pairs:]]
    ways = [
        (frozenset(to_x), sides)
        for to_x in combinations(single, only_x)
        for sides in product((True, False), repeat=pairs)
    ]
    observed = (frozenset(x[pairs:]), (True,) * pairs)
    mirrored = (frozenset(y[pairs:]), (False,) * pairs)
    assert found["exact"]
    assert found["possible"] == len(ways)
    assert found["smallest_p"] == len({observed, mirrored} & set(ways)) / len(ways)


def test_the_largest_value_above_chance_is_reached_where_all_others_are_alike():
    values = np.array([5.0, 5.0, 1, 1, 1, 1, 1, 1])  # 3 subjects in both domains: the observed one and its mirror
    assert SMALL["largest_normalised"] == pytest.approx((5 - values.mean()) / values.std())
    assert LARGE["largest_normalised"] is None


def test_the_design_in_words():
    assert SMALL["subjects_words"] == "3 subjects in both domains"
    assert "2³ = 8 ways" in SMALL["words"]
    assert "no p below 2/8 = 0.25 is possible" in SMALL["words"]
    assert "no value more than 1.7 standard deviations" in SMALL["words"]
    assert "1,000 of them are drawn at random, so that no p below 1/1,001 = 0.001" in LARGE["words"]
    lonely = design_of(subjects(0, 1, 2, 8, 9), subjects(0, 1, 2), 1000)
    assert lonely["subjects_words"] == "3 subjects in both domains and 2 subjects in the source alone"
    assert "subjects of the source alone have no others to exchange labels with" in lonely["words"]
    assert lonely["smallest_p"] == 1 / 8
    mixed = design_of(subjects(0, 1, 8), subjects(0, 1, 9), 1000)
    assert mixed["subjects_words"] == (
        "2 subjects in both domains, 1 subject in the source alone and 1 subject in the target alone"
    )


def test_fewer_than_two_subjects_are_refused():
    with pytest.raises(UserError, match=r"has 1 subject: .* each domain needs at least two"):
        design_of(subjects(0), subjects(1, 2), 100)


@pytest.mark.parametrize(
    ("p", "text"),
    [(None, "–"), (1.0, "1.00"), (0.25, "0.25"), (0.0312, "0.031"), (0.000999, "0.001"), (2.3e-7, "2e-07")],
)
def test_p_in_two_digits(p, text):
    assert p_text(p) == text


def test_holm_is_the_step_down_procedure():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, float("nan"), 0.9])[0] == 1.0
    assert holm([]) == []


def test_a_count_of_many_digits_is_written_as_a_power():
    fifty = design_of(subjects(*range(50)), subjects(*range(50, 100)), 1000)
    assert "divided anew into 50 and 50, 1.0 · 10²⁹ ways" in fifty["words"]  # 100,891,344,545,564,193,334,812,497,256
    ten = design_of(subjects(*range(10)), subjects(*range(10, 20)), 1000)
    assert "divided anew into 10 and 10, 184,756 ways" in ten["words"]
