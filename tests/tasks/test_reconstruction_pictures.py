"""The picture of a slice shows what it says: one window, enlarged errors, the detail, the sampled columns."""

import io

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from mrtransfer.common.errors import UserError
from mrtransfer.tasks.reconstruction.detail import detail_window
from mrtransfer.tasks.reconstruction.pictures import slice_picture, to_png

SIDE, GAP, TITLE = 240, 6, 41  # an image of 240 × 240 is drawn pixel by pixel, below a line of text


def head(side=SIDE):
    """A disc of value 1 with a bright rim of 2, air around it."""
    rows, columns = np.mgrid[:side, :side] - side / 2
    radius = np.hypot(rows, columns) / side
    return np.where(np.abs(radius - 0.39) < 0.01, 2, radius < 0.4).astype(np.float32)


def tile(picture, row, column):
    """The image in row 0, or the errors in row 1, of a picture of 240 × 240 pixels."""
    top, left = TITLE + GAP + row * (SIDE + GAP), column * (SIDE + GAP)
    return picture[top : top + SIDE, left : left + SIDE].astype(int)


def test_images_share_one_window():
    reference = head()
    picture = slice_picture(reference, 0.5 * reference, {"arm": reference, "bright": 3 * reference})
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (4 * (SIDE + GAP) - GAP, 3)
    greys = [tile(picture, 0, column)[30:210, 100:140].reshape(-1, 3) for column in range(4)]
    for found, value in zip(greys, (1, 0.5, 1, 3), strict=True):
        assert np.median(found) == pytest.approx(255 * min(value / 2, 1), abs=1.5)


def test_errors_are_five_times_enlarged_on_one_scale_and_without_sign():
    reference = head()
    arms = {"below": reference.copy(), "above": reference.copy(), "lost": 0 * reference}
    arms["below"][100:140, 60:80] -= 0.2  # a tenth of white
    arms["above"][100:140, 60:80] += 0.2
    picture = slice_picture(reference, reference, arms)
    half, full, none = (np.array(colormaps["inferno"](at)[:3]) * 255 for at in (0.5, 1.0, 0.0))
    for column in (2, 3):
        np.testing.assert_allclose(tile(picture, 1, column)[120, 70], half, atol=3)
        np.testing.assert_allclose(tile(picture, 1, column)[120, 120], none, atol=1)
    np.testing.assert_allclose(tile(picture, 1, 4)[120, 120], full, atol=1)
    assert np.ptp(tile(picture, 1, 1), axis=(0, 1)).max() == 0


def test_the_detail_is_where_the_arms_differ_most_within_the_body():
    reference = head()
    one, other = reference.copy(), reference.copy()
    other[150:160, 90:100] += 0.1
    other[:40, :40] += 1.0  # in the air
    found = detail_window(reference, 0 * reference, [one, other])
    assert found.height == found.width == round(240 / 4.5)
    assert found.of(other - one).sum() == pytest.approx(10, rel=1e-5)


def test_with_one_arm_the_detail_is_where_it_differs_from_zero_filled():
    reference = head()
    zero_filled = reference.copy()
    zero_filled[80:90, 140:150] = 0
    found = detail_window(reference, zero_filled, [reference])
    assert found.of(reference - zero_filled).sum() == pytest.approx(100)


def test_the_detail_is_a_square_in_millimetres_and_fits_any_image():
    assert detail_window(head(90), head(90), [], spacing=(2.0, 1.0))[2:] == (20, 40)
    wide = np.ones((8, 90), dtype=np.float32)
    found = detail_window(wide, wide, [wide])
    assert (found.height, found.width) == (8, 20)
    blank = np.zeros((30, 20), dtype=np.float32)
    found = detail_window(blank, blank, [blank, blank])
    assert found.top + found.height <= 30
    assert found.left + found.width <= 20


def test_the_detail_is_enlarged_at_the_bottom():
    reference = head()
    arm = reference.copy()
    arm[150:160, 90:100] = 1.7
    picture = slice_picture(reference, reference, {"arm": arm, "other": reference})
    bottom = picture[TITLE + GAP + 2 * (SIDE + GAP) :, 2 * (SIDE + GAP) : 3 * (SIDE + GAP) - GAP]
    assert bottom.shape == (SIDE, SIDE, 3)
    enlarged = (SIDE / round(240 / 4.5)) ** 2
    assert (bottom[..., 0] > 190).sum() == pytest.approx(100 * enlarged, rel=0.1)


def test_sampled_columns_are_drawn_as_lines_of_equal_width():
    reference = head()
    columns = np.zeros(100, dtype=bool)
    columns[[0, 50, 51, 99]] = True
    arms = {"arm": reference}
    picture = slice_picture(reference, reference, arms, columns=columns, acceleration=8)
    strip = picture[-10, :, 0]
    each = picture.shape[1] // 100
    assert (strip == 225).sum() == 4 * each
    assert (strip[50 * each : 52 * each] == 225).all()
    assert (strip == 45).sum() == 96 * each
    many = slice_picture(reference, reference, arms, columns=np.tile(columns, 20))
    assert many.shape == picture.shape


def test_many_arms_go_on_below_beside_the_reference():
    reference = head()
    few = slice_picture(reference, reference, {f"arm {k}": reference for k in range(4)})
    many = slice_picture(reference, reference, {f"arm {k}": reference for k in range(6)})
    assert many.shape[1] == few.shape[1]
    assert many.shape[0] == 2 * few.shape[0] + GAP
    np.testing.assert_array_equal(many[few.shape[0] + GAP :, :SIDE], many[: few.shape[0], :SIDE])


def test_pixels_are_drawn_in_their_true_proportions():
    reference = head(80)
    square = slice_picture(reference, reference, {"arm": reference})
    tall = slice_picture(reference, reference, {"arm": reference}, spacing=(1.0, 0.5))
    assert square.shape[1] == 3 * (SIDE + GAP) - GAP
    assert tall.shape[1] == 3 * (SIDE // 2 + GAP) - GAP


def test_long_names_of_one_beginning_are_told_apart():
    reference = head()
    names = [f"varnet_with_mraugment_and_transfer_{end}" for end in ("from_knee", "from_brain")]
    picture = slice_picture(reference, reference, dict.fromkeys([*names, 40 * "m"], reference))
    first, second = (picture[:50, column * (SIDE + GAP) :][:, :SIDE] for column in (2, 3))
    assert not np.array_equal(first, second)


def test_scores_are_those_of_the_slice_in_the_volumes_range():
    reference, arms = head(), {"arm": 0.9 * head()}
    own, same, volume = (slice_picture(reference, reference, arms, max_value=most) for most in (None, 2.0, 5.0))
    np.testing.assert_array_equal(own, same)
    assert not np.array_equal(own[:TITLE], volume[:TITLE])
    np.testing.assert_array_equal(own[TITLE:], volume[TITLE:])


def test_an_arm_without_numbers_is_shown_black():
    reference = head()
    lost = np.full_like(reference, np.nan)
    lost[:9] = np.inf
    picture = slice_picture(reference, reference, {"lost": lost, "arm": reference})
    shown = tile(picture, 0, 2)
    framed = (shown == (86, 180, 233)).all(-1)
    assert shown[~framed][9 * SIDE :].max() == 0
    assert framed.sum() < 4 * SIDE


def test_the_same_slice_gives_the_same_file():
    reference, arms = head(60), {"arm": 0.9 * head(60)}
    first, second = (to_png(slice_picture(reference, 0.8 * reference, arms)) for _ in range(2))
    assert first == second
    stored = np.asarray(Image.open(io.BytesIO(first)))
    np.testing.assert_array_equal(stored, slice_picture(reference, 0.8 * reference, arms))


def test_images_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"varnet is of shape \(60, 59\), the reference of \(60, 60\)"):
        slice_picture(head(60), head(60), {"varnet": head(60)[:, 1:]})
