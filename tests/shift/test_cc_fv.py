"""CC-FV agrees with matrix square roots and double loops, and refuses cases that say nothing."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from mrtransfer.common.errors import UserError
from mrtransfer.shift.score import CaseVoxels, Evidence, parse_score
from mrtransfer.shift.scores.cc_fv import cc_fv, class_consistency, feature_variety


def cases(count=4, voxels=60, width=5, shift=0.5, seed=0):
    """Two classes; from case to case a class moves by ``shift``."""
    random = np.random.default_rng(seed)
    means = 2 * random.normal(size=(2, width))
    return [
        CaseVoxels(
            f"s{number}",
            random.normal(size=(voxels, width)),
            {k + 1: random.normal(size=(voxels, width)) + means[k] + shift * random.normal(size=width) for k in (0, 1)},
        )
        for number in range(count)
    ]


def test_it_is_the_logarithm_of_variety_over_inconsistency_computed_the_slow_way():
    several = cases()
    distances = {1: [], 2: []}
    for i in range(4):
        for j in range(i):
            for k in (1, 2):
                a, b = several[i].classes[k], several[j].classes[k]
                first, second = np.cov(a.T), np.cov(b.T)
                root = sqrtm(sqrtm(first) @ second @ sqrtm(first)).real
                squared = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
                distances[k].append(np.sqrt(squared))
    apart = np.mean([np.mean(distances[1]), np.mean(distances[2])])
    inverse = []
    for case in several:
        unit = [row / np.sqrt((row**2).sum()) for row in case.whole]
        energies = [
            1 / np.sqrt(((unit[i] - unit[j]) ** 2).sum() + 1e-3)
            for i in range(len(unit))
            for j in range(len(unit))
            if i != j
        ]
        inverse.append(1 / np.mean(energies))
    assert class_consistency(several) == pytest.approx(apart, abs=1e-9)
    assert feature_variety(several) == pytest.approx(np.mean(inverse), abs=1e-9)
    assert cc_fv(several) == pytest.approx(np.log(np.mean(inverse) / apart), abs=1e-9)


def test_a_class_that_looks_the_same_in_every_case_scores_higher():
    assert cc_fv(cases(shift=0.1)) > cc_fv(cases(shift=3.0))


def test_features_that_crowd_together_score_lower():
    several = cases()
    crowded = [case._replace(whole=case.whole * 0.05 + 1) for case in several]
    assert cc_fv(several) > cc_fv(crowded)


def test_cases_of_one_subject_are_not_compared_with_each_other():
    first, second, other = (case._replace(classes={1: case.classes[1]}) for case in cases(3))
    apart = [class_consistency([one, other]) for one in (first, second)]
    assert class_consistency([first, second._replace(subject="s0"), other]) == pytest.approx(np.mean(apart))


def test_more_voxels_than_features_or_fewer_make_no_difference_to_the_formula():
    several = cases(2, voxels=6, width=40)
    a, b = several[0].classes[1], several[1].classes[1]
    root = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    squared = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    one = [case._replace(classes={1: case.classes[1]}) for case in several]
    assert class_consistency(one) == pytest.approx(np.sqrt(squared), rel=1e-5)  # the root of a singular matrix


def test_background_without_any_feature_is_no_error():
    several = [case._replace(whole=np.r_[case.whole, np.zeros((20, 5))]) for case in cases()]
    assert np.isfinite(cc_fv(several))


def test_cases_that_say_nothing_are_refused():
    several = cases()
    with pytest.raises(UserError, match="fewer than two subjects"):
        cc_fv([case._replace(subject="one") for case in several])
    with pytest.raises(UserError, match="no class occurs in cases of two subjects"):
        cc_fv([several[0], several[1]._replace(classes={3: several[1].classes[1]})])
    with pytest.raises(UserError, match=r"different widths \[4, 5\]"):
        cc_fv([several[0], *[case._replace(whole=case.whole[:, :4]) for case in several[1:]]])
    with pytest.raises(UserError, match="NaN or infinite"):
        cc_fv([several[0]._replace(whole=np.full((3, 5), np.nan)), *several[1:]])
    with pytest.raises(UserError, match="constant"):
        cc_fv([CaseVoxels(str(n), np.ones((5, 2)), {1: np.ones((5, 2))}) for n in range(3)])
    with pytest.raises(UserError, match="copies of one case"):
        cc_fv([several[0], several[0]._replace(subject="another")])
    with pytest.raises(UserError, match="variety needs two"):
        cc_fv([several[0]._replace(whole=several[0].whole[:1]), *several[1:]])
    with pytest.raises(UserError, match="needs features of voxels"):
        parse_score("cc_fv")(Evidence())
    assert parse_score("cc_fv")(Evidence(cases=several)) == cc_fv(several)
