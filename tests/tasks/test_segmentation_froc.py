"""FROC: components are matched and ranked as a slow count at every threshold would."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.tasks.segmentation.froc import FROC_RATES, Detections, detect, detect_regions, froc
from mrtransfer.tasks.segmentation.outputs import region_maps, to_classes

NESTED = MaskLabels.create({"rim": 1, "core": 2}, {"whole": ["rim", "core"], "core": ["core"]})


def cubes(*corners, size=2, shape=(20, 20, 10)):
    mask = np.zeros(shape, np.uint8)
    for x, y, z in corners:
        mask[x : x + size, y : y + size, z : z + size] = 1
    return mask


def test_confidences_are_means_over_components():
    reference = cubes((0, 0, 0), (5, 0, 0)) > 0
    predicted = cubes((0, 0, 0), (5, 10, 0), (10, 10, 0)) > 0
    probability = np.random.default_rng(0).random(reference.shape).astype(np.float32)
    found = detect(predicted, probability, reference)
    assert found.lesions == pytest.approx([probability[0:2, 0:2, 0:2].mean(), -np.inf])
    assert sorted(found.false) == pytest.approx(
        sorted([probability[5:7, 10:12, 0:2].mean(), probability[10:12, 10:12, 0:2].mean()])
    )


def slow_froc(subjects, threshold):
    hits = sum((s.lesions >= threshold).sum() for s in subjects) / sum(len(s.lesions) for s in subjects)
    return sum((s.false >= threshold).sum() for s in subjects) / len(subjects), hits


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), ties=st.booleans())
def test_froc_is_sensitivity_against_false_positives_at_every_threshold(seed, ties):
    rng = np.random.default_rng(seed)

    def draw(n):
        return rng.integers(1, 5, n) / 4.0 if ties else rng.random(n)

    subjects = [Detections(np.append(draw(rng.integers(0, 5)), -np.inf), draw(rng.integers(0, 8))) for _ in range(4)]
    found = froc(subjects)
    curve = set(zip(found.false_positives.tolist(), found.sensitivity.tolist(), strict=True))
    thresholds = {t for s in subjects for t in (*s.lesions, *s.false) if np.isfinite(t)}
    assert curve == {(0.0, 0.0), *(tuple(map(float, slow_froc(subjects, t))) for t in thresholds)}
    assert (np.diff(found.false_positives) >= 0).all()
    assert (np.diff(found.sensitivity) >= 0).all()
    values = found.at(FROC_RATES)
    assert all(0 <= low <= high <= 1 for low, high in pairwise(values))
    assert found.score == pytest.approx(np.mean(values))


def test_froc_of_a_worked_example():
    # Two subjects, four lesions. From the highest confidence down: hit, false, hit, false, false, hit.
    subjects = [
        Detections(np.array([0.9, 0.7]), np.array([0.8])),
        Detections(np.array([0.2, -np.inf]), np.array([0.6, 0.5])),
    ]
    assert froc(subjects).at((0.25, 0.5, 1.0, 1.5, 8.0)) == pytest.approx([0.25, 0.5, 0.5, 0.75, 0.75])


def test_froc_without_lesions_is_undefined_and_without_subjects_refused():
    found = froc([Detections(np.zeros(0), np.array([0.9, 0.8]))])
    assert np.isnan(found.score)
    assert found.false_positives.tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="no subject"):
        froc([])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), loss=st.sampled_from(["dice_ce", "region"]))
def test_every_region_of_a_case_is_matched_on_its_own(seed, loss):
    rng = np.random.default_rng(seed)
    probabilities = rng.random((2 if loss == "region" else 3, 8, 7, 3)).astype(np.float32)
    if loss != "region":
        probabilities /= probabilities.sum(0)
    predicted = to_classes(probabilities, loss, NESTED)
    predicted[rng.random(predicted.shape) < 0.5] = 0  # as cleaning would
    reference = rng.integers(0, 3, predicted.shape) * (rng.random(predicted.shape) < 0.2)
    found = detect_regions(predicted, probabilities, reference, loss, NESTED)
    maps = region_maps(probabilities, loss, NESTED)
    assert len(found) == 2
    for number, classes in enumerate([(1, 2), (2,)]):
        alone = detect(np.isin(predicted, classes), maps[number], np.isin(reference, classes))
        assert found[number].lesions.tolist() == pytest.approx(alone.lesions.tolist())
        assert found[number].false.tolist() == pytest.approx(alone.false.tolist())


def test_a_case_with_nothing_in_it_has_nothing_to_find():
    empty = np.zeros((4, 5, 1), np.uint8)
    found = detect_regions(empty, np.full((3, 4, 5, 1), 1 / 3, np.float32), empty, "dice_ce", NESTED)
    assert [(len(one.lesions), len(one.false)) for one in found] == [(0, 0), (0, 0)]
