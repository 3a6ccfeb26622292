"""Boxes, localisation scores and pictures of cases that can be worked out by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.tasks.localisation.boxes import Box, find_in_heat, find_in_mask
from mrtransfer.tasks.localisation.pictures import BOX_COLOUR, MASK_COLOUR, overlay
from mrtransfer.tasks.localisation.scores import LOCALISATION_METRICS, WORDS, score_heat


def test_the_box_of_a_heat_map_holds_its_largest_component():
    heat = np.zeros((20, 20))
    heat[2:4, 2:4] = 1.0
    heat[8:14, 9:17] = 0.5
    heat[14, 17] = 0.5  # touches by a corner
    heat[18, 0] = 0.19
    found = find_in_heat(heat)
    assert found.box == Box((8, 9), (14, 17))
    assert find_in_heat(heat, share=0.6).box == Box((2, 2), (3, 3))
    assert find_in_heat(heat, share=0.6).centre == (2.5, 2.5)
    assert find_in_heat(np.zeros((4, 4))) is None
    assert json.dumps(found.box.to_json()) == '{"first": [8, 9], "last": [14, 17], "centre": [11.0, 13.0]}'


def test_of_two_equally_large_components_the_hotter_one_is_taken():
    heat = np.zeros((9, 9, 3))
    heat[0:2, 0:2] = 0.6
    heat[5:7, 5:7] = 0.9
    heat[8, 8, 0] = 1.0
    assert find_in_heat(heat, share=0.5).box == Box((5, 5, 0), (6, 6, 2))


def test_the_centre_of_a_heat_map_leans_to_the_heat():
    heat = np.array([[0.25, 0.5, 1.0]])
    assert find_in_heat(heat, share=0.2).centre == pytest.approx((0, (0.5 + 2.0) / 1.75))


def test_every_lesion_of_a_mask_has_a_box():
    mask = np.zeros((10, 10, 4), np.uint8)
    mask[0:2, 0:2, 0] = 1
    mask[5:9, 4:7, 1:3] = 255
    found = find_in_mask(mask)
    assert [lesion.box for lesion in found] == [Box((5, 4, 1), (8, 6, 2)), Box((0, 0, 0), (1, 1, 0))]
    assert found[0].centre == pytest.approx((6.5, 5.0, 1.5))
    assert found[0].box.size == 24
    assert find_in_mask(np.zeros((3, 3))) == []


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), dims=st.integers(1, 3))
def test_overlap_of_boxes_is_that_of_their_voxels(seed, dims):
    rng = np.random.default_rng(seed)

    def draw():
        corners = np.sort(rng.integers(0, 6, (2, dims)), axis=0)
        voxels = np.zeros((6,) * dims, bool)
        voxels[tuple(slice(low, high + 1) for low, high in corners.T)] = True
        return Box(*(tuple(map(int, corner)) for corner in corners)), voxels

    (a, voxels_a), (b, voxels_b) = draw(), draw()
    assert a.overlap(b) == pytest.approx((voxels_a & voxels_b).sum() / (voxels_a | voxels_b).sum())
    assert a.overlap(b) == b.overlap(a)
    assert a.overlap(a) == 1


def test_scores_worked_out_by_hand():
    mask = np.zeros((10, 10), np.uint8)
    mask[2:4, 2:4] = 1
    mask[7:9, 6:9] = 1
    heat = np.zeros((10, 10))
    heat[7:9, 5:8] = 0.5
    heat[8, 5] = 1.0
    found = score_heat(heat, mask)
    assert found == {"pointing": 0.0, "box_iou": 4 / 8, "heat_inside": pytest.approx(2.0 / 3.5)}
    assert score_heat(heat, mask, tolerance=1)["pointing"] == 1
    assert score_heat(heat, mask, tolerance=1, spacing=(1.0, 1.5))["pointing"] == 0
    assert score_heat(heat, mask, tolerance=1.5, spacing=(1.0, 1.5))["pointing"] == 1
    assert set(found) == set(LOCALISATION_METRICS) == set(WORDS)


def test_images_without_mask_have_no_scores():
    heat, mask = np.ones((4, 4)), np.zeros((4, 4), bool)
    assert score_heat(heat, None) is None
    assert score_heat(heat, mask) is None
    mask[0, 0] = True
    nowhere = score_heat(np.zeros((4, 4)), mask)
    assert set(nowhere.values()) == {0.0}
    exact = score_heat(mask.astype(float), mask)
    assert set(exact.values()) == {1.0}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_scores_stay_between_0_and_1(seed):
    rng = np.random.default_rng(seed)
    heat, mask = rng.random((8, 7)) ** 4, rng.random((8, 7)) < 0.2
    mask[0, 0] = True
    found = score_heat(heat, mask, tolerance=float(rng.integers(0, 3)))
    assert all(0 <= value <= 1 for value in found.values())


def test_heat_that_is_none_is_refused():
    mask = np.ones((3, 3))
    with pytest.raises(UserError, match="finite values of 0 or more"):
        score_heat(np.full((3, 3), np.nan), mask)
    with pytest.raises(UserError, match="finite values of 0 or more"):
        find_in_heat(np.full((3, 3), -1.0))
    with pytest.raises(UserError, match="differ"):
        score_heat(np.ones((3, 4)), mask)
    with pytest.raises(UserError, match="share"):
        find_in_heat(np.ones((3, 4)), share=0)
    with pytest.raises(UserError, match="tolerance"):
        score_heat(np.ones((3, 3)), mask, tolerance=-1)


def test_a_picture_shows_image_heat_outline_and_box():
    image = np.linspace(0, 200, 30 * 40).reshape(30, 40)
    heat, mask = np.zeros((30, 40)), np.zeros((30, 40), bool)
    heat[10:15, 10:15] = 1
    mask[8:14, 8:14] = True
    box = Box((10, 10), (20, 25))
    picture = overlay(image, heat, boxes=[box], mask=mask)
    assert picture.shape == (30, 40, 3)
    assert picture.dtype == np.uint8
    assert tuple(picture[20, 25]) == tuple(picture[10, 25]) == BOX_COLOUR
    assert tuple(picture[8, 8]) == MASK_COLOUR
    grey = overlay(image)
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    assert (np.diff(grey[:, :, 0].ravel().astype(int)) >= 0).all()
    untouched = np.ones((30, 40), bool)
    untouched[8:21, 8:26] = False
    np.testing.assert_array_equal(picture[untouched], grey[untouched])
    assert (picture[12, 12] != grey[12, 12]).any()
    assert (picture[16, 16] == grey[16, 16]).all()  # inside the box, outside heat and mask
    np.testing.assert_array_equal(overlay(grey), grey)


def test_pictures_of_constant_images_and_wrong_shapes():
    assert overlay(np.full((5, 5), 3.0)).shape == (5, 5, 3)
    with pytest.raises(UserError, match="does not fit"):
        overlay(np.zeros((5, 5, 4)))
    with pytest.raises(UserError, match="heat map: shape"):
        overlay(np.zeros((5, 5)), np.zeros((4, 5)))
