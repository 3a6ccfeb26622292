"""Lesions are counted, ranked and listed as a slow hand count would; cleaning helps or is left alone."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mrtransfer.common.errors import UserError
from mrtransfer.data.mask_labels import MaskLabels
from mrtransfer.tasks.segmentation.clean import Cleaning, Rule, choose_cleaning
from mrtransfer.tasks.segmentation.lesions import components, count_lesions, list_lesions
from mrtransfer.tasks.segmentation.metrics import evaluate_case

BINARY = MaskLabels.binary()
BRATS = MaskLabels.create(
    {"necrosis": 1, "oedema": 2, "enhancing": 4},
    {"whole": ["necrosis", "oedema", "enhancing"], "core": ["necrosis", "enhancing"], "enhancing": ["enhancing"]},
)


def cubes(*corners, size=2, shape=(20, 20, 10), value=1):
    mask = np.zeros(shape, np.uint8)
    for x, y, z in corners:
        mask[x : x + size, y : y + size, z : z + size] = value
    return mask


def slow_components(mask):
    """Flood fill over all 26 neighbours."""
    left, found = set(zip(*np.nonzero(mask), strict=True)), []
    while left:
        front, group = [left.pop()], set()
        while front:
            voxel = front.pop()
            group.add(voxel)
            near = {o for o in left if max(abs(a - b) for a, b in zip(o, voxel, strict=True)) == 1}
            left -= near
            front += near
        found.append(group)
    return found


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0.02, 0.3), depth=st.integers(1, 4))
def test_lesions_are_counted_as_by_hand(seed, density, depth):
    rng = np.random.default_rng(seed)
    predicted, reference = rng.random((2, 7, 6, depth)) < density
    own, lesions = slow_components(predicted), slow_components(reference)
    found = count_lesions(predicted, reference)
    assert components(predicted)[1] == len(own)
    assert found.found == sum(any(lesion & part for part in own) for lesion in lesions)
    assert found.true == sum(any(lesion & part for lesion in lesions) for part in own)
    assert (found.found + found.missed, found.true + found.false) == (len(lesions), len(own))


def test_lesion_scores_of_a_case_counted_by_hand():
    reference = cubes((0, 0, 0), (5, 0, 0), (10, 0, 0))
    predicted = cubes((0, 0, 0), (5, 1, 1), (0, 10, 0), (5, 10, 0), (10, 10, 0))
    found = evaluate_case(predicted, reference, (1, 1, 1), BINARY)
    assert found["lesion_sensitivity"] == pytest.approx(2 / 3)
    assert found["lesion_precision"] == pytest.approx(2 / 5)
    assert found["lesion_f1"] == pytest.approx(0.5)


def test_one_component_over_two_lesions_finds_both():
    reference = cubes((0, 0, 0), (5, 0, 0))
    bridge = np.zeros_like(reference)
    bridge[0:7, 0, 0] = 1
    counts = count_lesions(bridge > 0, reference > 0)
    assert (counts.found, counts.missed, counts.true, counts.false) == (2, 0, 1, 0)


def test_the_list_of_lesions_gives_volume_place_and_confidence():
    classes = cubes((2, 3, 4), value=2)
    classes[10:14, 10:14, 5:9] = 2
    classes[11:13, 11:13, 6:8] = 3
    affine = np.array([[-1.5, 0, 0, 90], [0, 2, 0, -100], [0, 0, 3, -50], [0, 0, 0, 1.0]])
    probabilities = np.full((3, *classes.shape), 0.5, np.float32)
    probabilities[0, 2:4, 3:5, 4:6] = 0.75
    found = list_lesions(classes, affine, BRATS, probabilities)
    assert [(lesion.region, lesion.voxels) for lesion in found] == [
        ("whole", 64), ("whole", 8), ("core", 8), ("enhancing", 8)
    ]  # fmt: skip
    small = found[1]
    assert small.volume_ml == pytest.approx(8 * 9 / 1000)
    assert small.centre_mm == pytest.approx((90 - 1.5 * 2.5, -100 + 2 * 3.5, -50 + 3 * 4.5))
    assert (small.first, small.last) == ((2, 3, 4), (3, 4, 5))
    assert small.confidence == pytest.approx(0.75)
    assert json.loads(json.dumps(small.to_json(), allow_nan=False))["centre_mm"] == list(small.centre_mm)
    assert list_lesions(classes, affine, BRATS)[0].confidence is None
    assert list_lesions(np.zeros_like(classes), affine, BRATS) == []


def test_small_components_go_and_large_ones_stay():
    classes = cubes((0, 0, 0), size=4) + cubes((10, 10, 4), size=2)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])  # 0.128 and 0.016 ml
    kept = Cleaning((("tumour", Rule(least_ml=0.016)),)).apply(classes, affine, BINARY)
    np.testing.assert_array_equal(kept, classes)
    before = classes.copy()
    cleaned = Cleaning((("tumour", Rule(least_ml=0.0161)),)).apply(classes, affine, BINARY)
    np.testing.assert_array_equal(cleaned, cubes((0, 0, 0), size=4))
    np.testing.assert_array_equal(classes, before)
    largest = Cleaning((("tumour", Rule(largest=True)),)).apply(classes, affine, BINARY)
    np.testing.assert_array_equal(largest, cleaned)


def test_a_removed_spot_takes_the_class_around_it():
    classes = np.full((9, 9, 9), 2, np.uint8)
    classes[2:7, 2:7, 2:7] = 1
    classes[4, 4, 4] = 3
    cleaned = Cleaning((("enhancing", Rule(least_ml=0.01)),)).apply(classes, np.eye(4), BRATS)
    assert cleaned[4, 4, 4] == 1
    cleaned = Cleaning((("core", Rule(least_ml=1.0)),)).apply(classes, np.eye(4), BRATS)
    assert (cleaned == 2).all()
    cleaned = Cleaning((("whole", Rule(least_ml=1.0)),)).apply(classes, np.eye(4), BRATS)
    assert not cleaned.any()


def noisy_cases(noise, labels=BINARY, n=4):
    predicted, references = [], []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        reference = cubes((4, 5, 2), size=6)
        wrong = ndimage.binary_dilation(rng.random(reference.shape) < noise)
        predicted.append(np.maximum(reference, wrong.astype(np.uint8)))
        references.append(reference)
    return predicted, references, [(1.0, 1.0, 1.0)] * n


def test_cleaning_is_chosen_where_it_helps_and_reaches_the_best_dice():
    predicted, references, spacings = noisy_cases(0.004)
    cleaning = choose_cleaning(predicted, references, spacings, BINARY)

    def mean_dice(masks):
        return np.mean([evaluate_case(m, r, (1, 1, 1), BINARY)["dice"] for m, r in zip(masks, references, strict=True)])

    best = mean_dice([cleaning.apply(mask, np.eye(4), BINARY) for mask in predicted])
    assert best > mean_dice(predicted) + 0.05
    for least_ml in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        other = Cleaning((("tumour", Rule(least_ml=least_ml)),))
        assert best >= mean_dice([other.apply(mask, np.eye(4), BINARY) for mask in predicted]) - 0.001
    assert Cleaning.from_json(json.loads(json.dumps(cleaning.to_json()))) == cleaning


def test_no_cleaning_is_chosen_where_none_helps():
    predicted, references, spacings = noisy_cases(0.0)
    assert choose_cleaning(predicted, references, spacings, BINARY) is None
    two = cubes((0, 0, 0), (10, 10, 4), size=2)  # removing either true lesion would hurt
    assert choose_cleaning([two], [two], [(1, 1, 1)], BINARY) is None
    assert choose_cleaning([], [], [], BINARY) is None
    assert Cleaning.from_json(None) is None


def test_choosing_leaves_the_predictions_as_they_are():
    predicted, references, spacings = noisy_cases(0.004)
    before = [mask.copy() for mask in predicted]
    choose_cleaning(predicted, references, spacings, BINARY)
    for mask, old in zip(predicted, before, strict=True):
        np.testing.assert_array_equal(mask, old)


def test_a_damaged_description_and_an_unknown_region_are_refused():
    with pytest.raises(UserError, match=r"model\.json: is not the description of a cleaning"):
        Cleaning.from_json({"rules": [["tumour", {}]]}, "model.json")
    with pytest.raises(UserError, match="did you mean 'tumour'"):
        Cleaning((("tumor", Rule(0.1)),)).apply(np.zeros((2, 2, 2), np.uint8), np.eye(4), BINARY)
